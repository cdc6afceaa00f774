"""The paper's tables: each run is in its row, beside the numbers that the paper prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nlnet.config import run_text
from nlnet.errors import UserError
from nlnet.report.formats import FORMATS, Table
from nlnet.report.paper import TABLES, WORDS
from nlnet.report.sweeps import ROW_OF, find_results, mean_and_deviation
from nlnet.report.tables import paper_table
from tests.cli.commands import ROOT, run_config, tool

TINY = ("+experiment=quickstart", "data.root=data")


def finished(folder: Path, *words: str, top1: float = 70.0, top5: float = 90.0) -> Path:
    """A run folder of these words, with the metrics of a finished training."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(run_text(run_config(*words, experiment=None)))
    metrics = {"best_top1": top1, "best_top5": top5, "best_epoch": 1, "epochs": []}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def rows(table: Table) -> dict[tuple[str, str], dict[str, str]]:
    """The rows by depth and network, each a cell by its header."""
    return {(row[0], row[1]): dict(zip(table.header, row, strict=True)) for row in table.cells}


# From the paper, written down a second time.
PUBLISHED = {
    ("2a", 50): ["71.8/89.7", "72.5/90.2", "72.7/90.5", "72.9/90.3", "72.8/90.5"],
    ("2b", 50): ["71.8/89.7", "72.7/90.3", "72.9/90.4", "72.7/90.5", "72.3/90.1"],
    ("2c", 50): ["71.8/89.7", "72.7/90.5", "73.8/91.0", "74.3/91.2"],
    ("2c", 101): ["73.1/91.0", "74.3/91.3", "75.1/91.7", "75.1/91.6"],
    ("2d", 50): ["71.8/89.7", "72.9/90.8", "73.1/90.5", "73.8/91.0"],
    ("2d", 101): ["73.1/91.0", "74.4/91.3", "74.4/90.5", "75.1/91.7"],
    ("2e", 101): ["73.1/91.0", "74.1/91.2", "74.4/91.1", "75.1/91.7"],
    ("2f", 50): ["71.8/89.7", "73.3/90.7", "74.9/91.6"],
    ("2f", 101): ["73.1/91.0", "74.4/91.1", "76.0/92.1"],
    ("2g", 50): ["73.8/91.2", "74.9/91.7", "76.5/92.6"],
    ("2g", 101): ["75.3/91.8", "76.4/92.7", "77.7/93.3"],
}


@pytest.mark.parametrize(("name", "depth"), PUBLISHED)
def test_the_published_numbers(name: str, depth: int):
    found = [row.published[depth] for row in TABLES[name].rows if depth in row.published]
    assert [f"{top1:.1f}/{top5:.1f}" for top1, top5 in found] == PUBLISHED[name, depth]


COMMANDS = [
    (name, depth, row.key)
    for name, table in TABLES.items()
    for depth in (*table.experiments, 14)
    for row in table.rows
    if depth != 14 or name in ("2a", "2b", "2d") or row.key in ("0", "1")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "depth", "key"), COMMANDS)
def test_the_command_of_a_row_makes_a_run_of_that_row(name: str, depth: int, key: str):
    paper = TABLES[name]
    row = next(row for row in paper.rows if row.key == key)
    experiment = paper.experiments.get(depth, "tables")
    words = row.words.format(**WORDS[depth]).split()
    run = run_config(f"+experiment={experiment}", "data.root=data", *words, experiment=None)
    assert ROW_OF[name](run) == key
    assert run.model.depth == depth
    if name == "2g":
        assert run.data.clip.num_frames == 128
    if name == "2f":
        assert run.data.clip.num_frames == 32


def test_runs_are_in_their_rows_and_seeds_are_one_row(tmp_path: Path):
    for seed, top1 in enumerate((70.0, 71.0, 74.0)):
        finished(
            tmp_path / f"space{seed}",
            *TINY,
            "model.non_local.axes=space",
            f"seed={seed}",
            top1=top1,
        )
    finished(tmp_path / "plain", *TINY, "non_local=none", top1=60.5)
    table = rows(paper_table([tmp_path], "2d"))
    assert table["R14", "space-only"]["Top-1"] == "71.67 ± 2.08"
    assert table["R14", "space-only"]["Seeds"] == "3"
    assert table["R14", "space-only"]["Published"] == "72.9 / 90.8*"
    assert table["R14", "C2D baseline"]["Top-1"] == "60.50"
    assert table["R14", "C2D baseline"]["Parameters"] == "1.00x"
    assert float(table["R14", "space-only"]["Parameters"][:-1]) > 1
    assert table["R14", "time-only"]["Top-1"] == "missing"


def test_a_missing_run_is_named_with_its_command(tmp_path: Path):
    finished(tmp_path / "gaussian", *TINY, "block=gaussian")
    notes = paper_table([tmp_path], "2a").notes
    missing = [note for note in notes if note.startswith("Missing")]
    assert len(missing) == 4
    command = "python tools/train.py +experiment=quickstart block=dot_product data.root=data"
    place = "name=quickstart/sweep_pairwise/dot_product"
    assert any(f"dot-product; {command} {place}" in note for note in missing)


