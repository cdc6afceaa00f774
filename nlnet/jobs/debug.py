"""Debug runs: learn one batch, or record and time a few steps."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

from torch import nn

from nlnet.checkpoint import BEST, LAST, saved_paths
from nlnet.checks import at_least
from nlnet.clip import ClipBatch
from nlnet.config import RunConfig, read_run_tree
from nlnet.distributed.ranks import rank, world_size
from nlnet.errors import UsageError, UserError
from nlnet.files import remove_verified, write_text
from nlnet.model.build import describe_model
from nlnet.model.cost import training_operations
from nlnet.runs.logger import RunLogger
from nlnet.runs.quarantine import QUARANTINE
from nlnet.runs.record import METRICS
from nlnet.runs.skipped import SKIPPED
from nlnet.trainer.build import build_precision
from nlnet.trainer.overfit import overfit
from nlnet.trainer.profile import Profile, matmul_ceiling, profile
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState, save_on_main

LoaderAt = Callable[[int, int], Iterator[ClipBatch]]

PROFILE = "profile.json"
NUM_OPERATIONS = 5  # that the log names
NUM_CLASSES = 400  # of the counted network; its classifier is a negligible part


def check_debug(run: RunConfig) -> None:
    """Raise UsageError if the keys of `debug` do not fit together."""
    debug = run.debug
    at_least("debug.profile_steps", debug.profile_steps, 0)
    if debug.val_batches is not None:
        at_least("debug.val_batches", debug.val_batches, 1)
    if debug.overfit and debug.profile_steps:
        raise UsageError("debug.overfit=true and debug.profile_steps are two runs; choose one")
    short = debug.overfit or debug.profile_steps > 0 or debug.val_batches is not None
    if short and not debug.suffix:
        raise UsageError(
            "debug.suffix is empty, so that a debug run would take the folder of the real run; "
            "choose +debug=overfit, +debug=short or +debug=profile, or give debug.suffix=_NAME"
        )


def clear_debug_folder(run: RunConfig, folder: Path) -> None:
    """Remove the results of an earlier debug run, because a debug run always starts anew.

    The files of any other run stay.
    """
    config = folder / "config.yaml"
    if not run.debug.suffix or not config.exists():
        return
    tree = read_run_tree(config.read_text(), str(config))
    if tree["debug"]["suffix"] != run.debug.suffix:
        return
    for path in (*saved_paths(folder), folder / BEST):
        remove_verified(path)
    for name in ("log.txt", METRICS, PROFILE, QUARANTINE, SKIPPED):
        (folder / name).unlink(missing_ok=True)


def run_debug(
    run: RunConfig,
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    loader_at: LoaderAt,
    logger: RunLogger,
) -> bool:
    """Do what `debug` asks for instead of a training. Returns False if it asks for nothing.

    Raises UserError if one batch is not learned, and what `fit` raises.
    """
    if run.debug.overfit:
        _overfit(state, network, settings, loader_at, logger)
    elif run.debug.profile_steps:
        _profile(run, state, network, settings, loader_at, logger)
    return run.debug.overfit or run.debug.profile_steps > 0


def _overfit(
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    loader_at: LoaderAt,
    logger: RunLogger,
) -> None:
    batch = list(islice(loader_at(0, 0), settings.accumulate))
    for part in batch:
        logger.failures(part.failures)
    logger.clips(batch[0].video)
    result = overfit(state, network, settings, batch, logger=logger)
    save_on_main(state, logger.out_dir / LAST)
    loss = f"loss {result.first_loss:.4f} -> {result.loss:.4f}"
    if result.learned:
        logger.say(
            f"learned the first batch: all {result.clips} clips are right after {result.steps} "
            f"steps, {loss}"
        )
        return
    raise UserError(
        f"the first batch is not learned: {result.right} of {result.clips} clips are right after "
        f"{result.steps} steps, {loss}; give more steps (trainer.max_steps) or another optim.lr, "
        "and if that does not help, look at the labels and the clips (tensorboard shows them), "
        "model.normalization and trainer.freeze"
    )


def _profile(
    run: RunConfig,
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    loader_at: LoaderAt,
    logger: RunLogger,
) -> None:
    batches = (batch for epoch in count() for batch in loader_at(epoch, 0))
    # TensorBoard looks for this ending below its folder.
    trace = logger.out_dir / "tensorboard" / f"rank{rank()}.pt.trace.json.gz"
    found = profile(state, network, settings, batches, steps=run.debug.profile_steps, trace=trace)
    clip, device = run.data.clip, settings.device
    stages = describe_model(
        run.model, NUM_CLASSES, num_frames=clip.num_frames, crop_size=clip.crop_size
    )
    operations = found.clips * training_operations(stages)
    ceiling = matmul_ceiling(device, build_precision(run.trainer, device))
    mfu = operations / found.seconds / ceiling
    for line in _summary(found, operations, ceiling, mfu):
        logger.say(line)
    logger.say(
        f"trace: {os.path.relpath(trace)}; open it in TensorBoard, or at https://ui.perfetto.dev"
    )
    if rank() == 0:
        numbers = {
            "seconds": found.seconds,
            "waited": found.waited,
            "clips": found.clips * world_size(),
            "operations": operations,
            "ceiling": ceiling,
            "mfu": mfu,
            "memory": found.memory,
            "by_operation": {row.name: row.seconds for row in found.operations},
        }
        write_text(logger.out_dir / PROFILE, json.dumps(numbers, indent=1) + "\n")


def _summary(found: Profile, operations: float, ceiling: float, mfu: float) -> list[str]:
    """The lines of the log: time, share of the device's speed, the longest operations."""
    rate = found.clips * world_size() / found.seconds
    longest = ", ".join(
        f"{row.name} {100 * row.share:.0f} %" for row in found.operations[:NUM_OPERATIONS]
    )
    return [
        f"profile: a step takes {1e3 * found.seconds:.0f} ms (median of {len(found.steps)}), "
        f"{rate:.1f} clips/s, data wait {100 * found.waited:.0f}%",
        f"memory of a rank: {found.memory / 1e9:.2f} GB at the most",
        f"MFU {100 * mfu:.1f}%: a step of {operations / 1e9:.3g} GFLOP runs at "
        f"{operations / found.seconds / 1e9:.3g} GFLOP/s, a large matrix product at "
        f"{ceiling / 1e9:.3g}",
        f"longest operations of {len(found.steps)} recorded steps: {longest}",
    ]
