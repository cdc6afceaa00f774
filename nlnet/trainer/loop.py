"""The three loops: fit a model, train it for one epoch, evaluate it.

A step is one update of the weights, from `accumulate` micro-batches on each rank. All of its
random numbers follow from (seed, step, rank). A run that was stopped and resumed, at the end of an
epoch or inside one, therefore makes exactly the same steps as a run that was not stopped.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from nlnet.checkpoint import LAST, Progress
from nlnet.clip import ClipBatch
from nlnet.distributed.ranks import from_main, gather_objects
from nlnet.errors import UserError
from nlnet.runs.logger import RunLogger
from nlnet.runs.outcome import RESUMES
from nlnet.runs.quarantine import TRAINING
from nlnet.runs.record import Recorder, StepRecord
from nlnet.trainer.ahead import copied_ahead
from nlnet.trainer.bad_steps import check_bad_steps, skip_step, step_clips
from nlnet.trainer.metrics import Metrics, VideoScores
from nlnet.trainer.precise_bn import precise_bn
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.prepare import set_training_mode
from nlnet.trainer.saving import Saver
from nlnet.trainer.settings import LoopSettings, most_bad
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import StepSums, autocast, place, step_seed, train_step

LoaderAt = Callable[[int, int], Iterable[ClipBatch]]  # (epoch, step) -> this rank's micro-batches
Validate = Callable[[], Metrics]


def fit(
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    *,
    loader_at: LoaderAt,
    validate: Validate,
    logger: RunLogger,
    out_dir: Path,
    name_video: Callable[[int], str] = str,
) -> None:
    """Train from the state to the end of the run, and save a checkpoint after each epoch.

    Args:
        state: is changed; `last.pt` and `best.pt` in out_dir hold it
        network: `state.model`, possibly compiled or wrapped for several ranks
        settings: how to train
        loader_at: returns the micro-batches of an epoch, from a given step of it; both from 0
        validate: evaluates `state.evaluated` on all ranks
        logger: shows the run
        out_dir: the folder of the run
        name_video: returns the file of a video_id, for the list of skipped steps

    Raises:
        UserError: the loss is not finite in too many steps, too many clips cannot be read, or a
            file cannot be written.
        Preempted: the run was asked to stop.
        OutOfTime: the time limit is reached.
    """
    progress = state.progress
    recorder = Recorder(
        progress, total_steps=settings.total_steps, steps_per_epoch=settings.steps_per_epoch
    )
    saver = Saver(out_dir, settings)
    if progress.history:  # the last attempt may have ended after its checkpoint, before this file
        logger.metrics(progress)
    with StopRequest(settings.max_minutes) as stop:
        while progress.epoch < settings.num_epochs:
            epoch = progress.epoch
            if progress.step < settings.steps_in(epoch):
                _train_one_epoch(
                    state,
                    network,
                    settings,
                    loader_at(epoch, progress.step),
                    recorder=recorder,
                    logger=logger,
                    saver=saver,
                    stop=stop,
                    name_video=name_video,
                )
            metrics = None
            if (epoch + 1) % settings.eval_every == 0 or epoch + 1 == settings.num_epochs:
                # If the evaluation fails or is killed, the epoch is not lost.
                saver.save_last(state)
                for model in dict.fromkeys((state.model, state.evaluated)):  # one or two
                    _settle_buffers(state, model, settings, loader_at, epoch)
                with state.whole(state.evaluated):
                    metrics = validate()
            _finish_epoch(state, recorder, metrics, saver, logger)


def _settle_buffers(
    state: TrainState, model: nn.Module, settings: LoopSettings, loader_at: LoaderAt, epoch: int
) -> None:
    """Give every rank the same batch norm statistics."""
    if settings.precise_bn:
        torch.manual_seed(step_seed(settings.seed, (epoch + 1) * settings.steps_per_epoch))
        batches = islice(loader_at(epoch, 0), settings.precise_bn)
        ahead = copied_ahead(batches, settings.device)
        placed = (place(batch, settings.device, settings.channels_last) for batch in ahead)
        with state.whole(model), autocast(settings.device, settings.precision):
            precise_bn(model, placed, freeze=settings.freeze)
    for buffer in model.buffers():
        from_main(buffer)


def _finish_epoch(
    state: TrainState,
    recorder: Recorder,
    metrics: Metrics | None,
    saver: Saver,
    logger: RunLogger,
) -> None:
    if metrics is None:
        report = recorder.finish_epoch({}, None)
    else:
        report = recorder.finish_epoch(metrics.values, metrics.main)
    if report.is_best:
        saver.save_best(state)
    saver.save_last(state)
    logger.epoch(report)
    logger.metrics(state.progress)


def _train_one_epoch(
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    batches: Iterable[ClipBatch],
    *,
    recorder: Recorder,
    logger: RunLogger,
    saver: Saver,
    stop: StopRequest,
    name_video: Callable[[int], str],
) -> None:
    """Make the steps of the current epoch that are not done yet.

    `batches` begin at the first of these steps. Raises UserError, Preempted and OutOfTime
    as `fit` does.
    """
    progress = state.progress
    iterator = copied_ahead(batches, settings.device)
    set_training_mode(network, state.model, settings.freeze)
    while progress.step < settings.steps_in(progress.epoch):
        start = time.perf_counter()
        micro_batches = list(islice(iterator, settings.accumulate))
        waited = time.perf_counter() - start
        if len(micro_batches) < settings.accumulate:
            raise RuntimeError(
                f"the loader of epoch {progress.epoch + 1} ended at {progress.step} of"
                f" {settings.steps_in(progress.epoch)} steps"
            )
        if progress.global_step == 0:
            logger.clips(micro_batches[0].video)

        lr = settings.lr * settings.schedule(progress.global_step)
        sums, grad_norm = train_step(
            state, network, settings, micro_batches, lr=lr, stop=stop, save=saver.is_late
        )
        times = {"seconds": time.perf_counter() - start, "waited": waited}
        if sums.faults:
            clips = step_clips(micro_batches, name_video)
            skip_step(progress, clips, sums, grad_norm, logger)
            record = StepRecord(0.0, 0.0, 0.0, 0.0, **times)
        else:
            progress.skipped_in_a_row = 0
            state.update_average()
            record = StepRecord(sums.loss, sums.top1, sums.top5, sums.clips, **times)
        logger.step(recorder.finish_step(record, lr=lr, grad_norm=grad_norm))
        check_bad_steps(progress, settings, saver.out_dir)
        _count_failures(progress, settings, micro_batches, sums, logger)

        due = sums.save or saver.is_due(progress.global_step)
        if sums.stop or (due and not sums.faults):
            saver.save_last(state)
        if sums.stop:
            step = progress.global_step
            reason, stopped = stop.agree()
            logger.say(f"{reason}: saved {LAST} after step {step}; {RESUMES}")
            raise stopped


def _count_failures(
    progress: Progress,
    settings: LoopSettings,
    micro_batches: Sequence[ClipBatch],
    sums: StepSums,
    logger: RunLogger,
) -> None:
    """Name the files that could not be read. Raise UserError if there are too many."""
    progress.asked += int(sums.clips + sums.bad)
    progress.bad += int(sums.bad)
    if not sums.bad:
        return
    failures = [failure for batch in micro_batches for failure in batch.failures]
    for part in gather_objects(failures):
        logger.failures(failure for failure in part if failure.path not in progress.bad_files)
        logger.quarantine(TRAINING, part)
        progress.bad_files |= dict(part)
    if progress.bad > most_bad(progress.asked, settings.max_bad_share):
        raise UserError(
            f"{progress.bad} of {progress.asked} clips could not be read, more than the share"
            f" {settings.max_bad_share} that is allowed; log.txt names the files: repair or remove"
            f" them, or {settings.remedies.unreadable}"
        )


class _Scorer(Protocol):
    """The part of a model that `evaluate` uses."""

    def eval(self) -> object:
        """Switch to eval mode."""

    def scores(self, video: Tensor) -> Tensor:
        """Return the probabilities (B, K) of views (B, 3, T, H, W) uint8."""


@torch.inference_mode()
def evaluate(
    model: _Scorer,
    batches: Iterable[ClipBatch],
    scores: VideoScores,
    *,
    device: torch.device,
    chunk: int,
    precision: torch.dtype | None = None,
    channels_last: bool = False,
) -> Metrics:
    """Score the views of this rank's videos. Returns the metrics over the videos of all ranks.

    Args:
        model: not wrapped for several ranks; the wrapper would wait for ranks with fewer videos
        batches: of this rank; all views of a video are on one rank
        scores: empty at the start; at the end it holds every video
        device: of the model
        chunk: the number of views in one forward pass
        precision: of autocast; None computes in float32
        channels_last: store the views in the channels_last_3d format
    """
    model.eval()
    for batch in copied_ahead(batches, device):
        scores.fail(batch.failures)
        if len(batch.video_id) == 0:  # none of the videos could be read
            continue
        batch = place(batch, device, channels_last)
        for video, video_id in zip(
            batch.video.split(chunk), batch.video_id.split(chunk), strict=True
        ):
            with autocast(device, precision):
                probabilities = model.scores(video)
            scores.add(probabilities, video_id)
    scores.gather()
    return scores.metrics()
