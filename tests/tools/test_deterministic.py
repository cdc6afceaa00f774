"""Repeated runs with the same bits."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nlnet.checkpoint import LAST, Provenance, read_checkpoint
from nlnet.clip import ClipBatch
from nlnet.config import NonLocalConfig, ResNetConfig, TrainerConfig
from nlnet.errors import UsageError
from nlnet.jobs.deterministic import deterministic_algorithms
from nlnet.model.build import build_model
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import train_step
from tests.tools.conftest import run_command

ON = TrainerConfig(deterministic=True)


def test_the_settings_hold_inside_only(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic_algorithms(TrainerConfig()):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(ON):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_form_is_named():
    with (
        pytest.raises(UsageError, match=r"^trainer\.deterministic=true: put_ has no deterministic"),
        deterministic_algorithms(ON),
    ):
        torch.zeros(3).put_(torch.tensor([1]), torch.ones(1))
    with pytest.raises(RuntimeError, match="another"), deterministic_algorithms(ON):
        raise RuntimeError("another")


def trained_on(device: torch.device) -> list[torch.Tensor]:
    """The weights after some steps of a small network with blocks."""
    torch.manual_seed(0)
    blocks = NonLocalConfig(res3=[0], res4=[0], zero_init=False)
    model = build_model(ResNetConfig(depth=14, width=8, non_local=blocks), 3).to(device)
    state = TrainState(model, torch.optim.SGD(model.parameters(), 0.05, 0.9), Provenance())
    settings = LoopSettings(
        device=device, seed=0, total_steps=4, steps_per_epoch=4, lr=0.05, schedule=lambda _: 1.0
    )
    video = torch.randint(0, 256, (6, 3, 8, 64, 64), dtype=torch.uint8)
    batch = ClipBatch(video, torch.arange(6) % 3, torch.arange(6), ())
    for _ in range(4):
        train_step(state, model, settings, [batch], lr=0.05, stop=StopRequest())
    return [value.cpu() for value in model.state_dict().values()]


def test_every_operation_of_a_network_is_accepted():
    with deterministic_algorithms(ON):
        first, second = trained_on(torch.device("cpu")), trained_on(torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.gpu
def test_repeated_steps_on_a_gpu_have_the_same_bits():
    with deterministic_algorithms(ON):
        first, second = trained_on(torch.device("cuda")), trained_on(torch.device("cuda"))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_repeated_runs_have_the_same_bits(
    command: Callable[..., list[str]], tmp_path: Path, ranks: int
):
    """Both runs use one machine and the same number of ranks; the data workers may differ."""
    saved = []
    for workers in (1, 2):
        words = (f"data.num_workers={workers}", f"dist.num_procs={ranks}", f"name=run{workers}")
        more = ("trainer.deterministic=true", "trainer.max_steps=3")
        done = run_command(command("train", *words, *more), tmp_path)
        assert done.returncode == 0, done.stderr
        saved.append(read_checkpoint(tmp_path / "outputs" / f"run{workers}" / "train" / LAST))
    first, second = saved
    assert all(torch.equal(value, second.model[name]) for name, value in first.model.items())
    assert first.training is not None and second.training is not None
    torch.testing.assert_close(
        first.training.optimizer["state"], second.training.optimizer["state"], rtol=0, atol=0
    )
