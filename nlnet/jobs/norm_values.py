"""Refuse a step whose batch norms have one value per channel."""

import os
from functools import partial

from nlnet.checks import section
from nlnet.config import RunConfig
from nlnet.errors import UsageError
from nlnet.model.build import build_model
from nlnet.model.norm import SyncBatchNorm3d
from nlnet.trainer.norm_values import smallest_norm


def check_norms(run: RunConfig) -> None:
    """Raise UsageError if a batch norm has one value per channel: its variance is not defined."""
    ranks = int(os.environ.get("WORLD_SIZE", run.dist.num_procs))
    if run.data.batch_size > ranks * run.trainer.accumulate:
        return
    clip = run.data.clip
    shape = (3, clip.num_frames, clip.crop_size, clip.crop_size)
    with section("trainer"):
        name, values = smallest_norm(
            partial(build_model, run.model, num_classes=2),
            shape,
            run.trainer.freeze,
            ranks,
            SyncBatchNorm3d,
        )
    if values == 1:
        raise UsageError(
            f"data.batch_size={run.data.batch_size}: the batch norm {name} has one value per "
            f"channel in a forward pass ({ranks} ranks, trainer.accumulate="
            f"{run.trainer.accumulate}), which has no variance; use a larger data.batch_size, "
            "data.clip.crop_size or data.clip.num_frames, or model.norm=frozen"
        )
