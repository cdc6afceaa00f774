"""Every experiment composes, has the name of its file, and builds on the meta device."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.cli.explain import explain
from nlnet.config import RunConfig, parse_run, register_schemas, run_text
from nlnet.model.build import build_model
from nlnet.trainer.build import build_settings

EXPERIMENTS = sorted(
    path.relative_to(CONFIG_DIR / "experiment").with_suffix("").as_posix()
    for path in (CONFIG_DIR / "experiment").rglob("*.yaml")
)
BLOCKS = ("", "_nl1", "_nl5", "_nl10")
SWEEPS = sorted(path.stem for path in (CONFIG_DIR / "sweep").glob("*.yaml"))

RECIPES = sorted(path.stem for path in (CONFIG_DIR / "recipe").glob("*.yaml"))


@cache
def run_config(*overrides: str) -> RunConfig:
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("run", overrides=["data.root=videos", *overrides])
    return to_run(cfg)


def test_the_experiments_of_the_paper_exist():
    sizes = [f"{net}{blocks}" for net in ("c2d", "i3d") for blocks in BLOCKS]
    expected = {f"{size}{form}" for size in sizes for form in ("", "_32x2", "_r101")}
    expected |= {"i3d_nl5_128x1", "folder", "folder_small", "gestures", "quickstart", "smoke"}
    assert expected <= set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_named_after_its_file_and_builds(experiment: str):
    run = run_config(f"+experiment={experiment}")
    assert run.name == experiment
    with torch.device("meta"):
        model = build_model(run.model, num_classes=400)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_sets_one_length(recipe: str):
    trainer = run_config(f"recipe={recipe}").trainer
    assert (trainer.epochs is None) != (trainer.max_steps is None)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_has_one_length(experiment: str):
    build_settings(run_config(f"+experiment={experiment}"), 1, torch.device("cpu"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_can_be_written_and_read(experiment: str):
    run = run_config(f"+experiment={experiment}")
    assert parse_run(run_text(run), "text") == run


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_composes_by_the_command_in_its_file(sweep: str):
    path = Path(CONFIG_DIR / "sweep" / f"{sweep}.yaml")
    command = next(line for line in path.read_text().splitlines() if "tools/train.py" in line)
    assert f"+sweep={sweep}" in command
    experiment = next(word for word in command.split() if word.startswith("+experiment="))
    run_config(experiment, f"+sweep={sweep}")


def test_the_commands_in_the_files_compose():
    """Each line `# python tools/...` composes; of a sweep, the first choice of each key."""
    commands = {
        command
        for path in CONFIG_DIR.rglob("*.yaml")
        for command in re.findall(r"^# (python tools/.*)$", path.read_text(), re.MULTILINE)
    }
    assert len(commands) > 50
    for command in sorted(commands):
        tool, *words = command.split()[1:]
        assert tool in ("tools/train.py", "tools/eval.py"), command
        # Paths, and the flag of a sweep, are not composed.
        words = [word for word in words if not word.startswith(("-m", "data.root=", "weights="))]
        run_config(*(word if "[" in word else word.split(",")[0] for word in words))


@pytest.mark.parametrize("size", ["i3d_tiny", "c2d_tiny"])
def test_a_model_can_be_exchanged_in_an_experiment(size: str):
    config = run_config("+experiment=folder", f"model={size}").model
    with torch.device("meta"):
        model = build_model(config, num_classes=400)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2e6


@pytest.mark.parametrize("word", ["model.depth=101", "model.norm=frozen", "model.depht=50"])
def test_a_key_that_the_network_does_not_have_is_refused_by_name(word: str):
    key = word.partition("=")[0]
    with pytest.raises(ConfigCompositionException) as error:
        run_config("model=pytorchvideo/slow_r50", word)
    assert key in explain(error.value) and "\n" not in explain(error.value)
