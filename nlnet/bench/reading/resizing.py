"""The time from the frames of a clip to what a worker hands over."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nlnet.bench.reading.pytorchvideo_reader import peer_training_view
from nlnet.bench.reading.readers import SHORT_SIDE, Work, our_views
from nlnet.bench.reading.rounds import Spread, spread_of
from nlnet.data.views import ClipFrames, read_views

CALLS = 20  # of each form in a round; each call draws another crop


def resize_share(frames: np.ndarray, crop_size: int, rounds: int) -> tuple[float, Spread]:
    """Seconds of float-then-resize, and the share that crop, then resize in uint8 takes of it.

    Both make one training view of frames (T, H, W, 3) with one thread; ours as a worker makes it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transform = our_views(Work(crop_size))
    rng = np.random.default_rng(0)
    numbers = np.arange(len(frames))

    def ours() -> Tensor:
        return read_views(frames, [ClipFrames(numbers, rng)], transform)[0]

    def theirs() -> Tensor:
        video = torch.from_numpy(frames).permute(3, 0, 1, 2).float()
        return peer_training_view(video, rng, crop_size=crop_size, short_side=SHORT_SIDE)

    try:
        ours(), theirs()
        rows = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    finally:
        torch.set_num_threads(threads)
    return spread_of([row[1] for row in rows]).middle, spread_of([row[0] / row[1] for row in rows])


def _seconds(call: Callable[[], Tensor]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - start) / CALLS
