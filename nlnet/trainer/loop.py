"""The three loops: fit a model, train it for one epoch, evaluate it.

A step is one update of the weights: `accumulate` micro-batches on each rank. Everything random in
it follows from (seed, step, rank), so a run that was cut off and resumed, at the end of an epoch
or inside it, makes the very same steps as one that was not.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from nlnet.checkpoint import BEST, LAST, PREVIOUS, EpochRecord, Progress
from nlnet.clip import ClipBatch
from nlnet.distributed.ranks import from_main, gather_objects
from nlnet.errors import UserError
from nlnet.runs.logger import RunLogger, StepRecord, rates
from nlnet.trainer.metrics import VideoScores
from nlnet.trainer.precise_bn import precise_bn
from nlnet.trainer.preemption import Preempted, StopRequest
from nlnet.trainer.recipe import Recipe
from nlnet.trainer.state import TrainState, save_on_main
from nlnet.trainer.step import StepSums, autocast, place, step_seed, train_step

LoaderAt = Callable[[int, int], Iterable[ClipBatch]]  # (epoch, step) -> this rank's micro-batches
Validate = Callable[[], dict[str, float]]  # -> metrics; the first one chooses the best model


def fit(
    state: TrainState,
    network: nn.Module,
    recipe: Recipe,
    *,
    loader_at: LoaderAt,
    validate: Validate,
    logger: RunLogger,
    out_dir: Path,
) -> dict[str, float]:
    """Train from where the state stands to the end, with a checkpoint and metrics each epoch.

    Args:
        state: is changed; `last.pt` and `best.pt` in out_dir hold it
        network: `state.model`, possibly compiled or wrapped for several ranks
        loader_at: the micro-batches of an epoch from a step of it on

    Returns:
        the metrics of the last epoch, on every rank

    Raises:
        UserError: the loss is not finite, too many clips cannot be read, a save failed.
        Preempted: the run was asked to stop.
    """
    progress = state.progress
    if progress.history:  # the last attempt may have ended between its checkpoint and this
        logger.metrics(progress)
    with StopRequest() as stop:
        while progress.epoch < recipe.num_epochs:
            epoch = progress.epoch
            if progress.step < recipe.steps_in(epoch):
                batches = loader_at(epoch, progress.step)
                train_one_epoch(
                    state, network, recipe, batches, logger=logger, out_dir=out_dir, stop=stop
                )
            metrics: dict[str, float] = {}
            if (epoch + 1) % recipe.eval_every == 0 or epoch + 1 == recipe.num_epochs:
                # An evaluation that fails, or is killed, must not cost the epoch.
                save_on_main(state, out_dir / LAST, out_dir / PREVIOUS)
                _settle_buffers(state.model, recipe, loader_at, epoch)
                metrics = validate()
            _finish_epoch(state, metrics, out_dir, logger)
    return dict(progress.history[-1].val)


def _settle_buffers(model: nn.Module, recipe: Recipe, loader_at: LoaderAt, epoch: int) -> None:
    """Give every rank the same batch norm statistics."""
    if recipe.precise_bn:
        torch.manual_seed(step_seed(recipe.seed, (epoch + 1) * recipe.steps_per_epoch))
        batches = islice(loader_at(epoch, 0), recipe.precise_bn)
        with autocast(recipe.device, recipe.precision):
            precise_bn(model, (place(b, recipe.device, recipe.channels_last) for b in batches))
    for buffer in model.buffers():
        from_main(buffer)


def _finish_epoch(
    state: TrainState, metrics: dict[str, float], out_dir: Path, logger: RunLogger
) -> None:
    progress, seconds = state.progress, state.progress.totals["seconds"]
    means = rates(progress.totals)
    train = {name: means.pop(name) for name in ("loss", "top1", "top5")}
    main = next(iter(metrics), None)
    progress.history.append(
        EpochRecord(
            epoch=progress.epoch,
            global_step=progress.global_step,
            seconds=seconds,
            **means,
            train=train,
            val=metrics,
            main=main,
        )
    )
    progress.epoch, progress.step, progress.totals = progress.epoch + 1, 0, {}
    score = progress.history[-1].score
    is_best = score is not None and (progress.best is None or score > progress.best)
    if is_best:
        progress.best = score
        save_on_main(state, out_dir / BEST)
    save_on_main(state, out_dir / LAST, out_dir / PREVIOUS)
    logger.epoch(progress)


def train_one_epoch(
    state: TrainState,
    network: nn.Module,
    recipe: Recipe,
    batches: Iterable[ClipBatch],
    *,
    logger: RunLogger,
    out_dir: Path,
    stop: StopRequest,
) -> None:
    """Make the steps that the epoch still lacks; batches start at the first of them.

    Raises UserError and Preempted as `fit` does.
    """
    progress = state.progress
    iterator = iter(batches)
    network.train()
    while progress.step < recipe.steps_in(progress.epoch):
        start = time.perf_counter()
        micro_batches = list(islice(iterator, recipe.accumulate))
        waited = time.perf_counter() - start
        if len(micro_batches) < recipe.accumulate:
            raise RuntimeError(f"the loader of epoch {progress.epoch} ended at {progress.step}")
        if progress.global_step == 0:
            logger.clips(micro_batches[0].video)

        lr = recipe.lr * recipe.schedule(progress.global_step)
        sums, grad_norm = train_step(state, network, recipe, micro_batches, lr=lr, stop=stop)
        progress.step += 1
        progress.global_step += 1
        times = {"seconds": time.perf_counter() - start, "waited": waited}
        record = StepRecord(sums.loss, sums.top1, sums.top5, sums.clips, **times)
        record.add_to(progress.totals)
        logger.step(progress, record, lr=lr, grad_norm=grad_norm)
        _count_failures(progress, recipe, micro_batches, sums, logger)

        every = recipe.save_every_steps
        if sums.stop or (every is not None and progress.global_step % every == 0):
            save_on_main(state, out_dir / LAST, out_dir / PREVIOUS)
        if sums.stop:
            step = progress.global_step
            logger.say(f"asked to stop: saved {LAST} after step {step}; the same command resumes")
            raise Preempted(max(gather_objects(stop.signum)))


def _count_failures(
    progress: Progress,
    recipe: Recipe,
    micro_batches: Sequence[ClipBatch],
    sums: StepSums,
    logger: RunLogger,
) -> None:
    """Tell which files could not be read; raise UserError when they are too many.

    Of n clips that were asked for, ceil(n * max_bad_share) may be bad: one at once, a second one
    only from n > 1 / max_bad_share on.
    """
    progress.asked += int(sums.clips + sums.bad)
    progress.bad += int(sums.bad)
    if not sums.bad:
        return
    failures = [failure for batch in micro_batches for failure in batch.failures]
    for part in gather_objects(failures):
        logger.failures(failure for failure in part if failure.path not in progress.bad_files)
        progress.bad_files |= dict(part)
    if progress.bad > math.ceil(round(progress.asked * recipe.max_bad_share, 6)):
        raise UserError(
            f"{progress.bad} of {progress.asked} clips could not be read, more than"
            f" data.max_bad_share={recipe.max_bad_share} allows; log.txt names the files: mend or"
            " remove them, or raise the share"
        )


class Scorer(Protocol):
    """What `evaluate` asks of a model."""

    def eval(self) -> object:
        """Switch off what only training does."""

    def scores(self, video: Tensor) -> Tensor:
        """Probabilities (B, K) of views (B, 3, T, H, W) uint8."""


@torch.inference_mode()
def evaluate(
    model: Scorer,
    batches: Iterable[ClipBatch],
    scores: VideoScores,
    *,
    device: torch.device,
    chunk: int,
    precision: torch.dtype | None = None,
    channels_last: bool = False,
) -> dict[str, float]:
    """Score the views of this rank's videos; returns the metrics over the videos of all ranks.

    Args:
        model: bare; a wrapper for several ranks would wait for ranks that have fewer videos
        batches: all views of a video come on one rank
        scores: empty; afterwards it holds every video
        chunk: views in one forward pass
    """
    model.eval()
    for batch in batches:
        scores.fail(batch.failures)
        if len(batch.video_id) == 0:  # none of its videos could be read
            continue
        batch = place(batch, device, channels_last)
        for video, video_id in zip(
            batch.video.split(chunk), batch.video_id.split(chunk), strict=True
        ):
            with autocast(device, precision):
                probabilities = model.scores(video)
            scores.add(probabilities, video_id)
    scores.gather()
    return scores.summary()
