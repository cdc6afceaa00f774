"""Keys of `debug`: short runs that look for mistakes. configs/debug/ sets them."""

from dataclasses import dataclass


@dataclass
class DebugConfig:
    """What a debug run does instead of a whole training run."""

    suffix: str = ""  # added to `name` in the output folder, outputs/<name><suffix>
    overfit: bool = False  # train on the first batch alone, until all of its clips are right
    val_batches: int | None = None  # batches of a validation on each rank; null: the whole split
    profile_steps: int = 0  # steps that torch's profiler records, instead of the training
