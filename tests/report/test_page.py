"""The page of a report: its numbers are those of the evaluation, and it needs no network."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from nlnet.clip import ManifestUse
from nlnet.errors import UserError
from nlnet.report.page import RunPart, write_report
from nlnet.report.plots import views_plot
from nlnet.report.previews import animation, preview
from nlnet.report.runs import read_run_folder
from nlnet.report.statistics import ViewPoint, mcnemar
from tests.cli.commands import tool
from tests.conftest import write_gray_video
from tests.report.runs import CLASSES, UNREADABLE, evaluated_run, made_up_scores, metrics_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
NUM_FILES = 8  # videos that exist; the scores name 20


class Page(HTMLParser):
    """The marked numbers, the links and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run, self.metrics, self.p_values = "", {}, []
        self.links, self.texts, self.tags = [], [], []
        self.feed(path.read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.run = found.get("data-run") or self.run
        if "data-metric" in found:
            self.metrics[self.run, found["data-metric"]] = float(found["data-value"] or "nan")
        if "data-p" in found:
            self.p_values.append(float(found["data-p"] or "nan"))
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def make_videos(root: Path) -> Path:
    """Some of the videos that the scores name."""
    (root / "val").mkdir(parents=True)
    for i in range(NUM_FILES):
        write_gray_video(root / "val" / f"{i:03d}.mp4", num_frames=12)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(tmp_path: Path, root: Path) -> Path:
    """A run that a test may change."""
    return evaluated_run(tmp_path / "one", root, made_up_scores(root), "one")


class Written(NamedTuple):
    """Two runs, the file of their report, and what it says of each."""

    folders: tuple[Path, Path]
    out: Path
    parts: list[RunPart]
    page: Page


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Written:
    """A report of two runs that no test changes."""
    folder = tmp_path_factory.mktemp("both")
    one = evaluated_run(folder / "one", root, made_up_scores(root), "one")
    two = evaluated_run(folder / "two", root, made_up_scores(root, seed=1), "two")
    out, parts = write_report([one, two], folder / "both.html")
    return Written((one, two), out, parts, Page(out))


def test_the_numbers_are_those_of_metrics_json(both: Written):
    text, found = " ".join(both.page.texts), both.page.metrics
    for title, folder in zip(("one", "two"), both.folders, strict=True):
        metrics, found = (
            json.loads((folder / "eval" / "metrics.json").read_text()),
            both.page.metrics,
        )
        for name in ("top1", "top5", "videos", "views", "unreadable", "missing"):
            assert found[title, name] == metrics[name]
        assert found[title, "mean_class"] == pytest.approx(metrics["mean_class"], rel=1e-12)
        for name in ("top1", "top5", "mean_class"):
            assert f"{metrics[name]:.2f} %" in text
        for name in ("protocol", "split", "weights"):
            assert metrics[name] in text
    assert found["one", "top1"] != found["two", "top1"]


def test_the_main_metric_is_the_recorded_one_and_not_the_first(tmp_path: Path, root: Path):
    """For the order of the metrics, and for the plot of the number of views."""
    scores = made_up_scores(root, videos=17)  # the classes have different numbers of videos
    run = evaluated_run(tmp_path / "run", root, scores, "run", main="mean_class")
    metrics = json.loads((run / "eval" / "metrics.json").read_text())
    assert next(iter(metrics)) == "top1" and metrics["top1"] != metrics["mean_class"]
    out, (part,) = write_report([run])
    assert list(part.analysis.metrics) == ["mean_class", "top1", "top5"]
    value = pytest.approx(metrics["mean_class"] / 100, rel=1e-12)
    assert part.analysis.by_views[-1].value == value
    assert part.summary.startswith(f"run: mean_class {metrics['mean_class']:.2f}%")
    assert "Mean class accuracy (%)" in out.read_text()  # the axis of the plot
    assert "Mean class accuracy against the number of views" in out.read_text()


def test_a_main_metric_that_the_report_does_not_know_is_shown_with_its_value(run: Path):
    path = run / "eval" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"f1": 12.5, "main_metric": "f1"}))
    out, (part,) = write_report([run])
    assert part.analysis.main == "top1"
    assert "f1 (12.50 %)" in " ".join(Page(out).texts)


