"""Operations of a clip, and how many a second the device can do."""

import torch

from nlnet.bench.steps.arithmetic import NUM_CLASSES
from nlnet.config import RunConfig, TrainerConfig
from nlnet.model.build import describe_model
from nlnet.model.cost import training_operations
from nlnet.trainer import profile
from nlnet.trainer.build import build_precision


def clip_operations(run: RunConfig) -> dict[str, float]:
    """Return the floating point operations of one clip in training and in evaluation."""
    clip = run.data.clip
    stages = describe_model(
        run.model, NUM_CLASSES, num_frames=clip.num_frames, crop_size=clip.crop_size
    )
    forward = 2 * sum(stage.multiply_adds for stage in stages)  # a multiply-add is 2 operations
    return {"training": training_operations(stages), "evaluation": forward}


def measured_ceiling(device: torch.device, precision: str, *, size: int | None = None) -> float:
    """Return the operations a second of a square matrix product in a precision of the trainer."""
    dtype = build_precision(TrainerConfig(precision=precision), device)
    return profile.matmul_ceiling(device, dtype, size=size)
