"""Which frames of a video make a clip: one protocol for each published code base.

A protocol has one function for training and one for testing. Each takes the length of a video in
frames and returns frame numbers, one array of T numbers for each clip. An index rule replaces
numbers past the end: `loop` starts the video again, `hold` repeats the last frame. A clip of T
frames, tau frames apart, is written T x tau; its span is the number of frames that it covers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch

from nlnet.errors import ArgumentError, choose

IndexRule = Callable[[np.ndarray, int], np.ndarray]


class ClipSampler(Protocol):
    """Chooses the frames of the clips of a video."""

    def __call__(self, length: int, rng: np.random.Generator) -> list[np.ndarray]:
        """The frame numbers of each clip, for a video of `length` frames."""

    def times(self, factor: float) -> "ClipSampler":
        """The same sampler for frames that are `factor` times as far apart."""


def at_rate(sampler: ClipSampler, rate: float | None, target_fps: float | None) -> ClipSampler:
    """The sampler for a video of `rate` frames per second; its distances are for `target_fps`.

    Without `target_fps`, distances are numbers of frames of the file. A video whose rate is unknown
    counts as one of `target_fps`.
    """
    if rate is None or target_fps is None or rate == target_fps:
        return sampler
    return sampler.times(rate / target_fps)


class ClipShape(NamedTuple):
    """T frames, tau frames apart. If tau is no whole number, frame numbers are rounded."""

    num_frames: int
    frame_stride: float

    @property
    def span(self) -> int:
        """The number of frames that a clip covers, T tau, rounded down; at least T."""
        return max(math.floor(self.num_frames * self.frame_stride), self.num_frames)

    def times(self, factor: float) -> "ClipShape":
        """The same number of frames, `factor` times as far apart."""
        return self._replace(frame_stride=self.frame_stride * factor)


def loop(indices: np.ndarray, length: int) -> np.ndarray:
    """Start again at the first frame."""
    return indices % length


def hold(indices: np.ndarray, length: int) -> np.ndarray:
    """Repeat the last frame."""
    return np.minimum(indices, length - 1)


INDEX_RULES: dict[str, IndexRule] = {"loop": loop, "hold": hold}


def _every_stride(start: int, shape: ClipShape) -> np.ndarray:
    return start + np.round(shape.frame_stride * np.arange(shape.num_frames)).astype(np.int64)


def _last_start(length: int, shape: ClipShape) -> int:
    """The last possible start of a clip that covers (T - 1) tau + 1 frames."""
    return max(length - (round((shape.num_frames - 1) * shape.frame_stride) + 1), 0)


def _last_full_start(length: int, shape: ClipShape) -> int:
    """The last possible start of a clip that covers T tau frames."""
    return max(length - math.floor(shape.num_frames * shape.frame_stride), 0)


def _dense_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """A clip at a uniformly random start, up to the clip that ends with the video."""
    return _every_stride(int(rng.integers(_last_start(length, shape) + 1)), shape)


def _dense_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Evenly spaced starts from the first to the last possible; a single clip is centered."""
    last_start = _last_start(length, shape)
    starts = np.linspace(0, last_start, num_clips) if num_clips > 1 else np.array([last_start // 2])
    return [_every_stride(int(start), shape) for start in np.round(starts)]


def _segments_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """A random frame of each of T equal segments (Wang et al., TSN); the stride is not used."""
    places = np.arange(shape.num_frames) + rng.random(shape.num_frames)
    return np.floor(places * length / shape.num_frames).astype(np.int64)


def _segments_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """The center of each of T equal segments; n clips take n evenly spaced frames instead."""
    segments = np.arange(shape.num_frames, dtype=np.int64)
    # floor(length * (segment + (clip + 1/2) / n) / T), in integers
    return [
        length * (2 * num_clips * segments + 2 * clip + 1) // (2 * num_clips * shape.num_frames)
        for clip in range(num_clips)
    ]


def _caffe2_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random start that leaves T tau frames (video-nonlocal-net)."""
    return _every_stride(int(rng.integers(_last_full_start(length, shape) + 1)), shape)


def _caffe2_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Starts at j/n of the whole video; the last clips continue at its beginning."""
    return [_every_stride(length * j // num_clips, shape) for j in range(num_clips)]


def _slowfast_clip(start: float, shape: ClipShape) -> np.ndarray:
    # Single precision, as published: truncation makes every rounding difference visible.
    last = start + shape.num_frames * shape.frame_stride - 1
    return torch.linspace(start, last, shape.num_frames).long().numpy()


def _slowfast_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """T frames spread over T tau frames from a random, fractional start (PySlowFast).

    The published sampler measures the span in seconds at 30 frames per second. Here every video
    is treated as having that rate. The frames are (T tau - 1) / (T - 1) apart, not tau.
    """
    return _slowfast_clip(rng.uniform(0, _last_full_start(length, shape)), shape)


def _slowfast_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Starts at j/n of the last possible start, so that no clip reaches the end (PySlowFast)."""
    last_start = _last_full_start(length, shape)
    return [_slowfast_clip(last_start * j / num_clips, shape) for j in range(num_clips)]


def _pytorchvideo_clip(start: int, shape: ClipShape, length: int) -> np.ndarray:
    covered = min(math.floor(shape.num_frames * shape.frame_stride), length - start)
    return start + torch.linspace(0, covered - 1, shape.num_frames).long().numpy()


def _pytorchvideo_train(shape: ClipShape, length: int, rng: np.random.Generator) -> np.ndarray:
    """T of the frames that are shown during T tau / fps seconds, evenly spaced (pytorchvideo)."""
    start = int(np.ceil(rng.uniform(0, _last_full_start(length, shape))))
    return _pytorchvideo_clip(start, shape, length)


def _pytorchvideo_test(shape: ClipShape, length: int, num_clips: int) -> list[np.ndarray]:
    """Starts at j/n of the last possible start, rounded up to the next shown frame."""
    last_start = _last_full_start(length, shape)
    starts = [-(-last_start * j // num_clips) for j in range(num_clips)]
    return [_pytorchvideo_clip(start, shape, length) for start in starts]


class ClipProtocol(NamedTuple):
    """How clips are taken in training and in testing.

    `short` is the index rule that the protocol requires; None allows every rule.
    """

    train: Callable[[ClipShape, int, np.random.Generator], np.ndarray]
    test: Callable[[ClipShape, int, int], list[np.ndarray]]
    short: str | None = None


SAMPLERS: dict[str, ClipProtocol] = {
    "dense": ClipProtocol(_dense_train, _dense_test),
    "segments": ClipProtocol(_segments_train, _segments_test),
    "caffe2": ClipProtocol(_caffe2_train, _caffe2_test, short="loop"),
    "slowfast": ClipProtocol(_slowfast_train, _slowfast_test, short="hold"),
    "mmaction2": ClipProtocol(_caffe2_train, _dense_test, short="loop"),
    "pytorchvideo": ClipProtocol(_pytorchvideo_train, _pytorchvideo_test),
}


@dataclass(frozen=True)
class RandomClip:
    """A ClipSampler that takes one random clip."""

    protocol: ClipProtocol
    shape: ClipShape
    rule: IndexRule

    def __call__(self, length: int, rng: np.random.Generator) -> list[np.ndarray]:
        return [self.rule(self.protocol.train(self.shape, length, rng), length)]

    def times(self, factor: float) -> "RandomClip":
        return replace(self, shape=self.shape.times(factor))


@dataclass(frozen=True)
class FixedClips:
    """A ClipSampler that takes clips at fixed positions and does not use the generator."""

    protocol: ClipProtocol
    shape: ClipShape
    rule: IndexRule
    num_clips: int

    def __call__(self, length: int, rng: np.random.Generator) -> list[np.ndarray]:
        clips = self.protocol.test(self.shape, length, self.num_clips)
        return [self.rule(indices, length) for indices in clips]

    def times(self, factor: float) -> "FixedClips":
        return replace(self, shape=self.shape.times(factor))


def choose_protocol(sampler: str, short: str) -> tuple[ClipProtocol, IndexRule]:
    """The protocol of SAMPLERS and the rule of INDEX_RULES with these names.

    Raises ArgumentError for an unknown name, and for a rule that the protocol does not allow.
    """
    protocol = choose("sampler", sampler, SAMPLERS)
    rule = choose("short", short, INDEX_RULES)
    if protocol.short not in (None, short):
        raise ArgumentError(
            f"short={short} is not the rule of the {sampler} sampler; choose {protocol.short}"
        )
    return protocol, rule
