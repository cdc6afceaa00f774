"""Videos with several labels, in training and evaluation: which of three colors are in a video?"""

import csv
import json
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

Tool = Callable[..., subprocess.CompletedProcess[str]]

COLORS = ("c000 red", "c001 green", "c002 blue")
TINTS = list(product((0, 1), repeat=3))


@pytest.fixture
def colors(video_file: Callable[..., Path], tmp_path: Path) -> tuple[str, ...]:
    """The words for 16 training videos and 8 test videos, listed in the format of Charades."""
    for split, copies in (("train", 2), ("test", 1)):
        rows = ["id,actions,length"]
        for i, tint in enumerate(TINTS * copies):
            video_file(f"videos/{split}{i}.mp4", num_frames=24 + i, tint=tint)
            codes = [f"c{k:03d} 0.00 {i}.50" for k, shown in enumerate(tint) if shown]
            rows.append(f"{split}{i},{';'.join(codes)},0.8")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    (tmp_path / "classes.txt").write_text("\n".join(COLORS))
    words = [f"root={tmp_path}", "videos=videos", "classes=classes.txt", "train=train.csv"]
    return tuple(f"data.{word}" for word in [*words, "val=test.csv", "test=test.csv"])


def results(cwd: Path) -> tuple[dict, list[dict[str, str]]]:
    folder = cwd / "outputs" / "smoke" / "eval"
    with (folder / "predictions.csv").open(newline="") as file:
        return json.loads((folder / "metrics.json").read_text()), list(csv.DictReader(file))


@pytest.mark.slow
def test_evaluation_scores_all_labels(tool: Tool, colors: tuple[str, ...], tmp_path: Path):
    words = (*colors, "model.activation=sigmoid")
    steps = ("trainer.max_steps=40", "trainer.eval_every=10", "trainer.precise_bn=2")
    done = tool("train", *words, *steps, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = tmp_path / "outputs" / "smoke" / "train" / "best.pt"
    assert json.loads((best.parent / "metrics.json").read_text())["best_mean_ap"] == 100.0

    files = {}
    for num_procs in (1, 2):
        cwd = tmp_path / str(num_procs)
        cwd.mkdir()
        more = ("data.test_views.ensemble=max", f"dist.num_procs={num_procs}")
        done = tool("eval", *words, *more, f"weights={best}", cwd=cwd)
        assert done.returncode == 0, done.stderr
        changes, metrics = done.stdout.splitlines()
        assert changes.endswith("except data.test_views.ensemble mean -> max")
        assert metrics.startswith("mean_ap 100.00%")
        folder = cwd / "outputs" / "smoke" / "eval"
        files[num_procs] = [(folder / n).read_bytes() for n in ("metrics.json", "predictions.csv")]
    assert files[1] == files[2]

    metrics, rows = results(cwd)
    assert (metrics["mean_ap"], metrics["videos"]) == (100.0, 8)
    for row, tint in zip(rows, TINTS, strict=True):
        shown = [name for name, is_shown in zip(COLORS, tint, strict=True) if is_shown]
        assert row["label"] == "|".join(shown)
        assert set(row["top5"].split("|")[: len(shown)]) == set(shown)


@pytest.mark.slow
def test_the_activation_must_suit_the_labels(tool: Tool, colors: tuple[str, ...], tmp_path: Path):
    done = tool("train", *colors, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "train.csv" in done.stderr and "use model.activation=sigmoid" in done.stderr
