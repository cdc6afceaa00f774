"""bench=ops on tiny shapes, through the code that measures the large ones."""

import math
import os

import pytest
import torch

from nlnet.bench.naive import NAIVE
from nlnet.bench.operations.calls import FORMS, block_step
from nlnet.bench.operations.denormals import underflow_row
from nlnet.bench.operations.memory import environment, fresh_peak_bytes
from nlnet.bench.operations.run import block_row, growth_row, measure_plan, operation_row, repeats
from nlnet.bench.operations.shapes import FULL, LARGEST_NAIVE, QUICK, Plan, Shape
from nlnet.bench.operations.tables import underflow_table
from nlnet.bench.peer import INSTANTIATIONS

CPU = torch.device("cpu")


def test_every_function_and_block_is_timed_in_both_forms(shape: Shape):
    for row, names in (
        (operation_row(shape, CPU, 2), NAIVE),
        (block_row(shape, CPU, 2), INSTANTIATIONS),
        (growth_row(shape, CPU), NAIVE),
    ):
        assert list(row.values) == list(names)
        for seconds in row.values.values():
            assert set(seconds) == {"ours", "naive"}
            assert all(0 < value < 60 for value in seconds.values())


@pytest.mark.parametrize("name", INSTANTIATIONS)
def test_the_three_blocks_of_a_function_have_equally_many_gradients(name: str, shape: Shape):
    sizes = {}
    for form, build in FORMS.items():
        torch.manual_seed(0)
        gradients = block_step(build(name, shape), shape, CPU)()
        assert isinstance(gradients, tuple)
        sizes[form] = sum(gradient.numel() for gradient in gradients)
    assert len(set(sizes.values())) == 1, sizes


def test_a_plan_gives_tables_numbers_and_a_picture(shape: Shape):
    """Without the memory rows, which need a process each."""
    other = Shape("res4", channels=8, frames=1, side=4, pooled=False)
    report = measure_plan(
        Plan([shape, other], [shape, other], memory=[], underflow=[], heads=[shape], repeats=2), CPU
    )
    for row in (shape, other):
        assert str(row) in report.markdown
        assert f"{row.queries:,}" in report.markdown
    assert all(name in report.markdown for name in NAIVE)
    assert "embedded_gaussian, 8 heads" in report.markdown
    assert "svg" in report.files["ops.svg"]
    assert {name: len(rows) for name, rows in report.numbers.items()} == {
        "operations": 2,
        "blocks": 2,
        "memory": 0,
        "growth": 2,
        "underflow": 0,
        "heads": 1,
    }


@pytest.mark.slow
def test_the_gaussian_is_timed_with_denormals_and_without_them(shape: Shape):
    row = underflow_row(shape)
    assert list(row.values) == ["kept", "flushed"]
    for times in row.values.values():
        assert set(times) == {"ours", "naive", "embedded"}
    table = underflow_table([row])
    assert str(shape) in table
    assert "flushed" in table


@pytest.mark.slow
def test_peak_memory_is_that_of_the_block_and_the_environment_stays_as_it_was(monkeypatch):
    """Two sizes whose affinities are 16 and 144 MB: the naive form shows the difference."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", "") + ":/no/such/folder")
    before = dict(os.environ)
    small, large = (Shape("res4", 16, 1, side, pooled=False) for side in (45, 78))
    naive = [fresh_peak_bytes("naive", "dot_product", size, CPU) for size in (small, large)]
    ours = fresh_peak_bytes("ours", "dot_product", large, CPU)
    assert dict(os.environ) == before
    assert naive[1] - naive[0] > 100e6
    assert 0 < ours < naive[1] / 4


def test_environment_variables_are_restored(monkeypatch):
    monkeypatch.setenv("NLNET_A", "1")
    monkeypatch.delenv("NLNET_B", raising=False)
    with environment(NLNET_A="2", NLNET_B="3"):
        assert (os.environ["NLNET_A"], os.environ["NLNET_B"]) == ("2", "3")
    assert os.environ["NLNET_A"] == "1"
    assert "NLNET_B" not in os.environ


def test_the_plans_hold_the_sizes_of_the_resnet_and_quick_is_a_part_of_full():
    assert set(QUICK.shapes) < set(FULL.shapes)
    assert set(QUICK.growth) < set(FULL.growth)
    assert set(QUICK.memory) < set(FULL.memory)
    assert set(QUICK.underflow) < set(FULL.underflow)
    assert set(QUICK.heads) < set(FULL.heads)
    assert all(shape.naive_fits for shape in FULL.shapes)
    assert not FULL.growth[-1].naive_fits
    assert math.prod((FULL.growth[-1].queries, FULL.growth[-1].keys)) > LARGEST_NAIVE
    assert [repeats(shape, 15) for shape in (FULL.growth[0], FULL.growth[-1])] == [15, 3]
