"""Which positions attend to each other: those that share a batch index.

Tokens (B, T, H, W, C) are folded to (B', N', C) before a kernel and unfolded behind it. `frames`
consecutive frames see each other; all of them do in a short clip.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nlnet.checks import one_of
from nlnet.errors import UsageError


def fold_volume(tokens: Tensor, groups: int) -> Tensor:
    """(B, T, H, W, C) -> (B groups, T/groups H W, C): all positions of a group of frames."""
    return tokens.unflatten(1, (groups, -1)).flatten(2, 4).flatten(0, 1)


def unfold_volume(tokens: Tensor, like: Tensor, groups: int) -> Tensor:
    batch, _, height, width, _ = like.shape
    return tokens.unflatten(1, (-1, height, width)).unflatten(0, (batch, groups)).flatten(1, 2)


def fold_tracks(tokens: Tensor, groups: int) -> Tensor:
    """(B, T, H, W, C) -> (B groups H W, T/groups, C): one place through a group of frames."""
    return tokens.unflatten(1, (groups, -1)).permute(0, 1, 3, 4, 2, 5).flatten(0, 3)


def unfold_tracks(tokens: Tensor, like: Tensor, groups: int) -> Tensor:
    batch, _, height, width, _ = like.shape
    places = tokens.unflatten(0, (batch, groups, height, width))
    return places.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)


@dataclass(frozen=True)
class Pass:
    """One round of attention along some axes."""

    fold: Callable[[Tensor, int], Tensor]
    unfold: Callable[[Tensor, Tensor, int], Tensor]
    within_frame: bool  # groups of one frame, whatever `group_frames` says
    subsamples: bool  # keys can be pooled over space without losing their place

    def groups(self, num_frames: int, group_frames: int | None) -> int:
        """How many groups T frames fall into; a UsageError where they do not divide."""
        if self.within_frame:
            return num_frames
        if group_frames is None:
            return 1
        if num_frames % group_frames != 0:
            raise UsageError(
                f"model.non_local.group_frames={group_frames} does not divide the {num_frames} "
                "frames that reach the block; choose a divisor or null"
            )
        return num_frames // group_frames


SPACETIME = Pass(fold_volume, unfold_volume, within_frame=False, subsamples=True)
SPACE = Pass(fold_volume, unfold_volume, within_frame=True, subsamples=True)
TIME = Pass(fold_tracks, unfold_tracks, within_frame=False, subsamples=False)

AXES: dict[str, tuple[Pass, ...]] = {
    "spacetime": (SPACETIME,),
    "space": (SPACE,),
    "time": (TIME,),
    "criss_cross": (TIME, SPACE),
}


def single_pass(axes: str) -> Pass:
    """The pass of axes that have one: blocks without queries have no second round."""
    passes = one_of("model.non_local.axes", axes, AXES)
    if len(passes) != 1:
        raise UsageError(f"model.non_local.axes={axes} is for model.non_local.block=non_local")
    return passes[0]
