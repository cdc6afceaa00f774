import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nlnet.checkpoint import BEST, LAST, PREVIOUS, read_checkpoint
from nlnet.clip import ClipBatch, Failure
from nlnet.errors import UserError
from nlnet.runs.ensembles import ENSEMBLES
from nlnet.trainer.loop import evaluate
from nlnet.trainer.metrics import Metrics, VideoScores
from nlnet.trainer.preemption import OutOfTime, Preempted, StopRequest
from nlnet.trainer.state import TrainState

RunRanks = Callable[..., int]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final.pt", weights_only=True)


def assert_same_run(one: TrainState, other: TrainState) -> None:
    """Compare bit for bit everything except measured times.

    Both runs do the same operations in one process, so their bits are equal on every processor.
    """
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    torch.testing.assert_close(
        one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"], rtol=0, atol=0
    )
    assert one.progress.global_step == other.progress.global_step
    assert one.progress.best == other.progress.best
    for a, b in zip(one.progress.history, other.progress.history, strict=True):
        clock = {"seconds": 0.0, "clips_per_second": 0.0, "data_wait": 0.0}
        assert replace(a, **clock) == replace(b, **clock)


SETTINGS = {"epochs": 3, "clip_grad_norm": 1.0, "label_smoothing": 0.1}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 3}, {"precise_bn": 2}, {"eval_every": 2}])
@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_stopped_and_resumed_run_equals_a_run_that_was_not_stopped(
    tiny: ModuleType, tmp_path: Path, optimizer: str, changes: dict[str, Any], step: int
):
    """With dropout, momentum and batch norm. It stops inside an epoch, at its end and its start."""
    options = {"settings": SETTINGS | changes, "state": {"optimizer": optimizer}}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = tiny.train(tmp_path / "whole", options)
    stopped = options | {"at": {str(step): "SIGTERM"}}
    with pytest.raises(Preempted) as caught:
        tiny.train(tmp_path / "parts", stopped)
    assert caught.value.code == 143
    parts = tiny.train(tmp_path / "parts", stopped)
    assert_same_run(parts, whole)


def test_sigusr1_stops_a_run_and_the_old_handlers_are_restored(tiny: ModuleType, tmp_path: Path):
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted):
        tiny.train(tmp_path, {"at": {"2": "SIGUSR1"}})
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)) == before
    assert "asked to stop: saved last.pt after step 3" in (tmp_path / "log.txt").read_text()


def test_a_second_interrupt_stops_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_learning_rate_follows_optimizer_steps(
    tiny: ModuleType, tmp_path: Path, accumulate: int
):
    """Steps are those of the optimizer, not micro-batches, also after a resume."""
    asked = []

    def schedule(step: float) -> float:
        asked.append(step)
        return 1 / (1 + step)

    settings = {"schedule": schedule, "lr": 0.06, "accumulate": accumulate}
    with pytest.raises(Preempted):
        tiny.train(tmp_path, {"settings": settings, "at": {"2": "SIGINT"}})
    assert asked == [0, 1, 2]
    state = tiny.train(tmp_path, {"settings": settings})
    assert asked == list(range(8))
    assert [group["lr"] for group in state.optimizer.param_groups] == [pytest.approx(0.06 / 8)]


def test_a_finished_run_does_nothing(tiny: ModuleType, tmp_path: Path):
    first = tiny.train(tmp_path, {})
    stamp = (tmp_path / LAST).stat().st_mtime_ns
    again = tiny.train(tmp_path, {})
    assert_same_run(again, first)
    assert (tmp_path / LAST).stat().st_mtime_ns == stamp


