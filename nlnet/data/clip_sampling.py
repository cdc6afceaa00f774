"""Which frames of a video make a clip: the protocols, one function each for training and testing.

A protocol sees a length in frames and answers with frame numbers, one array of T per clip. Numbers
past the end are brought back by an index rule: `loop` starts the video again, `hold` repeats its
last frame. Clips of T frames, tau apart, are T x tau; "span" is what they cover.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from nlnet.errors import UsageError

ClipSampler = Callable[[int, np.random.Generator], list[np.ndarray]]
IndexRule = Callable[[np.ndarray, int], np.ndarray]


class ClipShape(NamedTuple):
    """T frames, tau apart."""

    num_frames: int
    frame_stride: int


def loop(indices: np.ndarray, length: int) -> np.ndarray:
    """Begin again at the first frame."""
    return indices % length


def hold(indices: np.ndarray, length: int) -> np.ndarray:
    """Stay at the last frame."""
    return np.minimum(indices, length - 1)


INDEX_RULES: dict[str, IndexRule] = {"loop": loop, "hold": hold}


def _every_stride(start: int, shape: ClipShape) -> np.ndarray:
    return start + shape.frame_stride * np.arange(shape.num_frames, dtype=np.int64)


def _tight_slack(length: int, shape: ClipShape) -> int:
    """How far a clip can slide when it covers (T - 1) tau + 1 frames."""
    return max(length - ((shape.num_frames - 1) * shape.frame_stride + 1), 0)


def _full_slack(length: int, shape: ClipShape) -> int:
    """How far a clip can slide when it covers T tau frames."""
    return max(length - shape.num_frames * shape.frame_stride, 0)


def dense_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """A clip at a uniformly random start, so that its last frame may be the video's last."""
    return _every_stride(int(rng.integers(_tight_slack(length, shape) + 1)), shape)


def dense_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Clips whose starts are spread evenly from the first to the last possible; one is centred."""
    slack = _tight_slack(length, shape)
    starts = np.linspace(0, slack, num_clips) if num_clips > 1 else np.array([slack // 2])
    return [_every_stride(int(start), shape) for start in np.round(starts)]


def segments_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """A random frame of each of T equal segments (Wang et al., TSN); the stride plays no part."""
    places = np.arange(shape.num_frames) + rng.random(shape.num_frames)
    return np.floor(places * length / shape.num_frames).astype(np.int64)


def segments_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """The centre of each of T equal segments; n clips take n evenly spread places instead."""
    segments = np.arange(shape.num_frames, dtype=np.int64)
    # floor(length * (segment + (clip + 1/2) / n) / T), in whole numbers
    return [
        length * (2 * num_clips * segments + 2 * clip + 1) // (2 * num_clips * shape.num_frames)
        for clip in range(num_clips)
    ]


def caffe2_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random start that leaves T tau frames (video-nonlocal-net)."""
    return _every_stride(int(rng.integers(_full_slack(length, shape) + 1)), shape)


def caffe2_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Starts at j/n of the whole video; the last clips wrap to its beginning."""
    return [_every_stride(length * j // num_clips, shape) for j in range(num_clips)]


def _slowfast_clip(start: float, shape: ClipShape) -> np.ndarray:
    # In single precision, as published, because the truncation makes every rounding visible.
    last = start + shape.num_frames * shape.frame_stride - 1
    return torch.linspace(start, last, shape.num_frames).long().numpy()


def slowfast_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """T frames spread over T tau frames from a random, fractional start (PySlowFast).

    The published sampler measures the span in seconds at 30 frames a second; here every video
    counts as having that rate. The distance of the frames is (T tau - 1) / (T - 1), not tau.
    """
    return _slowfast_clip(rng.uniform(0, _full_slack(length, shape)), shape)


def slowfast_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Starts at j/n of the slack, which never reach the end of the video (PySlowFast)."""
    slack = _full_slack(length, shape)
    return [_slowfast_clip(slack * j / num_clips, shape) for j in range(num_clips)]


def _pytorchvideo_clip(start: int, shape: ClipShape, length: int) -> np.ndarray:
    covered = min(shape.num_frames * shape.frame_stride, length - start)
    return start + torch.linspace(0, covered - 1, shape.num_frames).long().numpy()


def pytorchvideo_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """T frames spread over the frames shown within a random T tau / fps seconds (pytorchvideo)."""
    start = int(np.ceil(rng.uniform(0, _full_slack(length, shape))))
    return _pytorchvideo_clip(start, shape, length)


def pytorchvideo_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Starts at j/n of the slack; a clip begins with the first frame shown from then on."""
    slack = _full_slack(length, shape)
    starts = [-(-slack * j // num_clips) for j in range(num_clips)]
    return [_pytorchvideo_clip(start, shape, length) for start in starts]


class Protocol(NamedTuple):
    """How training and testing take clips, and the index rule that belongs to it, if one does."""

    train: Callable[[ClipShape, int, np.random.Generator], np.ndarray]
    test: Callable[[ClipShape, int, int], list[np.ndarray]]
    short: str | None = None


SAMPLERS: dict[str, Protocol] = {
    "dense": Protocol(dense_train, dense_test),
    "segments": Protocol(segments_train, segments_test),
    "caffe2": Protocol(caffe2_train, caffe2_test, short="loop"),
    "slowfast": Protocol(slowfast_train, slowfast_test, short="hold"),
    "mmaction2": Protocol(caffe2_train, dense_test, short="loop"),
    "pytorchvideo": Protocol(pytorchvideo_train, pytorchvideo_test),
}


@dataclass(frozen=True)
class RandomClip:
    """One random clip: a ClipSampler."""

    protocol: Protocol
    shape: ClipShape
    rule: IndexRule

    def __call__(self, length: int, rng: np.random.Generator) -> list[np.ndarray]:
        return [self.rule(self.protocol.train(self.shape, length, rng), length)]


@dataclass(frozen=True)
class FixedClips:
    """Clips at fixed places, whatever the random generator: a ClipSampler."""

    protocol: Protocol
    shape: ClipShape
    rule: IndexRule
    num_clips: int

    def __call__(self, length: int, rng: np.random.Generator) -> list[np.ndarray]:
        clips = self.protocol.test(self.shape, length, self.num_clips)
        return [self.rule(indices, length) for indices in clips]


def choose_protocol(sampler: str, short: str) -> tuple[Protocol, IndexRule]:
    """The protocol and index rule of these names; UsageError if unknown or not matching."""
    if sampler not in SAMPLERS:
        raise UsageError(f"data.clip.sampler={sampler} is not one of {', '.join(SAMPLERS)}")
    if short not in INDEX_RULES:
        raise UsageError(f"data.clip.short={short} is not one of {', '.join(INDEX_RULES)}")
    protocol = SAMPLERS[sampler]
    if protocol.short not in (None, short):
        raise UsageError(
            f"data.clip.short={short} is not how the {sampler} sampler treats the end of a video; "
            f"set data.clip.short={protocol.short}"
        )
    return protocol, INDEX_RULES[short]
