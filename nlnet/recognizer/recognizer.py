"""A trained network with all that it needs to classify a video file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nlnet.clip import ClipBatch
from nlnet.errors import UserError
from nlnet.model.classifier import VideoClassifier
from nlnet.trainer.loop import evaluate
from nlnet.trainer.metrics import Metrics, VideoScores


@dataclass(frozen=True)
class Recognizer:
    """A trained network, the names of its classes, and the views that it is tested on."""

    model: VideoClassifier  # in eval mode, on `device`
    class_names: tuple[str, ...]  # K names, in the order of the scores
    read_views: Callable[[Path], ClipBatch]  # a file -> all views of the video, one batch
    ensemble: str  # how the scores of the views become the video's: a name in ENSEMBLES
    chunk: int  # views in one forward pass
    device: torch.device
    precision: torch.dtype | None  # of autocast; None is float32
    channels_last: bool

    def scores(self, video: str | Path) -> Tensor:
        """The probabilities of the classes for one video file.

        The clips, views, normalization and ensemble are those of the settings that the network
        was loaded with, so the result equals that of tools/eval.py with these settings.

        Args:
            video: the path of a video file

        Returns:
            (K,) float64 on the CPU, in the order of `class_names`

        Raises:
            UserError: there is no such file, or it cannot be decoded.
        """
        path = Path(video)
        if not path.is_file():
            raise UserError(f"{path}: no such file; give the path of a video")
        batch = self.read_views(path)
        for failed, cause in batch.failures:
            raise UserError(f"{failed}: {cause}; give a video that FFmpeg can decode")
        scores = VideoScores(
            torch.zeros(1, dtype=torch.int64), len(self.class_names), self.ensemble
        )
        self.evaluate([batch], scores)
        return scores.probabilities[0]

    def evaluate(self, batches: Iterable[ClipBatch], scores: VideoScores) -> Metrics:
        """Score the views of this rank's videos; the metrics over the videos of all ranks."""
        return evaluate(
            self.model,
            batches,
            scores,
            device=self.device,
            chunk=self.chunk,
            precision=self.precision,
            channels_last=self.channels_last,
        )