def test_a_failed_evaluation_does_not_lose_the_epoch(tiny: ModuleType, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "evaluate", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tiny.train(tmp_path / "a", {})
    resumed = tiny.train(tmp_path / "a", {})
    assert_same_run(resumed, tiny.train(tmp_path / "b", {}))


@pytest.mark.parametrize("total_steps", [1, 4, 6, 8])
def test_a_shorter_last_epoch_is_evaluated(tiny: ModuleType, tmp_path: Path, total_steps: int):
    state = tiny.train(tmp_path, {"settings": {"total_steps": total_steps}})
    assert state.progress.global_step == total_steps
    assert len(state.progress.history) == -(-total_steps // tiny.STEPS_PER_EPOCH)
    assert state.progress.history[-1].val.keys() == {"top1", "top5", "mean_class"}


def test_every_second_epoch_and_the_last_one_are_evaluated(tiny: ModuleType, tmp_path: Path):
    state = tiny.train(tmp_path, {"settings": {"epochs": 5, "eval_every": 2}})
    assert [bool(record.val) for record in state.progress.history] == [0, 1, 0, 1, 1]


def test_the_best_checkpoint_is_the_first_with_the_highest_score(
    tiny: ModuleType, tmp_path: Path, monkeypatch
):
    tops = iter(Metrics({"top1": top1}, "top1") for top1 in (0.25, 0.5, 0.5, 0.375))
    monkeypatch.setattr(tiny, "evaluate", lambda *args, **kwargs: next(tops))
    state = tiny.train(tmp_path, {"settings": {"epochs": 4}})
    assert state.progress.best == 0.5
    best = tiny.make_state()
    best.load(tmp_path / BEST)
    assert best.progress.epoch == 2
    assert json.loads((tmp_path / "metrics.json").read_text())["best_top1"] == 0.5


def test_the_learning_rate_is_set_at_every_step(tiny: ModuleType, tmp_path: Path):
    seen = []

    def constant_slope(step: float) -> float:
        seen.append(step)
        return 1 / (1 + step)

    state = tiny.train(tmp_path, {"settings": {"schedule": constant_slope, "lr": 0.5}})
    assert seen == list(range(8))
    assert state.optimizer.param_groups[0]["lr"] == 0.5 / 8


def test_training_fits_one_batch(tiny: ModuleType, tmp_path: Path):
    state = tiny.make_state("adamw", dropout=0.0)
    batch = tiny.clips(0, list(range(12)))
    steps = 150
    settings = tiny.make_settings(
        total_steps=steps, steps_per_epoch=steps, lr=0.03, schedule=lambda step: 1.0
    )
    with tiny.RunLogger(tmp_path, total_steps=steps) as logger:
        tiny.fit(
            state,
            state.model,
            settings,
            loader_at=lambda epoch, step: [batch] * steps,
            validate=lambda: Metrics({"top1": 0.0}, "top1"),
            logger=logger,
            out_dir=tmp_path,
        )
    state.model.train()
    assert (state.model(batch.video).argmax(1) == batch.label).all()


@pytest.mark.parametrize("step", [0, 5])
def test_a_loss_that_is_not_finite_stops_the_run(tiny: ModuleType, tmp_path: Path, step: int):
    settings = {"save_every_steps": 1, "max_bad_steps": 1}
    with pytest.raises(
        UserError, match=rf"epoch {step // 4 + 1}, step {step % 4 + 1}: .*optim\.lr"
    ):
        tiny.train(tmp_path, {"at": {str(step): "nan"}, "settings": settings})
    for path in tmp_path.glob("*.pt"):
        assert all(value.isfinite().all() for value in read_checkpoint(path).model.values())
    assert (tmp_path / LAST).exists() == (step > 0)


def test_a_run_saves_inside_epochs(tiny: ModuleType, tmp_path: Path):
    with pytest.raises(UserError):
        tiny.train(
            tmp_path, {"at": {"6": "nan"}, "settings": {"save_every_steps": 3, "max_bad_steps": 2}}
        )
    last, previous = tiny.make_state(), tiny.make_state()
    last.load(tmp_path / LAST)
    previous.load(tmp_path / PREVIOUS)
    assert (last.progress.global_step, previous.progress.global_step) == (6, 4)


def test_a_loader_that_ends_too_early_is_an_error(tiny: ModuleType, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tiny, "STEPS_PER_EPOCH", 3)
    with pytest.raises(RuntimeError, match="ended at 3"):
        tiny.train(tmp_path, {"settings": {"steps_per_epoch": 4, "total_steps": 4}})


def failing(loader: Callable[..., Any], at: set[int]) -> Callable[..., Any]:
    """Make the loader report one replaced clip at each of these steps."""

    def batches(epoch: int, first: int):
        for i, batch in enumerate(loader(epoch, first), start=first):
            bad = (Failure(f"clip{i}.mp4", "no video stream"),) if i in at else ()
            yield batch._replace(failures=bad)

    return batches


def test_bad_clips_are_named_and_counted(tiny: ModuleType, tmp_path: Path, monkeypatch):
    whole = tiny.loader_at
    monkeypatch.setattr(tiny, "loader_at", lambda *args: failing(whole(*args), {0}))
    state = tiny.train(tmp_path, {"settings": {"max_bad_share": 0.02}})
    assert (state.progress.asked, state.progress.bad) == (8 * 12 + 2, 2)
    lines = (tmp_path / "log.txt").read_text()
    assert lines.count("cannot read clip0.mp4: no video stream") == 1
    assert state.progress.bad_files == {"clip0.mp4": "no video stream"}


@pytest.mark.parametrize(
    ("share", "bad_steps", "stops_at"),
    [
        (0.01, {0}, None),  # 1 of 13 clips; one is always allowed
        (0.01, {0, 1}, 1),  # 2 of 26 clips; one is allowed up to 100
        (0.10, {0, 1}, None),  # 2 of 26 clips; three are allowed
        (0.0, {2}, 2),
        (0.01, set(), None),
    ],
)
def test_too_many_bad_clips_stop_the_run(
    tiny: ModuleType,
    tmp_path: Path,
    monkeypatch,
    share: float,
    bad_steps: set[int],
    stops_at: int | None,
):
    whole = tiny.loader_at
    monkeypatch.setattr(tiny, "loader_at", lambda *args: failing(whole(*args), bad_steps))
    options = {"settings": {"epochs": 1, "max_bad_share": share, "save_every_steps": 1}}
    if stops_at is None:
        assert tiny.train(tmp_path, options).progress.global_step == 4
        return
    with pytest.raises(UserError, match=r"clips could not be read.*data\.max_bad_share"):
        tiny.train(tmp_path, options)
    last = tiny.make_state()
    if stops_at:
        last.load(tmp_path / LAST)
    assert last.progress.global_step == stops_at


def test_evaluation_is_the_mean_over_views(tiny: ModuleType):
    model = tiny.make_state().model
    scores = VideoScores(tiny.validation_labels(), tiny.NUM_CLASSES)
    metrics = evaluate(model, tiny.validation(), scores, device=tiny.CPU, chunk=2)
    right = 0
    model.eval()
    for row, batch in enumerate(tiny.validation()):
        with torch.no_grad():
            mean = torch.stack([model.scores(view[None])[0] for view in batch.video]).mean(0)
        torch.testing.assert_close(scores.probabilities[row].float(), mean, rtol=1e-5, atol=1e-6)
        right += int(mean.argmax() == row % 3)
    assert metrics.values["top1"] == 100 * (right / tiny.NUM_VIDEOS)


def test_a_video_that_cannot_be_read_counts_as_wrong(tiny: ModuleType):
    def batches():
        for row, batch in enumerate(tiny.validation()):
            if row == 3:
                nothing = torch.empty(0, dtype=torch.int64)
                empty = torch.empty(0, 3, 0, 0, 0, dtype=torch.uint8)
                yield ClipBatch(empty, nothing, nothing, (Failure("3.mp4", "empty"),))
            else:
                yield batch

    model = tiny.make_state().model
    truth = VideoScores(torch.zeros(7, dtype=torch.int64), tiny.NUM_CLASSES)
    evaluate(model, tiny.validation(), truth, device=tiny.CPU, chunk=8)
    said = torch.tensor([row.top1 for row in truth.predictions()])
    scores = VideoScores(said, tiny.NUM_CLASSES)
    metrics = evaluate(model, batches(), scores, device=tiny.CPU, chunk=8)
    assert metrics.values["top1"] == 100 * (6 / 7)
    assert scores.failures == [Failure("3.mp4", "empty")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ensemble", "several_labels"),
    [(name, bool(i % 2)) for i, name in enumerate(ENSEMBLES)],
)
def test_evaluation_is_the_same_on_any_number_of_ranks(
    tiny: ModuleType, run_ranks: RunRanks, tmp_path: Path, ensemble: str, several_labels: bool
):
    """7 videos on 1, 2 and 3 ranks.

    The bits are equal on every processor: all views of a video are added on one rank, in one order.
    """
    said = []
    for num_procs in (1, 2, 3):
        folder = tmp_path / str(num_procs)
        options = {"ensemble": ensemble, "several_labels": several_labels}
        assert run_ranks(folder, num_procs, only="evaluate", **options) == 0
        said += [(folder / f"said{i}.json").read_text() for i in range(num_procs)]
    assert len(json.loads(said[0])["rows"]) == tiny.NUM_VIDEOS
    assert set(said) == {said[0]}


@pytest.mark.slow
def test_evaluations_of_1_to_17_videos_are_the_same_on_1_to_4_ranks(
    run_ranks: RunRanks, tmp_path: Path
):
    """To the last bit, also where some ranks have no video."""
    said = []
    for num_procs in (1, 2, 3, 4):
        folder = tmp_path / str(num_procs)
        assert run_ranks(folder, num_procs, only="evaluate_sizes") == 0
        said += [(folder / f"said{i}.json").read_text() for i in range(num_procs)]
    assert [row[0] for row in json.loads(said[0])] == [n for n in range(1, 18) for _ in range(4)]
    assert set(said) == {said[0]}


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_ranks_make_the_same_steps_as_one(
    tiny: ModuleType, run_ranks: RunRanks, tmp_path: Path, accumulate: int, optimizer: str
):
    state = {"norm": False, "dropout": 0.0, "optimizer": optimizer}
    options = {"state": state, "settings": {"accumulate": accumulate, "lr": 0.01}}
    one = tiny.train(tmp_path / "one", options)
    assert run_ranks(tmp_path / "two", 2, **options) == 0
    two = weights(tmp_path / "two")
    moved = tiny.make_state(**state).model.state_dict()
    for name, value in one.model.state_dict().items():
        assert (value - moved[name]).abs().max() > 1e-4, "the weights did not change"
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
    records = json.loads((tmp_path / "two" / "metrics.json").read_text())["epochs"]
    for found, expected in zip(records, one.progress.history, strict=True):
        assert found["train"] == pytest.approx(expected.train, abs=1e-6)
        assert found["val"] == expected.val


@pytest.mark.slow
@pytest.mark.parametrize("num_procs", [1, 2])
@pytest.mark.parametrize("step", [2, 5])
def test_a_killed_run_resumes_to_the_same_bits(
    run_ranks: RunRanks, tmp_path: Path, num_procs: int, step: int
):
    """SIGKILL of the last rank after a step that was not saved, with dropout and momentum.

    The resumed run repeats the same operations, so its bits are equal on every processor.
    """
    options = {"settings": {"save_every_steps": 2}}
    assert run_ranks(tmp_path / "whole", num_procs, **options) == 0
    options |= {"at": {str(step): "SIGKILL"}, "on_rank": num_procs - 1}
    assert run_ranks(tmp_path / "parts", num_procs, **options) == 137
    assert run_ranks(tmp_path / "parts", num_procs, **options) == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all(run_ranks: RunRanks, tmp_path: Path):
    options = {"at": {"2": "SIGTERM"}, "on_rank": 1}
    assert run_ranks(tmp_path / "whole", 2) == 0
    assert run_ranks(tmp_path / "parts", 2, **options) == 143
    assert "saved last.pt after step 3" in (tmp_path / "parts" / "log.txt").read_text()
    assert run_ranks(tmp_path / "parts", 2, **options) == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.slow
def test_a_bad_loss_on_one_rank_stops_all(run_ranks: RunRanks, tmp_path: Path, capfd):
    settings = {"save_every_steps": 1, "max_bad_steps": 1}
    options = {"at": {"5": "nan"}, "on_rank": 1, "settings": settings}
    assert run_ranks(tmp_path, 2, **options) == 3
    errors = capfd.readouterr().err
    for rank in (0, 1):
        assert f"rank {rank}: epoch 2, step 2: the loss or its gradient was not finite" in errors
    saved = read_checkpoint(tmp_path / LAST).model.values()
    assert all(value.isfinite().all() for value in saved)


@pytest.mark.slow
def test_bad_clips_of_any_rank_are_logged_and_stop_all(run_ranks: RunRanks, tmp_path: Path, capfd):
    assert run_ranks(tmp_path, 2, poison={"rank": 1, "bad": 2}) == 3
    errors = capfd.readouterr().err
    assert errors.count("2 of 14 clips could not be read") == 2
    assert "cannot read 1.mp4: broken" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_a_save_that_fails_stops_all_ranks_with_its_cause(
    run_ranks: RunRanks, tmp_path: Path, capfd
):
    (tmp_path / f"{LAST}.partial").mkdir()
    assert run_ranks(tmp_path, 2) == 3
    assert capfd.readouterr().err.count("last.pt: cannot be written") == 2


def test_a_run_with_a_time_limit_makes_the_same_steps(tiny: ModuleType, tmp_path: Path):
    """A limit that is over at once stops after each step; the next attempt makes the next one."""
    whole = tiny.train(tmp_path / "whole", {})
    limited = {"settings": {"max_minutes": 1e-9}}
    for step in range(1, whole.progress.global_step + 1):
        with pytest.raises(OutOfTime):
            tiny.train(tmp_path / "parts", limited)
        said = (tmp_path / "parts" / "log.txt").read_text()
        assert f"minutes is reached: saved last.pt after step {step}; the same" in said
    assert_same_run(tiny.train(tmp_path / "parts", limited), whole)


def test_a_signal_is_the_reason_if_the_time_is_over_too():
    with StopRequest(max_minutes=1e-9) as stop:
        assert stop.is_due and isinstance(stop.agree()[1], OutOfTime)
        signal.raise_signal(signal.SIGTERM)
        reason, stopped = stop.agree()
    assert reason == "asked to stop" and isinstance(stopped, Preempted)
    assert not StopRequest().is_due and not StopRequest(1.0).is_due
