"""The peer of bench=data: pytorchvideo's reader with the transforms that it is used with.

The package `pytorchvideo.transforms` does not import with a current torchvision. Its functions are
therefore loaded from their file, and the two steps that it takes from torchvision (a random crop,
a random flip) are written here.
"""

import importlib.util
import warnings
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytorchvideo
from torch import Tensor

from nlnet.bench.reading.videos import RATE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pytorchvideo uses parts of torch that are deprecated
    from pytorchvideo.data.encoded_video import EncodedVideo

MEAN, STD = 0.45, 0.225


def _load_functions() -> ModuleType:
    """The module `pytorchvideo.transforms.functional`, without its package."""
    path = Path(pytorchvideo.__path__[0]) / "transforms" / "functional.py"
    spec = importlib.util.spec_from_file_location("pytorchvideo_functions", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_FUNCTIONS = _load_functions()


def read_peer_frames(path: Path, clips: list[np.ndarray]) -> list[Tensor]:
    """The frames with these numbers (T,) of each clip: float32 (3, T, H, W), from 0 to 255.

    As in `LabeledVideoDataset`, the file is opened once, and each clip is decoded on its own: all
    frames of its time, of which T are taken at equal distances.
    """
    video = EncodedVideo.from_path(str(path), decode_audio=False)
    try:
        found = []
        for numbers in clips:
            start, end = Fraction(int(numbers[0]), RATE), Fraction(int(numbers[-1]) + 1, RATE)
            frames = video.get_clip(start, end)["video"]
            found.append(_FUNCTIONS.uniform_temporal_subsample(frames, len(numbers)))
        return found
    finally:
        video.close()


def peer_training_view(
    frames: Tensor, rng: np.random.Generator, *, crop_size: int, short_side: tuple[int, int]
) -> Tensor:
    """Normalize, scale to a random short side, crop and flip: (3, T, S, S) float32."""
    shortest, longest = short_side
    video = _FUNCTIONS.short_side_scale(
        _normalized(frames), int(rng.integers(shortest, longest + 1))
    )
    top, left = (int(rng.integers(side - crop_size + 1)) for side in video.shape[2:])
    video = video[:, :, top : top + crop_size, left : left + crop_size]
    return video.flip(3) if rng.random() < 0.5 else video


def peer_views(frames: Tensor, *, crop_size: int, short_side: int) -> list[Tensor]:
    """Normalize, scale and take three crops along the longer side: (3, T, S, S) float32 each."""
    video = _FUNCTIONS.short_side_scale(_normalized(frames), short_side)
    return [_FUNCTIONS.uniform_crop(video, crop_size, place) for place in range(3)]


def levels(view: Tensor) -> Tensor:
    """The levels from 0 to 255 of a normalized view."""
    return (view * STD + MEAN) * 255


def _normalized(frames: Tensor) -> Tensor:
    return (_FUNCTIONS.div_255(frames) - MEAN) / STD
