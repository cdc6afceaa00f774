"""Training with fully_shard: it equals DDP, and its checkpoints are those of DDP."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nlnet.checkpoint import LAST, read_checkpoint
from nlnet.distributed.launch import launch

PROGRAM = Path(__file__).with_name("two_strategies.py")
# The largest relative difference from DDP; 0 is bit for bit. Contiguous weights and channels_last
# weights add in other orders; small numbers lose bits when they are halved in fp16.
BOUNDS = {"checkpointed": 0.0, "frozen": 0.0, "lean": 1e-5, "plain": 1e-4}
RunRanks = Callable[..., int]


@pytest.mark.parametrize(
    "cases", [["checkpointed", "lean"], pytest.param(["plain", "frozen"], marks=pytest.mark.slow)]
)
def test_steps_equal_those_of_ddp(cases: list[str], tmp_path: Path):
    """Two ranks: half of one gradient plus half of the other has the same bits in either order.

    The norm of the gradient is a sum over other parts and has other last bits.
    """
    assert launch([sys.executable, str(PROGRAM), str(tmp_path), *cases], 2) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == cases
    for case, far in found.items():
        assert far.pop("losses and norms") <= max(1e-6, BOUNDS[case]), case
        # What is divided and gathered has the same bits, and one rank computes with it alone.
        assert far.pop("divided") == far.pop("whole") == 0.0, case
        assert far.pop("logits") <= BOUNDS[case], case
        assert max(far.values()) <= BOUNDS[case], case


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    """Weights, averaged weights and the state of the optimizer of two checkpoints."""
    a, b = read_checkpoint(one / LAST), read_checkpoint(other / LAST)
    assert a.training is not None and b.training is not None
    exact = {"rtol": 0, "atol": tolerance}
    for name in ("model", "average"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), **exact)
    torch.testing.assert_close(a.training.optimizer, b.training.optimizer, **exact)
    for x, y in zip(a.training.progress.history, b.training.progress.history, strict=True):
        assert x.train == pytest.approx(y.train, abs=tolerance)
        assert x.val == y.val


@pytest.mark.slow
def test_a_run_goes_on_with_another_strategy_and_another_number_of_ranks(
    tiny: ModuleType, run_ranks: RunRanks, tmp_path: Path
):
    """DDP on 2 ranks, then fsdp on 3, then one rank; each stops inside an epoch."""
    state = {"norm": False, "dropout": 0.0, "optimizer": "adamw", "ema": 0.7}
    options = {"state": state, "settings": {"lr": 0.01, "accumulate": 2, "clip_grad_norm": 0.5}}
    tiny.train(tmp_path / "whole", options)
    folder = tmp_path / "parts"
    assert run_ranks(folder, 2, **options, at={"1": "SIGTERM"}, on_rank=1) == 143
    assert run_ranks(folder, 3, **options, at={"5": "SIGTERM"}, on_rank=2, strategy="fsdp") == 143
    tiny.train(folder, options)
    assert "saved last.pt after step 2" in (said := (folder / "log.txt").read_text())
    assert "saved last.pt after step 6" in said
    assert_close(tmp_path / "whole", folder, 2e-6)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_bits_of_ddp(run_ranks: RunRanks, tmp_path: Path):
    """With momentum, dropout, batch norm, averaged weights, and a step that is skipped."""
    settings = {"save_every_steps": 2, "precise_bn": 2}
    options = {"settings": settings, "state": {"ema": 0.7}, "on_rank": 1}
    options["faults"] = {"2": "gradient"}
    assert run_ranks(tmp_path / "ddp", 2, **options) == 0
    options |= {"strategy": "fsdp", "at": {"5": "SIGKILL"}}
    assert run_ranks(tmp_path / "fsdp", 2, **options) == 137
    assert run_ranks(tmp_path / "fsdp", 2, **options) == 0
    assert_close(tmp_path / "ddp", tmp_path / "fsdp", 0.0)
    assert read_checkpoint(tmp_path / "fsdp" / LAST).training.progress.skipped == 1
