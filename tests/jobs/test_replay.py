"""The clips of a step, rebuilt from a run folder."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from nlnet.cli.folders import claim_folder
from nlnet.clip import Failure
from nlnet.config import ResNetConfig, RunConfig, SGDConfig, StepConfig
from nlnet.data.build import build_train_loader
from nlnet.errors import UsageError, UserError
from nlnet.jobs.replay import ReplayOptions, replay
from nlnet.runs.quarantine import START, add_to_quarantine
from nlnet.runs.skipped import SkippedStep, add_skipped, clips_digest
from nlnet.trainer.bad_steps import step_clips

STEP = 3  # from 1: the first step of the second epoch


@pytest.fixture
def run(video_file: Callable[..., Path], tmp_path: Path) -> RunConfig:
    for i in range(9):
        video_file(f"data/train/{'eat' if i % 2 else 'walk'}/{i}.mp4", num_frames=20)
    run = RunConfig(name="x", model=ResNetConfig(), optim=SGDConfig(), schedule=StepConfig())
    run.trainer.epochs, run.trainer.accumulate, run.data.root = 2, 2, str(tmp_path / "data")
    run.data.batch_size, run.data.augment.mixup = 4, 0.8
    run.data.clip.num_frames, run.data.clip.frame_stride, run.data.clip.crop_size = 4, 2, 32
    run.data.augment.short_side = [32, 40]
    claim_folder(run, tmp_path / "run")
    return run


def test_the_clips_are_those_of_training_on_any_number_of_ranks(run: RunConfig, tmp_path: Path):
    folder, options = tmp_path / "run", {"seed": run.seed, "accumulate": 2}
    broken = tmp_path / "data" / "train" / "walk" / "2.mp4"
    broken.write_bytes(b"no video")
    add_to_quarantine(folder, START, [Failure(str(broken), "no video")])
    run.data.batch_size = 8  # of 8 videos: an epoch has one step
    claim_folder(run, folder)
    ranks = [
        build_train_loader(run.data, rank=rank, world_size=2, left_out=[str(broken)], **options)
        for rank in (0, 1)
    ]
    batches = [list(islice(loader.at(STEP - 1), 2)) for loader in ranks]
    parts = [batches[rank][i] for i in (0, 1) for rank in (0, 1)]
    clips = step_clips(parts, lambda row: str(ranks[0].index.path(row)))
    sha = clips_digest([clip.sha256 for clip in clips])
    files = [clip.file for clip in clips]
    add_skipped(folder, SkippedStep(STEP, 3, "nan", "nan", sha, files))

    (tmp_path / "data").rename(tmp_path / "moved")
    lines: list[str] = []
    places = {"root": tmp_path / "moved", "save": tmp_path / "x.pt", "picture": tmp_path / "x.png"}
    replay(folder, STEP, ReplayOptions(**places), lines.append)
    assert f"step {STEP} (epoch 3, step 1): 8 clips, sha256 {sha}" in lines
    assert lines[-1].startswith("equal to the clips that the run skipped")
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    assert torch.equal(saved["video"], torch.cat([part.video for part in parts]))
    assert torch.equal(saved["label"], torch.cat([part.label for part in parts]))
    assert [Path(file).name for file in saved["files"]] == [Path(file).name for file in files]
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size[1] == 8 + 8 * (64 + 20 + 8)


def test_other_clips_are_an_error(run: RunConfig, tmp_path: Path):
    add_skipped(tmp_path / "run", SkippedStep(STEP, 2, "nan", "nan", "0" * 64, ["a.mp4"]))
    with pytest.raises(UserError, match=r"skipped\.json: the clips of step 3 were others"):
        replay(tmp_path / "run", STEP, ReplayOptions(), print)


def test_wrong_words_are_errors(run: RunConfig, tmp_path: Path):
    with pytest.raises(UsageError, match=r"^STEP=0 "):
        replay(tmp_path / "run", 0, ReplayOptions(), print)
    with pytest.raises(UserError, match=r"config\.yaml: cannot be read"):
        replay(tmp_path, 1, ReplayOptions(), print)
