"""One line for each mistake, one folder for each run, one table for each sweep."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nlnet.cli import CONFIG_DIR, claim_folder, markdown, sweep_table, to_run
from nlnet.config import RunConfig, register_schemas
from nlnet.errors import UserError

ROOT = Path(__file__).parents[1]


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
