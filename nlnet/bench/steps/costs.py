"""Operations of a clip, and how many a second the device can do."""

import torch

from nlnet.bench.steps.calls import NUM_CLASSES
from nlnet.bench.timing import now
from nlnet.config import BenchmarkConfig, TrainerConfig
from nlnet.model.build import describe_model
from nlnet.trainer.build import build_precision


def clip_operations(run: BenchmarkConfig) -> dict[str, float]:
    """Return the floating point operations of one clip in training and in evaluation.

    A multiply-add counts as 2. Training counts as 3 forward passes, except for the stem, which
    counts as 2 because its input has no gradient.
    """
    clip = run.data.clip
    stages = describe_model(
        run.model, NUM_CLASSES, num_frames=clip.num_frames, crop_size=clip.crop_size
    )
    forward = 2 * sum(stage.multiply_adds for stage in stages)
    stem = 2 * next(stage for stage in stages if stage.name == "conv1").multiply_adds
    return {"training": 3 * forward - stem, "evaluation": forward}


def matmul_ceiling(device: torch.device, precision: str, *, size: int | None = None) -> float:
    """Return the operations a second of a square matrix product, the best of 12.

    `size` is 2048 on a CPU and 8192 on a GPU unless it is given.
    """
    dtype = build_precision(TrainerConfig(precision=precision), device) or torch.float32
    size = size or (2048 if device.type == "cpu" else 8192)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(12):
        start = now()
        a @ b
        times.append(now() - start)
    return 2 * size**3 / min(times)
