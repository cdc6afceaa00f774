"""A data worker that ends is one clear error."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.config import ClipConfig, DataConfig
from nlnet.data.build import build_train_loader
from nlnet.errors import UserError
from nlnet.jobs.worker_failures import named_worker_failures


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_is_named(
    sent: signal.Signals, video_file: Callable[..., Path], tmp_path: Path
):
    for i in range(24):
        video_file(f"train/walk/{i}.mp4", num_frames=10, size=(32, 32))
    cfg = DataConfig(root=str(tmp_path), batch_size=2, num_workers=1)
    cfg.clip = ClipConfig(num_frames=2, frame_stride=1, crop_size=16)
    cfg.augment.short_side = [20, 20]
    loader = build_train_loader(cfg, seed=0, accumulate=1, rank=0, world_size=1)
    batches = loader.at(0)
    next(batches)
    (worker,) = loader._batches._iterator._workers
    start = time.monotonic()
    with (
        pytest.raises(UserError, match=rf"^[^\n]*id {worker.pid} [^\n]*data\.num_workers[^\n]*$"),
        named_worker_failures(),
    ):
        os.kill(worker.pid, sent)
        worker.join()
        list(batches)
        time.sleep(1)
    assert time.monotonic() - start < 30


def test_another_error_passes_unchanged():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as caught, named_worker_failures():
        raise error
    assert caught.value is error
