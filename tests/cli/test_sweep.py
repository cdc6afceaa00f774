"""A sweep ends with one table, and is refused if its runs would share a folder."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.sweep import (
    error_line,
    folder_name,
    markdown_table,
    metric_numbers,
    name_by_swept,
    override_values,
    refuse_shared_folders,
    sweep_table,
)
from nlnet.config import register_schemas
from nlnet.errors import UserError
from tests.cli.commands import run_config, tool


def test_a_sweep_over_experiments_ends_with_one_table(tmp_path: Path):
    """-m may be between the words. A failed run is in the table, and the exit code is 1."""
    words = ["model.non_local.pairwise=cosine,gaussian", "-m", "+experiment=smoke,quickstart"]
    done = tool("describe", *words, "name=2024_01_02", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error: 2 of 4 runs of the sweep failed; see the table" in done.stderr
    table = (tmp_path / "outputs" / "2024_01_02" / "sweep" / "table.md").read_text()
    assert table in done.stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0] == ["model.non_local.pairwise", "experiment", "error"]
    assert [row[:2] for row in rows[2:]] == [
        [pairwise, experiment]
        for pairwise in ("cosine", "gaussian")
        for experiment in ("smoke", "quickstart")
    ]


def sweep_config(*words: str) -> DictConfig:
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("run", overrides=["data.root=."], return_hydra_config=True)
    cfg.hydra.overrides.task = list(words)
    return cfg


@pytest.mark.parametrize("key", ["weights", "data.root"])
def test_a_sweep_whose_runs_would_share_a_folder_is_refused(
    key: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        refuse_shared_folders(sweep_config("+experiment=c2d", f"{key}=a,b"))
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"error: {key} cannot be swept") and f"name=NAME {key}=VALUE" in error
    refuse_shared_folders(sweep_config("+experiment=c2d,i3d", f"{key}=a", "block=gaussian,unary"))


def test_run_folders_are_named_after_swept_words_only():
    words = ["-m", "+experiment=c2d", "seed=1,2", "optim.lr=0.1", "model.non_local.res4=[1,3]"]
    (word,) = name_by_swept([*words, "block=choice(gaussian,unary)", "hydra/launcher=joblib"])
    assert word.startswith("hydra.job.config.override_dirname.exclude_keys=[")
    left_out = set(word.partition("[")[2].rstrip("]").split(","))
    assert {"experiment", "optim.lr", "model.non_local.res4", "data.root"} <= left_out
    assert not {"seed", "block", "hydra/launcher"} & left_out
    assert name_by_swept(words[1:]) == []
    assert name_by_swept(["--config-dir", ".", *words])  # an option and its value are no words


def test_a_run_folder_is_one_folder_that_any_file_system_takes():
    """Different words have different names."""
    texts = ["a=1", "a=b/c", "a=b%2Fc", "a=b%252Fc", "x" * 200, "x" * 201, "x" * 202, "é" * 150]
    names = [folder_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(len(name.encode()) <= 200 and "/" not in name for name in names)
    assert names[0] == "a=1" and names[4] == "x" * 200


@pytest.mark.parametrize("name", ["mean_class", "best_mean_class"])
def test_the_main_metric_is_the_first_number_of_a_row(name: str):
    metrics = {"top1": 50.0, "views": 3, name: 40.0, "main_metric": "mean_class", "epochs": []}
    assert list(metric_numbers(metrics).items()) == [(name, 40.0), ("top1", 50.0), ("views", 3)]


def test_the_words_of_a_run_are_the_cells_of_its_row():
    words = ["+experiment=i3d", "~trainer", "name=a=b", "++optim.lr=0.10"]
    expected = {"experiment": "i3d", "trainer": "", "name": "a=b", "optim.lr": "0.10"}
    assert override_values(words) == expected


def test_the_cells_of_a_row_have_no_quotes():
    words = ['data.train="all.csv#train"', r"data.val=my\ list\,2", 'name="1e3"']
    expected = {"data.train": "all.csv#train", "data.val": "my list,2", "name": "1e3"}
    assert override_values(words) == expected


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a.csv: no videos\ndetails"), "a.csv: no videos"),
        (RuntimeError("out of memory"), "out of memory"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_table_says_in_one_line_why_a_run_failed(error: Exception, line: str):
    assert error_line(error) == line


def test_the_table_says_which_key_a_run_lacks():
    with pytest.raises(MissingMandatoryValue) as caught:
        run_config(experiment="folder")
    assert error_line(caught.value) == "data.root is not set; give data.root=PATH"


def test_only_overrides_that_differ_have_a_column():
    rows = [
        {"experiment": "c2d", "block": "gaussian", "best_top1": 71.25},
        {"experiment": "c2d", "block": "dot_product", "best_top1": 73.5},
        {"experiment": "c2d", "block": "broken", "error": "no such block"},
    ]
    header, cells = sweep_table(rows)
    assert header == ["block", "best_top1", "error"]
    assert cells[0] == ["gaussian", "71.25", ""]
    assert cells[2] == ["broken", "", "no such block"]
    lines = markdown_table(header, cells).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 5
