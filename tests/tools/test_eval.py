"""tools/eval.py as a command: its words, its files and its errors."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from nlnet.report.statistics import hits, ranking
from nlnet.runs.environment import read_environment
from nlnet.runs.scores import read_scores

Tool = Callable[..., subprocess.CompletedProcess[str]]


def results(cwd: Path) -> tuple[dict, list[dict[str, str]]]:
    folder = cwd / "outputs" / "smoke" / "eval"
    with (folder / "predictions.csv").open(newline="") as file:
        return json.loads((folder / "metrics.json").read_text()), list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(tool: Tool, trained: Path, tmp_path_factory) -> Path:
    """The folder in which one process has scored the test split."""
    cwd = tmp_path_factory.mktemp("eval")
    done = tool("eval", f"weights={trained / 'best.pt'}", "data.test=test", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    top1 = results(cwd)[0]["top1"]
    assert done.stdout.startswith(f"top1 {top1:.2f}%  top5 100.00%")
    assert done.stdout.endswith("; outputs/smoke/eval/metrics.json\n")
    return cwd


def test_the_metrics_follow_from_the_rows(alone: Path):
    metrics, rows = results(alone)
    assert (metrics["videos"], metrics["views"], metrics["unreadable"]) == (7, 3, 0)
    right = [row["label"] == row["prediction"] for row in rows]
    assert metrics["top1"] == 100 * (sum(right) / 7)
    assert len({row["video"] for row in rows}) == 7
    assert {row["label"] for row in rows} == {"different", "same"}
    assert all(row["views"] == "3" and 0.5 <= float(row["score"]) <= 1 for row in rows)


def test_the_scores_give_the_metrics_and_the_rows(alone: Path):
    """Top-1 and top-5 with equal bits: an integer count over 7."""
    metrics, rows = results(alone)
    scores = read_scores(alone / "outputs" / "smoke" / "eval" / "scores.npz")
    for name, k in (("top1", 1), ("top5", 5)):
        assert 100 * hits(scores.totals, scores.labels, k).mean() == metrics[name]
    assert scores.paths == [row["video"] for row in rows]
    names = [scores.class_names[k] for k in ranking(scores.totals, 1)[:, 0]]
    assert names == [row["prediction"] for row in rows]
    assert [f"{max(row):.6f}" for row in scores.probabilities] == [row["score"] for row in rows]
    assert scores.view_video.tolist() == [video for video in range(7) for _ in range(3)]
    assert scores.view_clip.tolist() == [0] * 21
    assert scores.view_crop.tolist() == [0, 1, 2] * 7
    sums = scores.views.astype(np.float64).reshape(7, 3, 2).sum(1)
    np.testing.assert_allclose(sums, scores.totals, rtol=2**-10)  # views are float16
    environment = read_environment(alone / "outputs" / "smoke" / "eval")
    assert environment is not None and "data.test=test" in environment.command


def test_two_ranks_write_the_same_files(tool: Tool, trained: Path, alone: Path, tmp_path: Path):
    """The same bytes, for an odd number of videos: all views of a video are summed on one rank."""
    words = (f"weights={trained / 'best.pt'}", "data.test=test", "dist.num_procs=2")
    done = tool("eval", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.json", "predictions.csv", "scores.npz"):
        one, two = (cwd / "outputs" / "smoke" / "eval" / name for cwd in (alone, tmp_path))
        assert one.read_bytes() == two.read_bytes()


def test_a_file_without_class_names_says_in_which_order_they_are_taken(
    tool: Tool, trained: Path, alone: Path, tmp_path: Path
):
    torch.save({"model": torch.load(trained / "best.pt")["model"]}, tmp_path / "bare.pt")
    done = tool("eval", "weights=bare.pt", "data.test=test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[0]
    assert line.startswith("bare.pt: names no classes") and "(different, same)" in line
    assert results(tmp_path)[1] == results(alone)[1]


def settings_of(cwd: Path) -> dict:
    return yaml.safe_load((cwd / "outputs" / "smoke" / "eval" / "config.yaml").read_text())


def test_the_checkpoint_alone_is_enough(tool_alone: Tool, trained: Path, alone: Path, tmp_path):
    """Network, clips, views, data and name are the checkpoint's; the results are the same bytes."""
    done = tool_alone("eval", f"weights={trained / 'best.pt'}", "dist.device=cpu", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "except" not in done.stdout
    for name in ("metrics.json", "predictions.csv"):
        one, two = (cwd / "outputs" / "smoke" / "eval" / name for cwd in (alone, tmp_path))
        assert one.read_bytes() == two.read_bytes()
    assert settings_of(tmp_path)["model"] == settings_of(alone)["model"]


def test_words_change_the_settings_of_the_checkpoint(
    tool_alone: Tool, trained: Path, copy_of_videos: Path, tmp_path: Path
):
    words = (f"weights={trained / 'best.pt'}", f"data.root={copy_of_videos}", "dist.num_procs=2")
    more = ("clip=4x16", "data.test_views.num_clips=2", "dist.device=cpu", "name=other")
    done = tool_alone("eval", *words, *more, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("the checkpoint's settings, except ")
    for change in (
        "data.clip.num_frames 8 -> 4",
        "data.clip.frame_stride 1 -> 16",
        "data.test_views.num_clips 1 -> 2",
    ):
        assert change in first
    folder = tmp_path / "outputs" / "other" / "eval"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["views"], metrics["videos"]) == (6, 7)


@pytest.mark.slow
def test_another_network_is_refused_without_an_experiment_too(
    tool_alone: Tool, trained: Path, tmp_path: Path
):
    done = tool_alone("eval", f"weights={trained / 'best.pt'}", "block=dot_product", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "embedded_gaussian -> dot_product" in done.stderr


@pytest.mark.slow
def test_data_that_are_not_on_this_machine_must_be_given(
    tool_alone: Tool, trained: Path, tmp_path: Path
):
    """A checkpoint that was copied to another machine names a folder that does not exist there."""
    saved = torch.load(trained / "best.pt", weights_only=True)
    config = yaml.safe_load(saved["provenance"]["config"])
    config["data"]["root"] = "/nowhere"
    saved["provenance"]["config"] = yaml.safe_dump(config)
    torch.save(saved, tmp_path / "copy.pt")
    done = tool_alone("eval", "weights=copy.pt", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "is not set" in done.stderr


@pytest.mark.slow
def test_weights_that_are_not_finite_have_no_accuracy(tool: Tool, trained: Path, tmp_path: Path):
    saved = torch.load(trained / "best.pt", weights_only=True)
    saved["model"]["head.fc.bias"][0] = float("nan")
    torch.save(saved, tmp_path / "nan.pt")
    done = tool("eval", "weights=nan.pt", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "scores of the network are not finite" in done.stderr and "top1" not in done.stdout


def spoil(root: Path) -> Path:
    path = root / "test" / "same" / "000003.mp4"
    path.write_bytes(b"no video")
    return path


@pytest.mark.slow
def test_an_unreadable_video_is_an_error(
    tool: Tool, trained: Path, copy_of_videos: Path, tmp_path: Path
):
    path = spoil(copy_of_videos)
    words = (f"weights={trained / 'best.pt'}", "data.test=test", f"data.root={copy_of_videos}")
    done = tool("eval", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert str(path) in done.stderr and "data.allow_bad=true" in done.stderr


@pytest.mark.slow
def test_an_unreadable_video_counts_as_wrong_if_that_is_allowed(
    tool: Tool, trained: Path, copy_of_videos: Path, alone: Path, tmp_path: Path
):
    path = spoil(copy_of_videos)
    words = (f"weights={trained / 'best.pt'}", "data.test=test", f"data.root={copy_of_videos}")
    # one video in a batch, so that one batch has no views
    more = ("data.allow_bad=true", "data.test_views.batch_size=1")
    done = tool("eval", *words, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"unreadable, counted as wrong: {path}" in done.stdout
    metrics, rows = results(tmp_path)
    assert (metrics["videos"], metrics["unreadable"]) == (7, 1)
    truth = {Path(row["video"]).parts[-2:]: row for row in results(alone)[1]}
    right = 0
    for row in rows:
        name = Path(row["video"]).parts[-2:]
        if name == path.parts[-2:]:
            assert (row["prediction"], row["views"], row["top5"]) == ("", "0", "")
        else:
            assert row["prediction"] == truth[name]["prediction"]
            right += row["prediction"] == row["label"]
    assert metrics["top1"] == 100 * (right / 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        ([], 2, "weights is not set"),
        (["weights=gone.pt"], 1, "gone.pt"),
        (["weights={best}", "model.conv1_kernel=[5,7,7]"], 1, "another network"),
        (["weights={best}", "model.non_local.res2=[0]"], 1, "another network"),
        (["weights={best}", "model.width=16"], 1, "another network"),
        (["weights={best}", "data.test=gone"], 1, "gone"),
        (["weights={best}", "data.clip.num_frames=1"], 2, "clips of 1 frames"),
        (["data.test_views.ensemble=median"], 2, "data.test_views.ensemble=median"),
        (["weights={best}", "block=dot_product"], 1, "embedded_gaussian -> dot_product"),
    ],
)
def test_a_mistake_costs_one_line(
    tool: Tool, trained: Path, tmp_path: Path, words: list[str], code: int, named: str
):
    given = [word.format(best=trained / "best.pt") for word in words]
    done = tool("eval", *given, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert named in done.stderr
