"""The average of the weights: its recursion, resumed runs, evaluation and checkpoints."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nlnet.checkpoint import BEST, LAST, Checkpoint, read_checkpoint, write_checkpoint
from nlnet.errors import UserError
from nlnet.trainer.averaging import average_weights
from nlnet.trainer.preemption import Preempted
from nlnet.trainer.prepare import wrap_for_training
from nlnet.weights.load import read_weights

State = dict[str, Tensor]
DECAY = 0.75
AVERAGED: dict[str, Any] = {"state": {"ema": DECAY}}


def copied(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def expected_average(steps: list[State]) -> State:
    """a_1 = w_1, a_t = decay a_(t-1) + (1 - decay) w_t in float64; counters are the last ones."""
    average = {name: value.double() for name, value in steps[0].items()}
    for weights in steps[1:]:
        for name, value in weights.items():
            average[name] = DECAY * average[name] + (1 - DECAY) * value.double()
    counters = {name: value for name, value in steps[-1].items() if not value.is_floating_point()}
    return average | counters


def assert_close(found: State, steps: list[State]) -> None:
    expected = expected_average(steps)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-5, atol=1e-6)


def fit(
    tiny: ModuleType, folder: Path, wrap: Callable[[nn.Module], nn.Module], **settings: Any
) -> tuple[Any, list[State]]:
    """Train an epoch; returns the state and the weights after each step."""
    folder.mkdir(exist_ok=True)
    state = tiny.make_state(ema=DECAY)
    steps: list[State] = []
    settings = {"epochs": 1, "total_steps": tiny.STEPS_PER_EPOCH, **settings}

    def record(step: int) -> None:
        if step > 0:
            steps.append(copied(state.model))

    with tiny.RunLogger(folder, total_steps=tiny.STEPS_PER_EPOCH) as logger:
        tiny.fit(
            state,
            wrap(state.model),
            tiny.make_settings(**settings),
            loader_at=tiny.loader_at(at_step=record),
            validate=lambda: tiny.Metrics({"top1": 1.0}, "top1"),
            logger=logger,
            out_dir=folder,
        )
    return state, [*steps, copied(state.model)]


def test_the_average_follows_the_weights_of_each_step(tiny: ModuleType, tmp_path: Path):
    state, steps = fit(tiny, tmp_path, lambda model: model)
    assert len(steps) == tiny.STEPS_PER_EPOCH
    found = copied(state.average.module)
    assert_close(found, steps)
    moved = [name for name, value in found.items() if value.is_floating_point()]
    assert all(not torch.equal(found[name], steps[-1][name]) for name in moved)


@pytest.mark.slow
def test_the_average_of_a_compiled_network_in_bfloat16(tiny: ModuleType, tmp_path: Path):
    """The weights are float32; the average reads those of the bare model."""
    wrap = lambda model: wrap_for_training(  # noqa: E731
        model, device=tiny.CPU, compiled=True
    )
    state, steps = fit(tiny, tmp_path, wrap, precision=torch.bfloat16)
    assert_close(copied(state.average.module), steps)


def test_a_skipped_step_is_not_averaged(tiny: ModuleType, tmp_path: Path):
    """The loss of the second step is not finite: the weights stay those of the first step."""
    calls: list[int] = []

    def spoil(module: nn.Module, inputs: object, logits: Tensor) -> Tensor:
        calls.append(1)
        return logits * torch.nan if len(calls) == 2 else logits

    def wrap(model: nn.Module) -> nn.Module:
        model.register_forward_hook(spoil)
        return model

    state, steps = fit(tiny, tmp_path, wrap)
    assert state.progress.skipped == 1 and torch.equal(
        steps[0]["head.weight"], steps[1]["head.weight"]
    )
    assert_close(copied(state.average.module), [steps[0], *steps[2:]])


def test_training_is_the_same_with_and_without_an_average(tiny: ModuleType, tmp_path: Path):
    with_average = tiny.train(tmp_path / "a", AVERAGED)
    without = tiny.train(tmp_path / "b", {})
    for name, value in without.model.state_dict().items():
        assert torch.equal(value, with_average.model.state_dict()[name]), name
    assert "model_ema" not in torch.load(tmp_path / "b" / LAST, weights_only=True)


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.average is not None and other.average is not None
    for first, second in ((one.model, other.model), (one.average, other.average)):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("changes", [{}, {"precise_bn": 2}])
@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_resumed_run_equals_an_undisturbed_one(
    tiny: ModuleType, tmp_path: Path, step: int, changes: dict[str, Any]
):
    """Bit for bit: both runs do the same operations in one process."""
    options = {**AVERAGED, "settings": {"epochs": 2, **changes}}
    whole = tiny.train(tmp_path / "whole", options)
    stopped = options | {"at": {str(step): "SIGTERM"}}
    (tmp_path / "parts").mkdir()
    with pytest.raises(Preempted):
        tiny.train(tmp_path / "parts", stopped)
    parts = tiny.train(tmp_path / "parts", stopped)
    assert_same(parts.checkpoint(), whole.checkpoint())
    assert [r.val for r in parts.progress.history] == [r.val for r in whole.progress.history]


@pytest.mark.slow
def test_two_killed_ranks_resume_to_the_same_average(
    tiny: ModuleType, run_ranks: Callable[..., int], tmp_path: Path
):
    """Rank 0 writes; after the resume, rank 1 continues from the average of rank 0."""
    settings = {"settings": {"epochs": 2, "save_every_steps": 1}, **AVERAGED}
    assert run_ranks(tmp_path / "whole", 2, **settings) == 0
    killed = {**settings, "at": {"5": "SIGKILL"}, "on_rank": 1}
    assert run_ranks(tmp_path / "parts", 2, **killed) != 0
    assert run_ranks(tmp_path / "parts", 2, **killed) == 0
    one, other = (read_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert_same(one, other)


@pytest.mark.parametrize("precise_bn", [0, 2])
def test_the_averaged_model_is_evaluated_and_selects_the_best(
    tiny: ModuleType, tmp_path: Path, precise_bn: int, monkeypatch: pytest.MonkeyPatch
):
    evaluated: list[State] = []
    scores = iter([0.2, 0.9, 0.5])

    def evaluate(model: nn.Module, *args: object, **kwargs: object) -> Any:
        evaluated.append(copied(model))
        return tiny.Metrics({"top1": next(scores)}, "top1")

    monkeypatch.setattr(tiny, "evaluate", evaluate)
    tiny.train(tmp_path, {**AVERAGED, "settings": {"epochs": 3, "precise_bn": precise_bn}})
    best = read_checkpoint(tmp_path / BEST)
    assert best.average is not None
    found = {name.removeprefix("module."): value for name, value in best.average.items()}
    del found["n_averaged"]
    assert all(torch.equal(found[name], value) for name, value in evaluated[1].items())


def test_readers_take_the_average_and_can_take_the_others(tiny: ModuleType, tmp_path: Path):
    state = tiny.train(tmp_path, AVERAGED)
    averaged, last = copied(state.average.module), copied(state.model)
    path = tmp_path / LAST
    found = read_weights(str(path))
    assert all(torch.equal(found.state[name], value) for name, value in averaged.items())
    assert any("averaged" in line and f"{path}#model" in line for line in found.remarks)
    for word, expected in (("model_ema", averaged), ("model", last)):
        state = read_weights(f"{path}#{word}").state
        assert all(torch.equal(state[name], value) for name, value in expected.items())


@pytest.mark.parametrize("first", [None, DECAY])
def test_a_run_with_another_setting_is_refused(
    tiny: ModuleType, tmp_path: Path, first: float | None
):
    write_checkpoint(tmp_path / LAST, tiny.make_state(ema=first).checkpoint())
    other = tiny.make_state(ema=DECAY if first is None else None, seed=1)
    before = copied(other.model)
    with pytest.raises(UserError, match=r"^[^\n]*averaged weights[^\n]*another folder$"):
        other.load(tmp_path / LAST)
    assert all(torch.equal(before[name], value) for name, value in copied(other.model).items())


def test_the_layout_of_the_copy_is_that_of_training():
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4))
    average = average_weights(model, DECAY, channels_last=True)
    kernel = average.module.get_parameter("0.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last_3d)