@pytest.mark.slow
def test_the_command_of_a_missing_run_makes_it(tmp_path: Path):
    """A small network on four videos; the words that make the run short are added."""
    make = [sys.executable, str(ROOT / "scripts" / "make_same_different.py"), "--out", "data"]
    sizes = ["--train", "4", "--val", "2", "--test", "4", "--workers", "1"]
    subprocess.run([*make, *sizes], cwd=tmp_path, check=True, capture_output=True)
    short = ("trainer.epochs=1", "schedule.warmup=0", "data.batch_size=2", "data.num_workers=0")
    words = ("+experiment=tables", "data.root=data", *short)
    sweep = tmp_path / "outputs" / "tables" / "sweep_pairwise"
    finished(sweep / "first", *words)
    missing = {
        note.split("; ")[0].split(", ", 1)[1]: note.partition("; python tools/train.py ")[2]
        for note in paper_table([sweep], "2a").notes
        if note.startswith("Missing: R14, ")
    }
    assert set(missing) == {"C2D baseline", "Gaussian", "dot-product", "concatenation"}
    assert len({command.split("name=")[1] for command in missing.values()}) == 4
    done = tool("train", *missing["dot-product"].split(), *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(paper_table([sweep], "2a"))["R14", "dot-product"]["Seeds"] == "1"


def test_other_members_of_the_family_have_rows_without_published_numbers(tmp_path: Path):
    finished(tmp_path / "one", *TINY, "block=global_context")
    table = rows(paper_table([tmp_path], "2a"))
    assert table["R14", "global context"]["Published"] == "-"


def test_an_evaluation_replaces_its_training(tmp_path: Path):
    training = finished(tmp_path / "train", *TINY, top1=70)
    evaluation = finished(tmp_path / "eval", *TINY, f"weights={training / 'best.pt'}")
    metrics = {"top1": 75.25, "top5": 91.5, "main_metric": "top1", "protocol": "dense: 10 clips"}
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    assert [result.folder for result in find_results([tmp_path])] == [evaluation]
    table = paper_table([tmp_path], "2d")
    assert rows(table)["R14", "spacetime"]["Top-1"] == "75.25"
    assert any("dense: 10 clips" in note for note in table.notes)


def test_runs_of_one_row_with_different_settings_are_refused(tmp_path: Path):
    finished(tmp_path / "one", *TINY)
    finished(tmp_path / "two", *TINY, "optim.lr=0.3")
    with pytest.raises(UserError, match=r"optim\.lr"):
        paper_table([tmp_path], "2d")


def test_without_a_run_the_command_of_the_sweep_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"\+experiment=c2d \+sweep=blocks"):
        paper_table([tmp_path], "2c")


@pytest.mark.slow
def test_the_costs_of_table_2e_are_those_of_the_paper(tmp_path: Path):
    """Counted at 32 frames and 224 x 224, as in the paper; all ratios round to the printed ones."""
    for row in TABLES["2e"].rows:
        words = row.words.format(**WORDS[101]).split()
        clips = ("stem=paper", "clip=32x2")
        finished(tmp_path / row.key, "+experiment=c2d_r101", "data.root=data", *clips, *words)
    table = rows(paper_table([tmp_path], "2e"))
    for row in TABLES["2e"].rows:
        found = table["R101", row.title]
        parameters, multiply_adds = row.ratios[101]
        assert found["Parameters"].endswith(f"({parameters}x)")
        assert float(found["Parameters"].split("x")[0]) == pytest.approx(parameters, abs=0.06)
        assert float(found["Multiply-adds"].split("x")[0]) == pytest.approx(multiply_adds, abs=0.06)


def test_mean_and_deviation_by_hand():
    assert mean_and_deviation([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5))


TABLE = Table("A & B", ["Name", "x", "y"], [["a_b", "<1>", "2 ± 1"]], ["50 % of it"])


def test_the_formats():
    assert "| a_b  | <1> | 2 ± 1 |" in FORMATS["markdown"](TABLE)
    assert "- 50 % of it" in FORMATS["markdown"](TABLE)
    latex = FORMATS["latex"](TABLE)
    assert r"a\_b & <1> & 2 $\pm$ 1 \\" in latex
    assert r"\caption{A \& B. 50 \% of it}" in latex
    assert "<td>&lt;1&gt;</td>" in FORMATS["html"](TABLE)


@pytest.mark.slow
def test_the_tool_writes_a_file(tmp_path: Path):
    finished(tmp_path / "run", *TINY)
    words = ("run", "--paper", "2d", "--format", "latex", "--out", "table.tex")
    done = tool("tables", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "table.tex\n"), done.stderr
    assert r"\toprule" in (tmp_path / "table.tex").read_text()


def test_the_tool_names_a_wrong_table(tmp_path: Path):
    done = tool("tables", "run", "--paper", "9z", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--paper=9z" in done.stderr and "2a" in done.stderr
