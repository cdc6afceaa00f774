"""A search of Optuna, whose trials are runs of a sweep."""

import csv
from pathlib import Path

import pytest
import yaml

from tests.tools.conftest import Tool

SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_jobs=1")
RATES = "optim.lr=tag(log,interval(0.001,0.1))"


@pytest.mark.slow
def test_each_trial_is_a_row_and_the_best_score_is_found(tool: Tool, tmp_path: Path):
    words = ("hydra.sweeper.n_trials=2", RATES, "trainer.max_steps=2")
    done = tool("train", "-m", *SEARCH, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "smoke" / "sweep"
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["optim.lr"] for row in rows}) == len(rows) == 2
    assert all(0.001 <= float(row["optim.lr"]) <= 0.1 for row in rows)
    assert len(list(folder.glob("*/last.pt"))) == 2
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert found["best_value"] == max(float(row["best_top1"]) for row in rows)
