"""The readers that bench=data compares: each gives the views of the same clips of a video."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlnet.bench.reading.pytorchvideo_reader import (
    peer_training_view,
    peer_views,
    read_peer_frames,
)
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.torchcodec import check_torchcodec
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.transforms import CROPS, EvalTransform, JitterCrop, TrainTransform
from nlnet.data.views import ClipFrames, Transform, read_views, wanted_numbers
from nlnet.errors import UserError

SHORT_SIDE = (256, 320)  # of a training view, before it is cropped
TEST_SIDE = 256


class Work(NamedTuple):
    """What is done with the clips of a video."""

    crop_size: int
    is_test: bool = False  # three crops; else one random view
    decode_only: bool = False


# Videos and the number of one of them, the frame numbers of its clips, what to do, a generator ->
# all views, clip by clip
Read = Callable[[VideoIndex, int, list[np.ndarray], Work, np.random.Generator], list[Tensor]]


def read_ours(
    index: VideoIndex, i: int, numbers: list[np.ndarray], work: Work, rng: np.random.Generator
) -> list[Tensor]:
    """As nlnet/data/dataset.py reads a video: uint8 views, which the device normalizes."""
    clips = [ClipFrames(clip, rng) for clip in numbers]
    with open_video(index.path(i), index.open(i), known=index.known(i)) as video:
        frames = video.frames(wanted_numbers(clips))
        return _count(frames) if work.decode_only else read_views(frames, clips, our_views(work))


def read_pytorchvideo(
    index: VideoIndex, i: int, numbers: list[np.ndarray], work: Work, rng: np.random.Generator
) -> list[Tensor]:
    """As pytorchvideo's users read a video: normalized float32 views."""
    clips = read_peer_frames(index.path(i), numbers)
    if work.decode_only:
        return _count(clips)
    if work.is_test:
        views = (peer_views(clip, crop_size=work.crop_size, short_side=TEST_SIDE) for clip in clips)
        return [view for clip_views in views for view in clip_views]
    size = work.crop_size
    return [peer_training_view(c, rng, crop_size=size, short_side=SHORT_SIDE) for c in clips]


def read_torchcodec(
    index: VideoIndex, i: int, numbers: list[np.ndarray], work: Work, rng: np.random.Generator
) -> list[Tensor]:
    """torchcodec's reader with one thread, then the transform of nlnet."""
    from torchcodec.decoders import VideoDecoder

    clips = [ClipFrames(clip, rng) for clip in numbers]
    decoder = VideoDecoder(str(index.path(i)), dimension_order="NHWC", num_ffmpeg_threads=1)
    frames = decoder.get_frames_at(wanted_numbers(clips).tolist()).data.numpy()
    return _count(frames) if work.decode_only else read_views(frames, clips, our_views(work))


def our_views(work: Work) -> Transform:
    """The transform of nlnet, with its default settings."""
    if work.is_test:
        return EvalTransform(work.crop_size, TEST_SIDE, 3, CROPS["ceiled"])
    return TrainTransform(JitterCrop(work.crop_size, *SHORT_SIDE), work.crop_size, True, 0.0)


def _count(frames: Iterable[object]) -> list[Tensor]:
    """Take all frames, and return how many there are."""
    return [torch.tensor(sum(1 for _ in frames))]


def find_readers() -> tuple[dict[str, Read], str | None]:
    """The readers of this installation, and a line about the one that is absent."""
    readers: dict[str, Read] = {"nlnet": read_ours, "pytorchvideo": read_pytorchvideo}
    try:
        check_torchcodec()
    except UserError as error:
        return readers, f"Rows of torchcodec are left out: {error}"
    return readers | {"torchcodec": read_torchcodec}, None
