"""One line for each mistake, one folder for each run, one table for each sweep."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import DictConfig

from nlnet.cli.tool import (
    CONFIG_DIR,
    claim_folder,
    explain,
    launch_ranks,
    markdown,
    network_differences,
    override_values,
    refuse_shared_folders,
    run_tool,
    sweep_table,
    to_run,
    write_text,
)
from nlnet.config import RunConfig, register_schemas, run_text
from nlnet.errors import UsageError, UserError

ROOT = Path(__file__).parents[2]


def run_config(*overrides: str) -> RunConfig:
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return to_run(compose("run", overrides=["+experiment=smoke", *overrides]))


def tool(name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["+experiment=i3d_nl6"], 2, ["i3d_nl6", "i3d_nl5"]),
        (["+experiment=i3d", "model.deph=50"], 2, ["model.deph"]),
        (["+experiment=i3d", "model.depth=fifty"], 2, ["model.depth", "fifty"]),
        (["+experiment=i3d", "model.depth=34"], 2, ["model.depth=34", "50"]),
        (["+experiment=i3d", "model.non_local.res4=[6]"], 2, ["res4", "6"]),
        (["+experiment=i3d", "+model.non_local.res6=[1]"], 2, ["res6"]),
        (
            ["+experiment=i3d_nl5", "model.non_local.pairwise=cosine"],
            2,
            ["pairwise", "dot_product"],
        ),
        (["model"], 2, ["model"]),
    ],
)
def test_a_wrong_word_costs_one_line(tmp_path: Path, words: list[str], code: int, named: list[str]):
    done = tool("describe", *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in named:
        assert word in done.stderr


@pytest.mark.parametrize("name", ["train", "eval", "describe", "convert"])
def test_help_shows_three_examples(tmp_path: Path, name: str):
    done = tool(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"python tools/{name}.py") >= 3


def test_a_folder_belongs_to_one_configuration(tmp_path: Path):
    claim_folder(run_config("optim.lr=0.25"), tmp_path)  # never begun
    claim_folder(run_config(), tmp_path)
    (tmp_path / "log.txt").touch()
    claim_folder(run_config(), tmp_path)
    claim_folder(run_config("dist.num_procs=2", "data.num_workers=1"), tmp_path)
    with pytest.raises(UserError, match=r"optim\.lr .* -> 0\.5") as caught:
        claim_folder(run_config("optim.lr=0.5", "seed=3"), tmp_path)
    assert "seed 0 -> 3" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["block=dot_product"], "model.non_local.pairwise embedded_gaussian -> dot_product"),
        (["model.non_local.scale=false"], "model.non_local.scale True -> False"),
        (["model.non_local.subsample=embedded"], "model.non_local.subsample"),
        (["model.non_local.group_frames.res3=2"], "model.non_local.group_frames.res3 None -> 2"),
        (["model.non_local.temperature=2"], "model.non_local.temperature"),
        (["model.pool1_padding=[0,0,0]"], "model.pool1_padding"),
        (["model.normalization=slowfast"], "model.normalization"),
        (["model.head_window=[2,2]"], "model.head_window None -> [2, 2]"),
        (["model.head_average=logits"], "model.head_average"),
    ],
)
def test_a_network_that_answers_otherwise_is_told(words: list[str], named: str):
    """Where no shape tells, the configuration in the file of weights does."""
    (told,) = network_differences(run_text(run_config()), run_config(*words).model)
    assert told.startswith(named)


def test_what_only_training_reads_is_no_other_network():
    text = run_text(run_config())
    words = ["model.dropout=0.25", "model.norm=frozen", "model.non_local.norm=sync"]
    words += ["model.zero_init_residual=false", "model.non_local.init=kaiming", "optim.lr=1"]
    assert network_differences(text, run_config(*words).model) == []
    plain = run_config("non_local=none")
    unused = run_config("non_local=none", "block=dot_product").model
    assert network_differences(run_text(plain), unused) == []
    assert network_differences("name: older\nmodel: {}", RunConfig().model) == []


@pytest.mark.parametrize(("code", "kind"), [(1, UserError), (2, UsageError)])
def test_the_first_error_of_the_ranks_is_that_of_the_run(tmp_path: Path, code: int, kind: type):
    rank = tmp_path / "rank.py"
    rank.write_text(f"from nlnet.cli.tool import fail\nfail('no videos', {code})\n")
    with pytest.raises(UserError, match=r"^no videos$") as caught:
        launch_ranks(rank, tmp_path / "config.yaml", 2)
    assert type(caught.value) is kind


def test_a_sweep_over_experiments_ends_in_one_table(tmp_path: Path):
    """With -m between the words, too; a run that fails is in the table, and in the exit code."""
    words = ["model.non_local.pairwise=cosine,gaussian", "-m", "+experiment=smoke,quickstart"]
    done = tool("describe", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error: 2 of 4 runs of the sweep failed; see the table" in done.stderr
    table = (tmp_path / "outputs" / "run" / "sweep" / "table.md").read_text()
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


def test_the_words_of_a_run_are_the_cells_of_its_row():
    words = ["+experiment=i3d", "~trainer", "name=a=b", "++optim.lr=1"]
    expected = {"experiment": "i3d", "trainer": "", "name": "a=b", "optim.lr": "1"}
    assert override_values(words) == expected


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_the_flag_of_a_sweep_may_stand_anywhere(flag: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "a=1,2", flag, "+b=3", "--cfg", "job"])
    run_tool(lambda: None)
    assert sys.argv == ["train.py", "a=1,2", "+b=3", "--cfg", "job", flag]


def test_a_run_has_a_name():
    with pytest.raises(UsageError, match=r"^name is empty.*name=NAME"):
        run_config("name=")


@pytest.mark.parametrize(
    ("word", "nested"), [("model=foo", "pytorchvideo/"), ("+experiment=foo", "slowfast/")]
)
def test_an_unknown_choice_is_answered_with_all_of_them(word: str, nested: str):
    with pytest.raises(MissingConfigException) as caught:
        run_config(word)
    said = explain(caught.value)
    assert "foo" in said and nested in said and "\n" not in said


def test_a_file_that_cannot_be_written_costs_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x\.json: cannot be written \([^\n]*$"):
        write_text(tmp_path / "file" / "x.json", "{}")
    write_text(tmp_path / "new" / "x.json", "{}")
    assert (tmp_path / "new" / "x.json").read_text() == "{}"


def test_a_description_leaves_its_file_alone(tmp_path: Path):
    done = tool("describe", "+experiment=smoke", "json=x/y.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "y.json"]


def test_the_table_of_a_sweep_has_a_column_for_what_differs():
    rows = [
        {"experiment": "c2d", "block": "gaussian", "best_top1": 71.25},
        {"experiment": "c2d", "block": "dot_product", "best_top1": 73.5},
        {"experiment": "c2d", "block": "broken", "error": "no such block"},
    ]
    header, cells = sweep_table(rows)
    assert header == ["block", "best_top1", "error"]
    assert cells[0] == ["gaussian", "71.25", ""]
    assert cells[2] == ["broken", "", "no such block"]
    lines = markdown(header, cells).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 5
