"""The names that are most like a misspelt one."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.0, count: int = 3) -> list[str]:
    """The `count` names that are most like `name`, the nearest first.

    Names have parts, as in optim.lr and caffe2/i3d_8x8. The last part alone may be near, too.

    Args:
        cutoff: the least likeness, from 0 (every name) to 1 (the same name or last part).
    """
    scores = {other: _likeness(name.lower(), other.lower()) for other in names}
    near = sorted(other for other in scores if max(scores[other]) >= cutoff)
    near.sort(key=lambda other: (max(scores[other]), sum(scores[other])), reverse=True)
    return near[:count]


def _likeness(one: str, other: str) -> tuple[float, float]:
    """How alike two names are as a whole, and in their last parts."""
    whole = SequenceMatcher(None, one, other).ratio()
    return whole, SequenceMatcher(None, _last_part(one), _last_part(other)).ratio()


def _last_part(name: str) -> str:
    return re.split(r"[./]", name)[-1]
