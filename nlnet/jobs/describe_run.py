"""Log lines about a run, before its first step."""

from dataclasses import asdict

import torch

from nlnet.checkpoint import LAST, Provenance
from nlnet.cli.dotted_keys import flatten
from nlnet.cli.folders import FREE_KEYS, LENGTH, differences, extension
from nlnet.config import RunConfig, read_run_tree
from nlnet.data.loader import EvalLoader, TrainLoader
from nlnet.distributed.ranks import world_size


def describe_changes(run: RunConfig, resumed: Provenance | None) -> list[str]:
    """Log lines for a run that became longer since its checkpoint, or changed otherwise."""
    if resumed is None or resumed.config is None:
        return []
    found, wanted = flatten(read_run_tree(resumed.config, LAST)), flatten(asdict(run))
    lines = []
    change = extension(found, wanted)
    if change is not None:
        end = "from here on the learning rate fits the new length"
        lines.append(f"the run is longer, {change}; {end}")
    if run.trainer.accept_changes:
        others = differences(found, wanted, free=(*FREE_KEYS, *([LENGTH] if change else [])))
        lines += [f"accepted change of the configuration: {other}" for other in others]
    return lines


def describe_data(
    run: RunConfig,
    loader: TrainLoader,
    val_loader: EvalLoader,
    total_steps: int,
    device: torch.device,
) -> list[str]:
    """Log lines: ranks, precision, videos, classes and steps; what is odd about the data."""
    lines = [
        f"{world_size()} x {device.type}, {run.trainer.precision}; {len(loader.index)} videos "
        f"of {len(loader.index.class_names)} classes to train on, {len(val_loader.index)} to "
        f"validate on; {total_steps} steps of {run.data.batch_size} clips"
    ]
    for index in (loader.index, val_loader.index):
        if index.missing:
            lines.append(f"{len(index.missing)} listed videos have no file and are left out")
    if len(loader.index.class_names) == 1:
        lines.append(
            f"there is one class only, {loader.index.class_names[0]}, and nothing to learn: add "
            "the videos of another class"
        )
    return [*lines, *val_loader.index.remarks, *loader.remarks]
