"""The sets of tensors in a file: which there are, under which words, and which one is taken.

Projects save the tensors of a network alone, or below a word such as `state_dict` or `model`, often
beside an average over the steps (`model_ema`), and wrappers add prefixes to their names. The
content is searched; the words are not known beforehand.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from nlnet.errors import UsageError, UserError
from nlnet.weights.keymap import unknown_keys
from nlnet.weights.recognize import recognize
from nlnet.weights.sources.all import FORMATS

STEM = "backbone.conv1.weight"  # in our ResNets; the other networks have pytorchvideo's modules
PARTS = ("backbone.", "head.")  # of our networks
WHOLE = ""  # the word of tensors without an envelope
# Prefixes of DistributedDataParallel and AveragedModel, of PySlowFast and Lightning, and of others.
PREFIXES = ("module.", "model.", "net.", "network.")
# Parts of names anywhere: torch.compile, activation checkpointing, FullyShardedDataParallel.
WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
COUNTERS = ("n_averaged", "steps")  # of AveragedModel and of mmengine's averages
DEEPEST = 3  # envelopes around each other


class TensorSet(NamedTuple):
    """A set of tensors, without prefixes."""

    word: str  # the keys that lead to it, joined with "."; WHOLE without envelope
    tensors: dict[str, Tensor]

    @property
    def is_known(self) -> bool:
        """Whether a network of ours or of a code base has such names."""
        return is_ours(self.tensors) or recognize(self.tensors) is not None


def is_ours(names: Collection[str]) -> bool:
    """Whether these are the names of a network of ours, and not of another code base."""
    if STEM in names:
        return True
    form = recognize(names)
    if form is not None and not unknown_keys(names, FORMATS[form]):
        return False
    return len(names) > 0 and all(name.startswith(PARTS) for name in names)


def take_set(
    saved: Mapping[str, object], source: str, key: str | None = None, default: str | None = None
) -> TensorSet:
    """Return the set of tensors that a file is about.

    Args:
        saved: the content of the file
        source: its name in errors
        key: the word of the wanted set; None: there must be only one
        default: the word that is taken if there are several and `key` is None

    Raises:
        UsageError: there is no set of this word, or there are several to choose from.
        UserError: there are no tensors by name.
    """
    sets = {found.word: found for found in _find_sets(saved, WHOLE)}
    if key is not None:
        if key not in sets:
            words = ", ".join(word for word in sets if word) or "none"
            raise UsageError(f"{source}#{key}: holds no tensors under {key}; its words are {words}")
        return sets[key]
    if not sets:
        raise UserError(f"{source}: holds no tensors by name")
    known = [found for found in sets.values() if found.is_known]
    if default is not None and default in sets:
        return sets[default]
    if len(known) > 1:
        several = [found.word for found in known if found.word != WHOLE]
        raise UsageError(
            f"{source}: holds several sets of weights, {' and '.join(several)}; choose one by its "
            f"word, for instance {source}#{several[-1]}"
        )
    return (known or sorted(sets.values(), key=lambda found: -len(found.tensors)))[0]


def _find_sets(saved: Mapping[str, object], word: str, depth: int = 0) -> Iterator[TensorSet]:
    """Yield the sets of tensors in nested dicts, those outside first."""
    tensors = {
        key: value
        for key, value in saved.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield TensorSet(word, _without_wrappers(tensors))
    for key, value in saved.items():
        if isinstance(key, str) and isinstance(value, dict) and depth < DEEPEST:
            yield from _find_sets(value, f"{word}.{key}" if word else key, depth + 1)


def _without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove what wrappers added to the names, in any order; halves become exact float32."""
    names = {key: key for key in tensors if key not in COUNTERS}
    for wrapper in WRAPPERS:
        names = {key: name.replace(wrapper, "") for key, name in names.items()}
    while prefix := next((p for p in PREFIXES if _all_begin(names.values(), p)), None):
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
    return {name: _in_float32(tensors[key]) for key, name in names.items()}


def _all_begin(names: Collection[str], prefix: str) -> bool:
    return len(names) > 0 and all(name.startswith(prefix) for name in names)


def _in_float32(tensor: Tensor) -> Tensor:
    """Convert 16-bit floats, whose values float32 holds exactly, before anything computes."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
