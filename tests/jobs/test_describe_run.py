"""What the log of a run says about its data."""

from collections.abc import Callable
from pathlib import Path

import torch

from nlnet.config import ClipConfig, ResNetConfig, RunConfig, SGDConfig, StepConfig
from nlnet.data.build import build_eval_loader, build_train_loader
from nlnet.jobs.describe_run import describe_data


def lines(root: Path) -> list[str]:
    run = RunConfig(name="x", model=ResNetConfig(), optim=SGDConfig(), schedule=StepConfig())
    cfg = run.data
    cfg.root, cfg.batch_size, cfg.num_workers = str(root), 2, 0
    cfg.clip = ClipConfig(num_frames=2, frame_stride=1, crop_size=16)
    cfg.augment.short_side = [20, 20]
    loader = build_train_loader(cfg, seed=0, accumulate=1, rank=0, world_size=1)
    val_loader = build_eval_loader(cfg, "val", cfg.val_views, rank=0, world_size=1)
    return describe_data(run, loader, val_loader, 3, torch.device("cpu"))


def test_a_single_class_is_named(video_file: Callable[..., Path], tmp_path: Path):
    for name in ("train/walk/a", "train/walk/b", "val/walk/c"):
        video_file(f"{name}.mp4", num_frames=10, size=(32, 32))
    said = lines(tmp_path)
    assert "2 videos of 1 classes to train on, 1 to validate on; 3 steps of 2 clips" in said[0]
    assert "there is one class only, walk, and nothing to learn" in said[1]
    video_file("train/run/d.mp4", num_frames=10, size=(32, 32))
    assert not any("one class only" in line for line in lines(tmp_path))
