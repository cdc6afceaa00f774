"""Which positions attend to each other: those that are folded into one group.

The names depend on the dimensions of the map: see AXES_OF. Tokens (B, T, H, W, C) are folded to
(B', N', C) before a kernel and unfolded after it. Attention runs within groups of consecutive
frames; by default, all frames are one group.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nlnet.errors import ArgumentError, choose


def _fold_volume(tokens: Tensor, groups: int) -> Tensor:
    """(B, T, H, W, C) -> (B groups, T/groups H W, C): all positions of a group of frames."""
    return tokens.unflatten(1, (groups, -1)).flatten(2, 4).flatten(0, 1)


def _unfold_volume(tokens: Tensor, like: Tensor, groups: int) -> Tensor:
    """The inverse of fold_volume; `like` has the sizes (B, T, H, W, any)."""
    batch, _, height, width, _ = like.shape
    return tokens.unflatten(1, (-1, height, width)).unflatten(0, (batch, groups)).flatten(1, 2)


def _fold_tracks(tokens: Tensor, groups: int) -> Tensor:
    """(B, T, H, W, C) -> (B groups H W, T/groups, C): one position over a group of frames."""
    return tokens.unflatten(1, (groups, -1)).permute(0, 1, 3, 4, 2, 5).flatten(0, 3)


def _unfold_tracks(tokens: Tensor, like: Tensor, groups: int) -> Tensor:
    """The inverse of fold_tracks; `like` has the sizes (B, T, H, W, any)."""
    batch, _, height, width, _ = like.shape
    positions = tokens.unflatten(0, (batch, groups, height, width))
    return positions.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)


def _fold_rows(tokens: Tensor, groups: int) -> Tensor:
    """(B, T, H, W, C) -> (B T H, W, C)."""
    return tokens.flatten(0, 2)


def _unfold_rows(tokens: Tensor, like: Tensor, groups: int) -> Tensor:
    return tokens.unflatten(0, like.shape[:3])


def _fold_columns(tokens: Tensor, groups: int) -> Tensor:
    """(B, T, H, W, C) -> (B T W, H, C)."""
    return tokens.transpose(2, 3).flatten(0, 2)


def _unfold_columns(tokens: Tensor, like: Tensor, groups: int) -> Tensor:
    batch, frames, _, width, _ = like.shape
    return tokens.unflatten(0, (batch, frames, width)).transpose(2, 3)


@dataclass(frozen=True)
class Pass:
    """One round of attention along some axes."""

    fold: Callable[[Tensor, int], Tensor]
    unfold: Callable[[Tensor, Tensor, int], Tensor]
    within_frame: bool  # every frame is a group; `group_frames` is ignored
    subsamples: bool  # the keys can be pooled: they keep no position of their own
    row_column: bool = False  # of a group, a query attends to its row and its column alone

    def groups(self, num_frames: int, group_frames: int | None) -> int:
        """The number of groups of T frames; raises ArgumentError if they do not divide T."""
        if self.within_frame:
            return num_frames
        if group_frames is None:
            return 1
        if num_frames % group_frames != 0:
            raise ArgumentError(
                f"group_frames={group_frames} does not divide the {num_frames} frames that reach "
                "the block; choose a divisor or null"
            )
        return num_frames // group_frames

    def attend(
        self,
        attention: Callable[..., Tensor],
        group_frames: int | None,
        queries: Tensor,
        *others: Tensor,
    ) -> Tensor:
        """Fold tokens, (B, T, H, W, any) each, apply `attention`, and unfold its output.

        `attention` maps the folded tokens to (B', N', C), where N' is that of the queries.
        """
        groups = self.groups(queries.shape[1], group_frames)
        y = attention(*(self.fold(tokens, groups) for tokens in (queries, *others)))
        return self.unfold(y, queries, groups)


SPACETIME = Pass(_fold_volume, _unfold_volume, within_frame=False, subsamples=True)
SPACE = Pass(_fold_volume, _unfold_volume, within_frame=True, subsamples=True)
TIME = Pass(_fold_tracks, _unfold_tracks, within_frame=False, subsamples=False)
ROW = Pass(_fold_rows, _unfold_rows, within_frame=True, subsamples=False)
COLUMN = Pass(_fold_columns, _unfold_columns, within_frame=True, subsamples=False)
ROW_COLUMN = Pass(
    _fold_volume, _unfold_volume, within_frame=True, subsamples=False, row_column=True
)

AXES: dict[str, tuple[Pass, ...]] = {
    "spacetime": (SPACETIME,),
    "space": (SPACE,),
    "time": (TIME,),
    "criss_cross": (TIME, SPACE),
    "row_column": (ROW_COLUMN,),
}
# Dimensions of the map -> its axes; the first ones are all positions, and the default.
AXES_OF: dict[int, dict[str, tuple[Pass, ...]]] = {
    1: {"sequence": (SPACETIME,)},
    2: {"space": (SPACE,), "row": (ROW,), "column": (COLUMN,), "row_column": (ROW_COLUMN,)},
    3: AXES,
}


def passes_of(axes: str | None, dims: int, group_frames: int | None = None) -> tuple[Pass, ...]:
    """The rounds of attention of some axes; None is all positions.

    Raises ArgumentError for unknown axes or dimensions, and for `group_frames` in an image.
    """
    known = choose("dims", dims, AXES_OF)
    if dims == 2 and group_frames is not None:
        raise ArgumentError(f"group_frames={group_frames} needs frames, and dims=2 has none")
    return choose("axes", next(iter(known)) if axes is None else axes, known)


def single_pass(axes: str | None, dims: int, group_frames: int | None) -> Pass:
    """The pass of axes that need no queries, which only NonLocalBlock has.

    Raises ArgumentError for criss_cross, whose second pass needs them, and for row_column.
    """
    passes = passes_of(axes, dims, group_frames)
    if not _is_single(passes):
        single = ", ".join(name for name, rounds in AXES_OF[dims].items() if _is_single(rounds))
        raise ArgumentError(f"axes={axes} is only for block=non_local; choose one of: {single}")
    return passes[0]


def _is_single(passes: tuple[Pass, ...]) -> bool:
    return len(passes) == 1 and not passes[0].row_column
