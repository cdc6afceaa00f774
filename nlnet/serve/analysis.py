"""The videos that the server analyzes, one after the other, and what it knows of them."""

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from nlnet.errors import UserError
from nlnet.model.non_local.rows import Position
from nlnet.recognizer.attention import VideoAttention
from nlnet.recognizer.prediction import WindowPrediction
from nlnet.recognizer.recognizer import Recognizer
from nlnet.serve.decoder import DecodedWindow, Decoder
from nlnet.serve.limits import Limits, Refusal, busy
from nlnet.serve.upload import Upload

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
VIDEOS, PICTURES = "videos", "pictures"  # the queues, in messages
MAX_VIDEOS = 64  # that are kept
Result = TypeVar("Result")


@dataclass
class AnalyzedVideo:
    """A video by its secret number: its state, its predictions, and a clip of each window."""

    key: str
    state: str = WAITING
    error: str = ""
    predictions: list[WindowPrediction] = field(default_factory=list)
    clips: list[Tensor] = field(default_factory=list)  # (1, 3, T, S, S) uint8, the middle one

    @property
    def num_bytes(self) -> int:
        """Memory of the clips."""
        return sum(clip.nbytes for clip in self.clips)


class Analyzer:
    """Runs a network on uploads and shows its attention in them.

    Videos are analyzed one after the other. All work of the network is done in one thread, in the
    order of the requests, so that a click waits for one window and not for a whole video.
    """

    def __init__(self, recognizer: Recognizer, decoder: Decoder, limits: Limits) -> None:
        self.recognizer = recognizer
        self._decoder = decoder
        self._limits = limits
        self._places = threading.BoundedSemaphore(limits.waiting)
        self._pictures = threading.BoundedSemaphore(limits.pictures)
        self._videos: dict[str, AnalyzedVideo] = {}  # the oldest first
        self._lock = threading.Lock()  # of _videos
        self._jobs = ThreadPoolExecutor(1, "videos")
        self._network = ThreadPoolExecutor(1, "network")

    def reserve(self) -> None:
        """Take a place in the queue; raises Refusal (503) if it is full.

        The place is free again after `release`, or after the analysis that `submit` starts.
        """
        if not self._places.acquire(blocking=False):
            raise busy(VIDEOS)

    def release(self) -> None:
        """Give back a place."""
        self._places.release()

    def submit(self, upload: Upload) -> AnalyzedVideo:
        """Analyze an upload when its turn comes, and delete it. The caller has a place."""
        return self._enqueue(upload.path, upload.form, upload.close)

    def submit_file(self, path: str) -> AnalyzedVideo:
        """Analyze a trusted file when its turn comes. The caller has a place."""
        return self._enqueue(path, None, lambda: None)

    def video(self, key: str) -> AnalyzedVideo:
        """A video by its key; raises Refusal (404) if the server does not keep it."""
        with self._lock:
            if key not in self._videos:
                raise Refusal(404, "the server does not keep this video any more; upload it again")
            return self._videos[key]

    def num_before(self, video: AnalyzedVideo) -> int:
        """The number of videos that are analyzed before this one."""
        with self._lock:
            unfinished = [
                each for each in self._videos.values() if each.state in (WAITING, RUNNING)
            ]
        return unfinished.index(video) if video in unfinished else 0

    def clip(self, video: AnalyzedVideo, window: int) -> Tensor:
        """The clip (1, 3, T, S, S) of a window; raises Refusal (404) if there is none."""
        if not 0 <= window < len(video.clips):
            raise Refusal(404, f"window={window}: the video has {len(video.clips)} windows so far")
        return video.clips[window]

    def attention(
        self, clip: Tensor, query: Position | str, block: str | None, method: str
    ) -> VideoAttention:
        """What the network attends to in a clip; waits for its turn.

        Raises Refusal (503) if too many requests wait, and UserError as Recognizer.attention does.
        """
        if not self._pictures.acquire(blocking=False):
            raise busy(PICTURES)
        try:
            return self._in_turn(
                lambda: self.recognizer.attention_in_clip(
                    clip, "the clip", query, block, method=method
                )
            )
        finally:
            self._pictures.release()

    def close(self) -> None:
        """End what runs, and forget what waits."""
        self._decoder.stop()
        self._jobs.shutdown(wait=True, cancel_futures=True)
        self._network.shutdown(wait=True, cancel_futures=True)

    def _enqueue(self, path: str, form: str | None, close: Callable[[], None]) -> AnalyzedVideo:
        video = AnalyzedVideo(secrets.token_urlsafe(16))
        with self._lock:
            self._videos[video.key] = video
        self._forget_old()

        def finish(job: Future[None]) -> None:
            close()
            self._places.release()
            if not job.cancelled() and (error := job.exception()) is not None:
                logging.getLogger(__name__).error("an analysis failed", exc_info=error)

        job = self._jobs.submit(self._analyze, video, path, form)
        job.add_done_callback(finish)
        return video

    def _analyze(self, video: AnalyzedVideo, path: str, form: str | None) -> None:
        video.state = RUNNING
        try:
            for window in self._decoder.windows(path, form):
                self._add(video, window)
            video.state = DONE
        except UserError as error:
            video.error = str(error)
        finally:
            if video.state != DONE:
                video.error = video.error or "the analysis failed; the server's output says why"
                video.state = FAILED
                video.clips.clear()

    def _add(self, video: AnalyzedVideo, window: DecodedWindow) -> None:
        middle = window.views[len(window.views) // 2].clone()
        if video.num_bytes + middle.nbytes > self._limits.kept_bytes:
            raise UserError("the video has too many windows to keep; raise --step")
        prediction = self._in_turn(
            lambda: self.recognizer.predict_window(window.start, window.end, window.views)
        )
        video.clips.append(middle[None])
        video.predictions.append(prediction)  # last: a prediction that is shown has a clip
        self._forget_old()

    def _forget_old(self) -> None:
        """Forget the oldest finished videos while there are too many, or too large ones."""
        with self._lock:
            used = sum(each.num_bytes for each in self._videos.values())
            for each in list(self._videos.values()):
                too_many = used > self._limits.kept_bytes or len(self._videos) > MAX_VIDEOS
                if too_many and each.state in (DONE, FAILED):
                    used -= each.num_bytes
                    del self._videos[each.key]

    def _in_turn(self, work: Callable[[], Result]) -> Result:
        """Do work in the network's thread, after the work of earlier calls."""
        return self._network.submit(work).result()
