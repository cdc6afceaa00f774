"""What a debug run checks and clears, and how the operations of a step are counted."""

import re
from pathlib import Path

import pytest

from nlnet.cli.compose import _place
from nlnet.config import run_text
from nlnet.errors import UsageError
from nlnet.jobs.debug import check_debug, clear_debug_folder
from nlnet.model.cost import Stage, training_operations
from tests.cli.commands import run_config


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["debug.overfit=true"], "debug.suffix is empty"),
        (["debug.val_batches=1"], "debug.suffix is empty"),
        (["+debug=overfit", "debug.profile_steps=1"], "debug.overfit=true"),
        (["+debug=profile", "debug.profile_steps=-1"], "debug.profile_steps=-1"),
        (["+debug=short", "debug.val_batches=0"], "debug.val_batches=0"),
    ],
)
def test_keys_that_do_not_fit_are_refused(words: list[str], named: str):
    with pytest.raises(UsageError, match=f"^{re.escape(named)}"):
        check_debug(run_config(*words))


def test_only_a_folder_of_the_same_debug_run_is_cleared(tmp_path: Path):
    files = ("log.txt", "last.pt", "last.pt.sha256", "best.pt", "metrics.json")
    short = run_config("+debug=short")

    def left_after(owner: str) -> set[str]:
        for name in files:
            (tmp_path / name).touch()
        (tmp_path / "config.yaml").write_text(owner)
        clear_debug_folder(short, tmp_path)
        return {path.name for path in tmp_path.iterdir()} - {"config.yaml"}

    assert left_after(run_text(run_config())) == set(files)
    assert left_after(run_text(run_config("+debug=profile"))) == set(files)
    assert left_after("name: older\nmodel: {}") == set(files)
    assert left_after(run_text(short)) == set()


@pytest.mark.parametrize("words", [["+debug=short", "+experiment=smoke"], ["+debug=overfit"]])
def test_the_choice_of_debug_changes_the_experiment_wherever_it_is_typed(words: list[str]):
    """The experiment has a length of its own, 8 steps, and a warm-up."""
    order = sorted([*words, "-m"], key=_place)
    assert order[-2:] == [words[0], "-m"]


def test_the_clips_of_overfitting_are_not_augmented():
    run = run_config("+debug=overfit", "data.clip.crop_size=40")
    augment = run.data.augment
    assert (augment.flip, augment.color_jitter, augment.area) == (False, 0.0, [1.0, 1.0])
    assert augment.short_side == [40, 40]
    assert run.model.dropout == run.trainer.label_smoothing == 0


def test_a_training_step_counts_three_forward_passes_but_two_of_the_stem():
    stages = [Stage("conv1", multiply_adds=10), Stage("res2", multiply_adds=100)]
    assert training_operations(stages) == 3 * 200 + 2 * 20
