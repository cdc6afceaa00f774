"""A worker that decodes many clips keeps its memory and its open files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.config import ClipConfig, DataConfig
from nlnet.data.build import build_train_loader

CLIPS = 6000
PER_THOUSAND = 2 * 2**20  # bytes of resident memory that 1,000 clips may add


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.slow
def test_a_worker_keeps_its_memory_and_its_open_files(
    video_file: Callable[..., Path], tmp_path: Path
):
    for i in range(20):
        video_file(f"train/walk/{i}.mp4", num_frames=16, size=(64, 80))
    (tmp_path / "train" / "walk" / "bad.mp4").write_bytes(b"no video")
    cfg = DataConfig(root=str(tmp_path), batch_size=20, num_workers=1)
    cfg.clip = ClipConfig(num_frames=4, frame_stride=2, crop_size=32)
    cfg.augment.short_side, cfg.augment.rand_augment, cfg.augment.mixup = [40, 40], 1, 0.8
    loader = build_train_loader(cfg, seed=0, accumulate=1, rank=0, world_size=1)
    memory, files = [], []
    for epoch in range((1000 + CLIPS) // 20):
        for batch in loader.at(epoch):
            assert len(batch.label) == 20
        if epoch >= 50:  # 1,000 clips to warm up
            (worker,) = loader._batches._iterator._workers
            memory.append(resident(worker.pid))
            files.append(open_files(worker.pid))
    assert max(memory[-10:]) - max(memory[:10]) < CLIPS / 1000 * PER_THOUSAND
    # A batch on its way to the other process holds a shared memory file and sockets for a moment:
    # the smallest of ten counts is what stays open.
    assert min(files[-10:]) <= min(files[:10])
    print(f"{(memory[-1] - memory[0]) / 2**20:.1f} MB more after {CLIPS} clips, {files[-1]} files")
