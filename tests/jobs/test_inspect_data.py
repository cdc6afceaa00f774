"""The picture of the clips that the network receives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nlnet.config import InspectConfig, ResNetConfig
from nlnet.errors import UsageError
from nlnet.jobs.inspect_data import describe_label, inspect_data
from nlnet.report.contact_sheet import SheetRow, write_contact_sheet


def config(root: Path, **options) -> InspectConfig:
    run = InspectConfig(name="x", model=ResNetConfig(), **options)
    run.data.root, run.data.batch_size = str(root), 4
    run.data.clip.num_frames, run.data.clip.frame_stride, run.data.clip.crop_size = 4, 2, 32
    run.data.augment.short_side = [32, 40]
    for views in (run.data.val_views, run.data.test_views):
        views.num_clips, views.num_crops, views.crop_size, views.short_side = 1, 3, 32, 32
    return run


@pytest.fixture
def videos(video_file: Callable[..., Path], tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("eat", "walk"):
            for i in range(3):
                video_file(f"{split}/{name}/{i}.mp4", num_frames=20)
    return tmp_path


@pytest.mark.parametrize(("split", "clips"), [("train", 3), ("val", 6), ("test", 2)])
def test_a_picture_has_a_row_for_each_clip(split: str, clips: int, videos: Path):
    run = config(videos, split=split, clips=clips, out=str(videos / "new" / "clips.png"))
    run.data.augment.mixup = 0.8
    path = inspect_data(run, videos)
    assert path == videos / "new" / "clips.png"
    rows = 8 + clips * (64 + 20 + 8)  # a frame is 64 pixels high, a line of text 20
    with Image.open(path) as picture:
        assert picture.size[1] == rows


def test_wrong_words_are_named(videos: Path):
    with pytest.raises(UsageError, match=r"^split=training is unknown"):
        inspect_data(config(videos, split="training"), videos)
    with pytest.raises(UsageError, match=r"^clips=0 "):
        inspect_data(config(videos, clips=0), videos)


def test_the_picture_shows_the_frames(tmp_path: Path):
    """Frames of 64 pixels are shown as they are, side by side below the text."""
    video = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    write_contact_sheet(tmp_path / "a.png", [SheetRow(video, "text")])
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture)
    for k in range(3):
        shown = pixels[28:92, 8 + 66 * k : 72 + 66 * k]
        assert np.array_equal(shown, video[:, k].permute(1, 2, 0).numpy())


def test_labels_are_named_with_their_shares():
    names = ("a", "b", "c", "d", "e")
    assert describe_label(torch.tensor(2), names) == "c"
    assert describe_label(torch.tensor([0, 0.7, 0.3, 0, 0]), names) == "b 70 % + c 30 %"
    assert describe_label(torch.tensor([1.0, 0, 1, 0, 0]), names) == "a + c"
    assert describe_label(torch.zeros(5), names) == "no label"
    assert describe_label(torch.ones(5), names) == "a + b + c ..."