def test_one_clip_has_a_tick_of_its_number():
    points = [ViewPoint(1, 1, 0.5), ViewPoint(1, 3, 0.75)]
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", views_plot({"run": points}, "Top-1"))
    assert "1" in ticks and "1.02" not in ticks and "0.98" not in ticks


def test_runs_of_different_main_metrics_have_no_common_plot_of_it(tmp_path: Path, root: Path):
    one, two = (
        evaluated_run(tmp_path / main, root, made_up_scores(root), main, main=main)
        for main in ("top1", "mean_class")
    )
    page = Page(write_report([one, two])[0])
    assert not any("The main metric against" in text for text in page.texts)
    assert page.metrics["mean_class", "top1"] == page.metrics["top1", "top1"]


def test_two_runs_side_by_side(both: Written):
    wanted = mcnemar(both.parts[0].analysis.right, both.parts[1].analysis.right)
    assert both.page.p_values == [wanted.p_value]


def test_the_page_says_how_it_was_made_and_what_was_wrong(both: Written):
    text = " ".join(both.page.texts)
    assert both.parts[0].run.videos_digest in text
    assert "moov atom <not> found" in text and "no video stream" in text
    assert "1 of 64 clips could not be read" in text
    assert "3 videos of the split train have no file" in text
    assert "pytest" in text  # the command
    assert "num_clips" in text  # the configuration


def test_names_are_escaped(both: Written):
    assert any("<b>swipe</b>" in text for text in both.page.texts)
    assert any("delete & x" in text for text in both.page.texts)


def test_the_page_needs_no_network(both: Written):
    assert both.page.links
    outside = [link for link in both.page.links if not link.startswith(("data:", "#"))]
    assert outside == []
    # Names of XML namespaces are not fetched.
    addresses = set(re.findall(r"https?://[^\"'\s<)]+", both.out.read_text()))
    assert all(each.startswith("http://www.w3.org/") for each in addresses), addresses


def test_wrong_videos_have_a_preview_or_the_reason_why_not(both: Written):
    part = both.parts[0]
    shown = [*part.worst, *part.confident]
    assert shown
    for case in shown:
        row = case.case.video
        assert row != UNREADABLE
        if row < NUM_FILES:
            assert case.preview.uri is not None
            assert case.preview.uri.startswith("data:image/webp;base64,")
        else:
            assert case.preview.uri is None and "no such file" in case.preview.problem
        labels = [k for k, _ in case.case.best + case.case.others]
        assert set(case.case.labels) <= set(labels)
    worst = [case.case.label_score for case in part.worst]
    assert worst == sorted(worst)


def test_a_damaged_video_gives_its_reason(tmp_path: Path):
    path = tmp_path / "damaged.mp4"
    path.write_bytes(b"no video")
    found = preview(path)
    assert found.uri is None and found.problem


def test_a_preview_loops_over_the_whole_video(tmp_path: Path):
    """Frame i of the video is gray of level 4 i; the animation compresses it with losses."""
    path = write_gray_video(tmp_path / "gray.mp4", num_frames=46, size=(48, 64))
    uri = preview(path).uri
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("WEBP", 16, 0)
        assert image.size == (149, 112)
        levels = []
        for frame in range(16):
            image.seek(frame)
            levels.append(np.asarray(image.convert("L")).mean() / 4)
    np.testing.assert_allclose(levels, np.linspace(0, 45, 16), atol=1.5)


def test_a_short_video_shows_each_frame_once():
    levels = np.array([0, 128, 255], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (3, 32, 48, 3))
    with Image.open(io.BytesIO(base64.b64decode(animation(frames).split(",")[1]))) as image:
        assert image.n_frames == 3


