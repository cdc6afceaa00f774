import numpy as np
import pytest

from nlnet.data.index.columns import Column, select_parts


@pytest.mark.parametrize("most", [0, 5, 100])
def test_a_column_is_the_sum_of_its_parts(most: int):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 99, size) for size in (3, 0, 7, 1, 20)]
    column = Column(np.int32, most)
    for part in parts:
        column.add(part)
    assert column.numbers.dtype == np.int32
    assert np.array_equal(column.numbers, np.concatenate(parts))


@pytest.mark.parametrize("rows", [[0, 1, 2, 5, 7, 8], [8, 7, 0, 0, 1], range(9), [4], []])
def test_selected_parts_are_those_of_the_rows(rows: list[int]):
    rng = np.random.default_rng(1)
    lengths = [3, 0, 5, 1, 0, 2, 4, 0, 6]
    arrays = [rng.integers(0, 99, sum(lengths)), rng.random(sum(lengths))]
    ends = np.cumsum(lengths)
    found_ends, found = select_parts(ends, np.array(rows, int), arrays)
    assert found_ends.tolist() == np.cumsum([lengths[row] for row in rows], dtype=int).tolist()
    for array, chosen in zip(arrays, found, strict=True):
        parts = np.split(array, ends[:-1])
        assert chosen.dtype == array.dtype
        assert chosen.tolist() == [number for row in rows for number in parts[row]]
