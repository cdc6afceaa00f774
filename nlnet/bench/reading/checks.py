"""All readers must give the same frames and nearly the same views before they are timed."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nlnet.bench.reading.prepared import Files
from nlnet.bench.reading.pytorchvideo_reader import levels, read_peer_frames
from nlnet.bench.reading.readers import Read, Work
from nlnet.data.decoding.opening import open_video
from nlnet.data.index.video_index import VideoIndex

MOST_LEVELS = 2.0  # mean difference of frames and of views without chance, of 255 levels
MOST_PREPARED = 8.0  # the same for a file that was encoded again


def largest_differences(
    readers: Mapping[str, Read],
    files: Files,
    clips: Sequence[np.ndarray],
    *,
    crop_size: int,
) -> dict[str, float]:
    """The largest mean difference, over clips of one video, from the frames and views of nlnet.

    Raises RuntimeError if one of them is too large: then the readers do not do the same work.
    """
    original, prepared = files["original"], files["prepared"]
    path = original.path(0)
    found = {"frames of pytorchvideo": 0.0, "frames of the prepared file": 0.0}
    found |= {f"views of {name}": 0.0 for name in readers if name != "nlnet"}
    work = Work(crop_size, is_test=True)
    for numbers in clips:
        with open_video(path) as video, open_video(prepared.path(0)) as other:
            ours, again = video.read(numbers), other.read(numbers)
        [peer] = read_peer_frames(path, [numbers])
        differences = {
            "frames of pytorchvideo": _difference(ours, peer.permute(1, 2, 3, 0).numpy()),
            "frames of the prepared file": _difference(ours, again),
        }
        views = {name: _test_views(read, original, numbers, work) for name, read in readers.items()}
        for name, view in views.items():
            if name != "nlnet":
                difference = _difference(views["nlnet"].numpy(), view.numpy())
                differences[f"views of {name}"] = difference
        found = {name: max(found[name], differences[name]) for name in found}
    for name, difference in found.items():
        most = MOST_PREPARED if "prepared" in name else MOST_LEVELS
        if difference > most:
            raise RuntimeError(f"{name} differ by {difference:.2f} levels, more than {most}")
    return found


def _test_views(read: Read, index: VideoIndex, numbers: np.ndarray, work: Work) -> Tensor:
    """The three crops of a clip (3, 3, T, S, S), from 0 to 255."""
    views = torch.stack(read(index, 0, [numbers], work, np.random.default_rng(0)))
    return views if views.dtype == torch.uint8 else levels(views)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())
