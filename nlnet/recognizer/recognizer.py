"""A trained network with all that it needs to classify videos."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nlnet.clip import ClipBatch
from nlnet.data.decoding.reader import DecodeError, VideoReader
from nlnet.data.decoding.stream import is_live
from nlnet.data.windows import FrameWindow, WindowViews
from nlnet.errors import UserError
from nlnet.model.classifier import VideoClassifier
from nlnet.model.non_local.rows import Position
from nlnet.recognizer.attention import AUTO, VideoAttention
from nlnet.recognizer.inputs import Video, open_reader, open_stream, video_name
from nlnet.recognizer.methods import ROWS, maps_of
from nlnet.recognizer.prediction import (
    Features,
    VideoPrediction,
    WindowPrediction,
    top_classes,
)
from nlnet.trainer.loop import evaluate
from nlnet.trainer.metrics import Metrics, VideoScores
from nlnet.trainer.step import autocast

TOP = 5  # classes in a prediction


@dataclass(frozen=True)
class Recognizer:
    """A trained network, the names of its classes, and the views that it is tested on."""

    model: VideoClassifier  # in eval mode, on `device`
    class_names: tuple[str, ...]  # K names, in the order of the scores
    read_views: Callable[[VideoReader], ClipBatch]  # a video -> all its views, one batch
    read_clip: Callable[[VideoReader], ClipBatch]  # a video -> the center crop of its middle clip
    # files -> the views of the next files, and the number of these files
    read_files: Callable[[Sequence[Path]], Iterable[tuple[int, ClipBatch]]]
    window_views: WindowViews  # the views of a part of a video
    ensemble: str  # how the scores of the views become the video's: a name in ENSEMBLES
    chunk: int  # views in one forward pass
    device: torch.device
    precision: torch.dtype | None  # of autocast; None is float32
    channels_last: bool

    def scores(self, video: Video) -> Tensor:
        """The probabilities of the classes for one video.

        The clips, views, normalization and ensemble are those of the settings that the network
        was loaded with, so the result equals that of tools/eval.py with these settings.

        Args:
            video: a path, an open binary file, or frames uint8 RGB (T, H, W, 3). Of a camera
                (/dev/video0) or a URL (rtsp://...), the first clip is read.

        Returns:
            (K,) float64 on the CPU, in the order of `class_names`

        Raises:
            UserError: there is no such video, or it cannot be decoded.
        """
        return self._video_scores(self._read(video, self.read_views), 1).probabilities[0]

    def clip(self, video: Video) -> Tensor:
        """The center crop of the middle clip of one video: pixels (1, 3, T, S, S) of uint8.

        It has the frame stride and the size of the test views. `video` and errors are as of
        `scores`.
        """
        return self._read(video, self.read_clip).video

    def attention(
        self,
        video: Video,
        query: Position | str = AUTO,
        block: str | None = None,
        *,
        method: str = ROWS,
    ) -> VideoAttention:
        """What the network attends to in `clip(video)`.

        Args:
            video: as of `scores`
            query: (t, y, x) in frames and pixels of the clip, or "auto": in each block, the query
                whose row has the fewest effective positions (the exponential of the entropy of
                its absolute weights). "all": the mean of the rows of all positions
            block: a block such as "res4.nl3", with gradcam also a stage such as "res4"; None is
                all blocks, with gradcam the last stage
            method: "rows" of the non-local blocks, or "gradcam", which works for every network

        Raises:
            UserError: the video cannot be read, the query is outside the clip, or the network has
                no such block.
        """
        clip = self.clip(video)
        return self.attention_in_clip(clip, video_name(video), query, block, method=method)

    def attention_in_clip(
        self,
        clip: Tensor,
        name: str,
        query: Position | str = AUTO,
        block: str | None = None,
        *,
        method: str = ROWS,
    ) -> VideoAttention:
        """What the network attends to in a clip (1, 3, T, S, S) of the video `name`.

        The other arguments and the errors are those of `attention`.
        """
        clip = clip.to(self.device)
        return VideoAttention(
            name,
            clip[0].permute(1, 2, 3, 0).cpu().numpy(),
            self.class_names,
            *maps_of(self.model, clip, query=query, block=block, method=method),
        )

    def predict(self, video: Video, top: int = TOP) -> VideoPrediction:
        """The `top` most probable classes of one video; arguments and errors are as of `scores`."""
        return VideoPrediction(
            video_name(video), top_classes(self.scores(video), self.class_names, top)
        )

    def predict_files(
        self, files: Sequence[str | Path], top: int = TOP
    ) -> Iterator[VideoPrediction]:
        """The most probable classes of many files, in their order, one by one.

        Several files are decoded at a time. A file that cannot be read gives a prediction with an
        error, and the others go on.
        """
        paths = [Path(file) for file in files]
        done = 0
        for count, batch in self.read_files(paths):
            causes = {failure.path: failure.cause for failure in batch.failures}
            scores = self._video_scores(batch._replace(video_id=batch.video_id - done), count)
            for path, probabilities in zip(
                paths[done : done + count], scores.probabilities, strict=True
            ):
                name = str(path)
                if name in causes:
                    yield VideoPrediction(name, (), causes[name])
                else:
                    yield VideoPrediction(name, top_classes(probabilities, self.class_names, top))
            done += count

    def predict_over_time(
        self,
        video: Video,
        window: float | None = None,
        step: float | None = None,
        *,
        top: int = TOP,
        frame_rate: float | None = None,
    ) -> Iterator[WindowPrediction]:
        """The most probable classes of each window of a video, while it is read.

        The frames are read once, in order, and only those of one window are in memory. A window
        is covered by clips side by side, with one center crop each. It has the scores of a video
        that consists of its frames alone, tested on these views.

        Args:
            video: as of `scores`; a camera or a live stream is read until it ends
            window: length in seconds; None is the length of a clip
            step: seconds from one window to the next; None is half of a window
            top: number of classes
            frame_rate: frames per second of an array

        Raises:
            UserError: the video cannot be read, or a length is not positive.
        """
        for part, views in self._windows(video, window, step, frame_rate):
            yield self.predict_window(part.start, part.end, views, top)

    def predict_window(
        self, start: float, end: float, views: Tensor, top: int = TOP
    ) -> WindowPrediction:
        """The most probable classes of the views (V, 3, T, S, S) of a window, in seconds."""
        nothing = torch.zeros(len(views), dtype=torch.int64)
        batch = ClipBatch(views, nothing, nothing, ())
        probabilities = self._video_scores(batch, 1).probabilities[0]
        best = top_classes(probabilities, self.class_names, top)
        # A copy: the memory of many kept tensors, between that of feature maps which were
        # freed, would keep the C library from using the freed memory again.
        return WindowPrediction(start, end, best, np.array(probabilities.tolist()))

    def features(
        self,
        video: Video,
        window: float | None = None,
        step: float | None = None,
        *,
        frame_rate: float | None = None,
    ) -> Features:
        """The pooled features of each window of a video, with its time.

        The arguments, views and errors are those of `predict_over_time`, except that `step` None
        is a whole window: the parts do not overlap.
        """
        values, times = [], []
        step = window if step is None else step
        for part, views in self._windows(video, window, step, frame_rate, overlap=1.0):
            values.append(self._pooled(views))
            times.append((part.start, part.end))
        start, end = np.array(times).T
        return Features(np.stack(values), start, end)

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

    def _read(self, video: Video, read: Callable[[VideoReader], ClipBatch]) -> ClipBatch:
        try:
            with open_reader(video, self.window_views.span) as reader:
                batch = read(reader)
        except DecodeError as error:
            raise unreadable(video, error.cause) from error
        for failure in batch.failures:
            raise unreadable(video, failure.cause)
        return batch

    def _video_scores(self, batch: ClipBatch, num_videos: int) -> VideoScores:
        labels = torch.zeros(num_videos, dtype=torch.int64)  # unknown; only metrics use them
        scores = VideoScores(labels, len(self.class_names), self.ensemble)
        self.evaluate([batch], scores)
        return scores

    def _windows(
        self,
        video: Video,
        window: float | None,
        step: float | None,
        frame_rate: float | None,
        overlap: float = 0.5,
    ) -> Iterator[tuple[FrameWindow, Tensor]]:
        """Each window and its views (V, 3, T, S, S)."""
        for name, seconds in (("window", window), ("step", step)):
            if seconds is not None and not seconds > 0:
                raise UserError(f"{name}={seconds} must be a number of seconds above 0")
        try:
            with open_stream(video, frame_rate) as stream:
                yield from self.window_views.over(stream, window, step, overlap=overlap)
        except DecodeError as error:
            raise unreadable(video, error.cause) from error

    @torch.inference_mode()
    def _pooled(self, views: Tensor) -> np.ndarray:
        """The backbone's output (C,), averaged over positions and views, as float32."""
        parts = []
        for chunk in views.split(self.chunk):
            placed = chunk.to(self.device)
            if self.channels_last:
                placed = placed.contiguous(memory_format=torch.channels_last_3d)
            with autocast(self.device, self.precision):
                maps = self.model.backbone(self.model.normalize(placed))
            parts.append(maps.double().mean(dim=(2, 3, 4)).cpu())  # (B, C)
        return torch.cat(parts).mean(dim=0).float().numpy()


def unreadable(video: Video, cause: str) -> UserError:
    """The error of a video that cannot be decoded."""
    name = video_name(video)
    remedy = "check that it runs and is reachable" if is_live(name) else "give a video file"
    return UserError(f"{name}: {cause}; {remedy}")
