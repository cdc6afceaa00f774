"""The report with the attention of the network that was evaluated: the demonstration."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nlnet.checkpoint import Checkpoint, current_provenance, write_checkpoint
from nlnet.config import run_text
from nlnet.demo import CHECKPOINT, VIDEOS
from nlnet.errors import UserError
from nlnet.jobs.evaluate import evaluate_run
from nlnet.jobs.report import ReportOptions, attention_of, report
from nlnet.model.build import build_model
from nlnet.recognizer.attention import ALL
from nlnet.recognizer.faithfulness import deletion
from nlnet.recognizer.load import load_recognizer, read_trained
from nlnet.report.page import RunPart, write_report
from nlnet.report.runs import EvaluatedRun, read_run_folder
from tests.report.test_page import CHROMIUM, console

BLOCKS = ["res3.nl0", "res3.nl1"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the demonstration was evaluated in, by relative paths; one label is wrong."""
    work = tmp_path_factory.mktemp("work")
    for video, label in zip(VIDEOS, ("same", "different"), strict=True):
        for name in {label, "different"}:
            (work / "data" / "test" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(video, work / "data" / "test" / name / video.name)
    shutil.copy(CHECKPOINT, work / "best.pt")
    run = read_trained("demo").run
    data = replace(run.data, root="data", test="test", num_workers=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        evaluate_run(replace(run, data=data, weights="best.pt"), Path("outputs/demo/eval"))
    yield work


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder, which the report is started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copy(work: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(work, tmp_path / "copy"))


OPTIONS = ReportOptions(out=None, data_root=None, attention=True, score_videos=10)


def parts_of(work: Path, count: int = 1) -> tuple[str, RunPart]:
    """The text of the page, and its only run."""
    run = work / "outputs" / "demo"
    out, (part,) = write_report([run], attention_of=lambda run: attention_of(run, count))
    return out.read_text(), part


def test_a_wrong_video_shows_what_each_block_attends_to(copy: Path, elsewhere: Path):
    text, part = parts_of(copy)
    (case,) = part.worst
    assert case.preview.uri is not None
    assert [picture.title.split(",")[0] for picture in case.pictures] == BLOCKS
    for picture in case.pictures:
        assert picture.title in text and picture.uri in text
        assert picture.uri.startswith("data:image/webp;base64,")


def test_the_deletion_scores_are_those_of_each_video(work: Path):
    run = read_run_folder(work / "outputs" / "demo")
    found = attention_of(run, 2).scores  # the first and the last third of three videos
    recognizer = load_recognizer("demo", device="cpu")
    areas: dict[str, list[float]] = {}
    for video in (run.file(0), run.file(2)):
        for each in recognizer.attention(str(video), ALL).maps:
            curve = deletion(recognizer.model, recognizer.clip(str(video)), each)
            areas.setdefault(each.layer, []).append(curve.area_between)
    assert [score.layer for score in found] == list(areas) == BLOCKS
    for score in found:
        wanted = areas[score.layer]
        assert score.mean_area == pytest.approx(sum(wanted) / 2, abs=1e-5)
        assert score.share_faster == sum(area > 0 for area in wanted) / 2
        assert 0 <= min(score.probabilities) <= max(score.probabilities) <= 1


def test_no_scores_if_none_are_asked_for(work: Path):
    assert attention_of(read_run_folder(work / "outputs" / "demo"), 0).scores == []


def test_the_report_says_that_the_checkpoint_is_gone(
    copy: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
):
    (copy / "best.pt").unlink()
    report([copy / "outputs" / "demo"], OPTIONS)
    page = copy / "outputs" / "demo" / "eval" / "report.html"
    said = capsys.readouterr().out.splitlines()
    assert said[1].strip().startswith("No attention is shown: best.pt: no such file")
    assert said[1].strip() in page.read_text().replace("&#39;", "'")
    assert said[2] == str(page)


def test_the_report_says_that_the_videos_are_gone(
    copy: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
):
    (copy / "data").rename(copy / "moved")
    report([copy / "outputs" / "demo"], OPTIONS)
    said = capsys.readouterr().out.splitlines()
    assert said[1].strip().startswith("1 of the 1 wrong videos shown are not below data;")
    report([copy / "outputs" / "demo"], replace(OPTIONS, data_root=copy / "moved", score_videos=0))
    assert len(capsys.readouterr().out.splitlines()) == 2
    text = (copy / "outputs" / "demo" / "eval" / "report.html").read_text()
    assert text.count('alt="Attention of res3.nl') == 2


def test_a_run_that_was_moved_has_its_checkpoint_beside_it(copy: Path, elsewhere: Path):
    (copy / "outputs" / "demo" / "train").mkdir()
    (copy / "best.pt").rename(copy / "outputs" / "demo" / "train" / "best.pt")
    assert attention_of(read_run_folder(copy / "outputs" / "demo"), 0).recognizer is not None


def test_no_attention(copy: Path, elsewhere: Path):
    (copy / "best.pt").unlink()  # it is not read
    report([copy / "outputs" / "demo"], replace(OPTIONS, attention=False))
    text = (copy / "outputs" / "demo" / "eval" / "report.html").read_text()
    assert "<h3>Attention</h3>" not in text and 'alt="Attention' not in text


@pytest.mark.parametrize("block", [None, "compact_generalized"])
def test_a_network_without_rows_gets_gradcam(work: Path, tmp_path: Path, block: str | None):
    run = other_network(read_run_folder(work / "outputs" / "demo"), tmp_path / "other.pt", block)
    shown = attention_of(run, 1)
    assert "Grad-CAM" in shown.note
    cause = "the network has no non-local block" if block is None else "has no weights between"
    assert cause in shown.note
    assert [picture.title for picture in shown.pictures(run.file(0))] == ["res5"]
    assert [score.layer for score in shown.scores] == ["res5"]


def other_network(run: EvaluatedRun, path: Path, block: str | None) -> EvaluatedRun:
    """The same evaluation with random weights of another network."""
    blocks = run.config.model.non_local
    blocks = replace(blocks, res3=[]) if block is None else replace(blocks, block=block)
    config = replace(run.config, model=replace(run.config.model, non_local=blocks))
    torch.manual_seed(0)
    state = build_model(config.model, 2).state_dict()
    names = run.scores.class_names
    write_checkpoint(path, Checkpoint(state, current_provenance(run_text(config), names)))
    return replace(run, config=replace(config, weights=str(path)))


def test_a_checkpoint_of_another_network_is_named(work: Path, tmp_path: Path):
    run = read_run_folder(work / "outputs" / "demo")
    other = other_network(run, tmp_path / "other.pt", None)
    mixed = replace(run, config=replace(run.config, weights=other.config.weights))
    assert re.match(
        r"No attention is shown: .*other\.pt: .*another network", attention_of(mixed, 0).note
    )


def test_a_run_without_evaluation_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="has no evaluation"):
        report([tmp_path], OPTIONS)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_reports_no_error(copy: Path):
    report([copy / "outputs" / "demo"], OPTIONS)
    assert list(console(copy / "outputs" / "demo" / "eval" / "report.html")) == []
