"""An evaluation without crops: `protocol=full`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from nlnet.config import ClipConfig, DataConfig, NonLocalConfig, ResNetConfig, ViewsConfig
from nlnet.data.build import build_eval_loader
from nlnet.model.build import build_model
from nlnet.trainer.loop import evaluate
from nlnet.trainer.metrics import VideoScores

SIZES = [(48, 64), (64, 48), (96, 128)]  # height, width


def test_scores_are_those_of_one_view_at_a_time(video_file: Callable[..., Path], tmp_path: Path):
    """Videos of different forms, in clips that overlap; batches have one size each."""
    for i, size in enumerate(SIZES):
        tint = (i == 0, i == 1, i == 2)
        name = f"val/{'run' if i % 2 else 'walk'}/{i}.mp4"
        video_file(name, size=size, num_frames=12, tint=tint)
    cfg = DataConfig(root=str(tmp_path), train="val", num_workers=0)
    cfg.clip = ClipConfig(num_frames=4, frame_stride=2, crop_size=32)
    torch.manual_seed(0)
    model = build_model(ResNetConfig(depth=14, non_local=NonLocalConfig(res3=[0])), 2)
    views = ViewsConfig(2, 1, 48, 48, batch_size=8, crops="whole")
    found = []
    for batch_size in (8, 1):
        loader = build_eval_loader(
            cfg, "val", replace(views, batch_size=batch_size), rank=0, world_size=1
        )
        sizes = [tuple(batch.video.shape[3:]) for batch in loader]
        scaled = [(48 * h // min(h, w), 48 * w // min(h, w)) for h, w in SIZES]
        assert sorted(sizes) == sorted(scaled)
        scores = VideoScores(torch.from_numpy(loader.index.labels), 2)
        evaluate(model, loader, scores, device=torch.device("cpu"), chunk=batch_size)
        assert scores.num_views.tolist() == [2] * len(SIZES)
        found.append(scores.totals)
    torch.testing.assert_close(found[0], found[1])  # sums in another order
    assert found[0].std(0).min() > 0  # videos differ
