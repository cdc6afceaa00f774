"""Columns of numbers that are read in parts, and rows with parts of different lengths."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike


class Column:
    """Numbers (n,) that are added part by part.

    The array is made once, for `most` numbers, so that the parts and their sum are never in memory
    together. The system gives memory to the part of the array that is written, and to no more.
    """

    def __init__(self, dtype: DTypeLike, most: int) -> None:
        self._numbers = np.empty(most, dtype)
        self._count = 0

    def add(self, part: np.ndarray) -> None:
        """Add numbers at the end; they may be more than `most`."""
        end = self._count + len(part)
        if end > len(self._numbers):
            larger = np.empty(2 * end, self._numbers.dtype)
            larger[: self._count] = self.numbers
            self._numbers = larger
        self._numbers[self._count : end] = part
        self._count = end

    @property
    def numbers(self) -> np.ndarray:
        """All numbers so far (n,)."""
        return self._numbers[: self._count]


def select_parts(
    ends: np.ndarray, rows: np.ndarray, arrays: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The parts of these rows, one after the other, of arrays that hold a part for each of N rows.

    Args:
        ends: (N,), where each part ends in the arrays
        rows: (M,), in any order

    Returns:
        the ends of the chosen parts, (M,) int64, and the chosen parts of each array
    """
    starts = np.concatenate([[0], ends[:-1]])
    chosen_ends = np.cumsum(ends[rows] - starts[rows], dtype=np.int64)
    total = int(chosen_ends[-1]) if len(rows) else 0
    chosen = [np.empty(total, array.dtype) for array in arrays]
    # Rows that follow one another are copied together.
    first = 0
    for last in np.flatnonzero(np.append(np.diff(rows) != 1, True)) if len(rows) else ():
        start, end = starts[rows[first]], ends[rows[last]]
        at = chosen_ends[last] - (end - start)
        for target, array in zip(chosen, arrays, strict=True):
            target[at : chosen_ends[last]] = array[start:end]
        first = last + 1
    return chosen_ends, chosen