def test_videos_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The root is relative to the folder that the evaluation was started in."""
    make_videos(tmp_path / "work" / "data" / "set")
    relative = Path("data/set")
    folder = tmp_path / "work" / "outputs" / "run"
    run = evaluated_run(folder, relative, made_up_scores(relative), "run")
    (tmp_path / "elsewhere" / "data" / "set").mkdir(parents=True)  # not the data set
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = [case.preview.uri for case in shown_cases(write_report([run])[1])]
    monkeypatch.chdir(tmp_path / "work")
    assert found == [case.preview.uri for case in shown_cases(write_report([run])[1])]
    assert any(found)


def test_videos_that_moved_are_named_with_the_remedy(tmp_path: Path, root: Path):
    gone = tmp_path / "gone"
    run = evaluated_run(tmp_path / "run", gone, made_up_scores(gone), "run")
    out, parts = write_report([run])
    count = len(shown_cases(parts))
    assert parts[0].gone.startswith(
        f"{count} of the {count} wrong videos shown are not below {gone}"
    )
    assert parts[0].gone.endswith("--data-root PATH")
    assert parts[0].gone in " ".join(Page(out).texts)
    _, parts = write_report([run], data_root=root)
    there = [case.case.video < NUM_FILES for case in shown_cases(parts)]
    assert [case.preview.uri is not None for case in shown_cases(parts)] == there and any(there)


def shown_cases(parts: list[RunPart]) -> list:
    return [case for part in parts for case in [*part.worst, *part.confident]]


def test_several_labels(tmp_path: Path, root: Path):
    scores = made_up_scores(root, several=True)
    run = evaluated_run(tmp_path / "several", root, scores, "several")
    page = Page(write_report([run])[0])
    wanted = metrics_of(scores)["mean_ap"]
    assert page.metrics["several", "mean_ap"] == pytest.approx(wanted)
    assert any("Average precision" in text for text in page.texts)


def test_a_run_without_a_wrong_video(tmp_path: Path, root: Path):
    scores = made_up_scores(root)
    readable = scores.num_views > 0
    totals = np.eye(len(CLASSES))[scores.labels] * readable[:, None]
    run = evaluated_run(tmp_path / "right", root, replace(scores, totals=totals), "right")
    part = write_report([run])[1][0]
    assert part.worst == part.confident == []


def test_a_run_of_which_no_video_could_be_read(tmp_path: Path, root: Path):
    scores = made_up_scores(root)
    nothing = replace(
        scores,
        totals=np.zeros_like(scores.totals),
        views=scores.views[:0],
        view_video=scores.view_video[:0],
        view_clip=scores.view_clip[:0],
        view_crop=scores.view_crop[:0],
    )
    run = evaluated_run(tmp_path / "none", root, nothing, "none")
    assert Page(write_report([run])[0]).metrics["none", "top1"] == 0


def test_one_run_has_its_report_beside_its_evaluation(run: Path):
    assert write_report([run])[0] == run / "eval" / "report.html"


def test_an_evaluation_without_its_training(run: Path):
    shutil.rmtree(run / "train")
    text = " ".join(Page(write_report([run / "eval"])[0]).texts)
    assert "The training of these weights was not found" in text


def test_a_manifest_and_what_was_left_out_of_it_are_shown(run: Path):
    use = ManifestUse("m.parquet", "val", "ab" * 32, rows=24, used=20, left_out={"cut short": 4})
    for folder, entry in (
        ("eval", {"manifest": use.record()}),
        ("train", {"manifests": {"train": use.record()}}),
    ):
        path = run / folder / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entry}))
    text = " ".join(" ".join(Page(write_report([run])[0]).texts).split())
    assert "Manifest 20 of 24 rows of m.parquet ; 4 cut short; SHA-256 abababababababab" in text
    assert "The split train uses 20 of 24 rows of m.parquet" in text


def test_runs_are_compared_on_their_common_videos(tmp_path: Path, root: Path, run: Path):
    """The other run has its videos in another order, and fewer of them, below another root."""
    scores = made_up_scores(tmp_path / "elsewhere", seed=1)
    order = np.arange(19, 4, -1)
    rows = {video: row for row, video in enumerate(order.tolist())}
    kept = np.isin(scores.view_video, order)
    videos = np.array([rows[video] for video in scores.view_video[kept].tolist()], np.int32)
    fewer = replace(
        scores,
        paths=[scores.paths[i] for i in order],
        labels=scores.labels[order],
        totals=scores.totals[order],
        views=scores.views[kept],
        view_video=videos,
        view_clip=scores.view_clip[kept],
        view_crop=scores.view_crop[kept],
        failures=[],
    )
    other = evaluated_run(tmp_path / "two", tmp_path / "elsewhere", fewer, "two")
    out, parts = write_report([run, other], tmp_path / "both.html")
    one, two = parts[0].analysis.right, parts[1].analysis.right
    assert Page(out).p_values == [mcnemar(one[order], two).p_value]
    assert any("15 (the lists differ)" in text for text in Page(out).texts)


def test_the_digest_of_the_videos_depends_on_neither_root_nor_order(tmp_path: Path):
    scores = made_up_scores(tmp_path / "a")
    first = evaluated_run(tmp_path / "one", tmp_path / "a", scores, "one")
    moved = made_up_scores(tmp_path / "b")
    second = evaluated_run(tmp_path / "two", tmp_path / "b", moved, "two")
    other = replace(moved, labels=np.roll(moved.labels, 1))
    third = evaluated_run(tmp_path / "three", tmp_path / "b", other, "three")
    digests = [read_run_folder(folder).videos_digest for folder in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]


def test_runs_of_different_classes_are_not_compared(tmp_path: Path, root: Path, run: Path):
    scores = replace(made_up_scores(root), class_names=[*CLASSES[:-1], "another"])
    other = evaluated_run(tmp_path / "two", root, scores, "two")
    with pytest.raises(UserError, match="different classes"):
        write_report([run, other])


def test_a_folder_without_evaluation_names_the_command_that_makes_it(run: Path, tmp_path: Path):
    shutil.rmtree(run / "eval")
    (run / "train" / "best.pt").touch()
    for folder in (run, run / "train"):
        with pytest.raises(UserError) as error:
            read_run_folder(folder)
        command = f"python tools/eval.py weights={run / 'train' / 'best.pt'} name=one"
        assert str(folder) in str(error.value) and command in str(error.value)
    with pytest.raises(UserError, match="gone: is not a folder"):
        read_run_folder(tmp_path / "gone")


def test_a_damaged_metrics_file_is_named(run: Path):
    (run / "eval" / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"eval/metrics\.json"):
        read_run_folder(run)


def test_a_report_that_cannot_be_written_leaves_nothing(run: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"report\.html: cannot be written"):
        write_report([run], tmp_path / "file" / "report.html")


def test_a_name_that_is_not_text_is_shown_nevertheless(tmp_path: Path, root: Path):
    scores = made_up_scores(root)
    paths = [path.replace("val", "v\udcffl") for path in scores.paths]  # the byte 0xff of a path
    run = evaluated_run(tmp_path / "run", root, replace(scores, paths=paths), "run")
    assert "v?l/" in write_report([run])[0].read_text()


def test_a_mistake_is_one_line(tmp_path: Path):
    done = tool("report", "gone", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "gone: is not a folder" in done.stderr


def console(path: Path) -> Iterator[str]:
    """What Chromium writes to its console when it opens a file."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--enable-logging=stderr", "--v=0", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "</html>" in done.stdout, done.stderr
    yield from (line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_sorts_the_tables_and_reports_no_error(both: Written, tmp_path: Path):
    assert list(console(both.out)) == []
    # The same page with a second script that sorts a table of classes and reports the order.
    script = """<script>
    const table = document.querySelector("table.classes");
    const click = (i) => table.tHead.rows[0].cells[i].querySelector("button").click();
    const column = (i) => [...table.tBodies[0].rows].map((row) => row.cells[i].dataset.value);
    click(2); console.log("rising", column(2).join(" "));
    click(2); console.log("falling", column(2).join(" "));
    </script></body>"""
    out = tmp_path / "sorted.html"
    out.write_text(both.out.read_text().replace("</body>", script))
    lines = list(console(out))
    assert len(lines) == 2, lines
    for line, order in zip(lines, ("rising", "falling"), strict=True):
        match = re.search(rf"{order} ([^\"]*)\"", line)
        assert match, line
        values = [float(text) for text in match[1].split()]
        assert np.isnan(values[-1])  # the class without videos is last in both orders
        assert values[:-1] == sorted(values[:-1], reverse=order == "falling")
