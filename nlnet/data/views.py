"""The views of a video, made while its frames are read, so that few frames are in memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Window(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Transform(ABC):
    """What turns the frames of a clip into its views: squares with the side `crop_size`.

    A view is a window of each frame, resized, and then changed as a whole. Calling a transform
    does this with frames that are all in memory: uint8 (T, H, W, 3) -> uint8 (3, T, S, S) each.
    """

    crop_size: int

    @abstractmethod
    def windows(self, height: int, width: int, rng: np.random.Generator) -> list[Window]:
        """The window of each view of a clip, for frames of this size."""

    @abstractmethod
    def resized(self, frames: np.ndarray, window: Window) -> Tensor:
        """The window of each frame: (T, H, W, 3) -> (T, 3, S, S)."""

    def changed(self, view: Tensor, rng: np.random.Generator) -> Tensor:
        """The view with its random changes, after all windows are drawn: (T, 3, S, S)."""
        return view

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> list[Tensor]:
        windows = self.windows(*frames.shape[1:3], rng)
        views = [self.changed(self.resized(frames, window), rng) for window in windows]
        return [_channels_first(view) for view in views]


class ClipFrames(NamedTuple):
    """The frame numbers (T,) of a clip, and the generator of its random views."""

    numbers: np.ndarray
    rng: np.random.Generator


def wanted_numbers(clips: Sequence[ClipFrames]) -> np.ndarray:
    """The numbers of the frames of all clips: each once, rising."""
    return np.unique(np.concatenate([clip.numbers for clip in clips]))


def read_views(
    frames: Iterable[np.ndarray], clips: Sequence[ClipFrames], transform: Transform
) -> list[Tensor]:
    """All views of all clips, clip by clip: uint8 (3, T, S, S) each.

    Each frame is cropped and resized before the next one is read. If each clip has a generator of
    its own, or if nothing is random, the result is that of transforming clip after clip.

    Args:
        frames: uint8 (H, W, 3), those of `wanted_numbers`
    """
    views: list[np.ndarray] = []  # (T, S, S, 3)
    windows: list[list[Window]] = []
    for number, frame in zip(wanted_numbers(clips), frames, strict=True):
        if not views:
            windows = [transform.windows(*frame.shape[:2], clip.rng) for clip in clips]
            side = transform.crop_size
            views = [
                np.empty((len(clip.numbers), side, side, 3), np.uint8)
                for clip, its_windows in zip(clips, windows, strict=True)
                for _ in its_windows
            ]
        crops: dict[Window, np.ndarray] = {}
        view = iter(views)
        for clip, its_windows in zip(clips, windows, strict=True):
            places = np.flatnonzero(clip.numbers == number)
            for window in its_windows:
                target = next(view)
                if not places.size:
                    continue
                if window not in crops:
                    crops[window] = transform.resized(frame[None], window)[0].permute(1, 2, 0).numpy()
                target[places] = crops[window]
    generators = [
        clip.rng for clip, its_windows in zip(clips, windows, strict=True) for _ in its_windows
    ]
    return _changed(views, generators, transform)


def _changed(
    views: list[np.ndarray], generators: list[np.random.Generator], transform: Transform
) -> list[Tensor]:
    """Change each view and give its memory back before the next one."""
    views.reverse()
    done = []
    for rng in generators:
        view = torch.from_numpy(views.pop()).permute(0, 3, 1, 2)
        done.append(_channels_first(transform.changed(view, rng)))
    return done


def _channels_first(view: Tensor) -> Tensor:
    return view.transpose(0, 1).contiguous()  # (T, 3, S, S) -> (3, T, S, S)
