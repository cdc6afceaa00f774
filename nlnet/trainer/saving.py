"""When a run writes its checkpoints, and how many of them it keeps."""

import math
import time
from pathlib import Path

from nlnet.checkpoint import BEST, Checkpoint, last_paths, saved_paths, write_checkpoint
from nlnet.distributed.ranks import on_main
from nlnet.files import remove_verified
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState, save_on_main


class Saver:
    """Writes the checkpoints of a run on rank 0; every rank waits, and raises if that failed.

    The time between two checkpoints is measured by a clock that cannot be set.

    Args:
        out_dir: the folder of the run
        settings: how often `last.pt` is written inside an epoch, and how many checkpoints are kept
    """

    def __init__(self, out_dir: Path, settings: LoopSettings) -> None:
        self.out_dir = out_dir
        self.keep = settings.keep_checkpoints
        self.every_steps = settings.save_every_steps
        minutes = settings.save_every_minutes
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.saved_at = time.monotonic()

    @property
    def is_late(self) -> bool:
        """Whether the time between two checkpoints has passed on this rank."""
        return time.monotonic() - self.saved_at >= self.seconds

    def is_due(self, global_step: int) -> bool:
        """Whether a checkpoint belongs after this number of steps."""
        return self.every_steps is not None and global_step % self.every_steps == 0

    def save_last(self, state: TrainState) -> None:
        """Write `last.pt`; the older checkpoints that are kept move on by one name."""
        path, *older = last_paths(self.out_dir, self.keep)
        checkpoint = state.checkpoint()
        on_main(lambda: self._save(checkpoint, path, older))
        self.saved_at = time.monotonic()

    def save_best(self, state: TrainState) -> None:
        """Replace `best.pt`."""
        save_on_main(state, self.out_dir / BEST)

    def _save(self, checkpoint: Checkpoint, path: Path, older: list[Path]) -> None:
        write_checkpoint(path, checkpoint, older)
        for surplus in saved_paths(self.out_dir)[self.keep :]:  # an earlier attempt kept more
            remove_verified(surplus)
