"""An error of the command line is one line: the cause, the nearest name and what to type."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from nlnet.cli.choices import CONFIG_DIR, choices, config_groups, group_word
from nlnet.cli.compose import to_run
from nlnet.cli.explain import explain, misplaced_dashes
from nlnet.cli.words import prepare_words
from nlnet.config import register_schemas
from nlnet.errors import UsageError
from tests.cli.commands import run_config, tool


def error_of(*words: str, folder: Path = CONFIG_DIR) -> str:
    """The line that a tool prints for these words."""
    register_schemas()
    with initialize_config_dir(str(folder), version_base="1.3"):
        try:
            to_run(compose("run", overrides=["name=x", *prepare_words(words)]))
        except UsageError as error:
            return str(error)
        except (HydraException, OmegaConfBaseException, MarkedYAMLError) as error:
            return explain(error)
    pytest.fail(f"{words} were accepted")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["+experiment=i3d_nl6"], ["i3d_nl6", "+experiment=i3d_nl5"]),
        (["+experiment=i3d", "model.depth=34"], ["model.depth=34", "50"]),
        (["+experiment=i3d", "model.non_local.res4=[6]"], ["res4", "6"]),
        (["+experiment=i3d_nl5", "model.non_local.pairwise=cosine"], ["pairwise", "dot_product"]),
    ],
)
def test_a_wrong_word_costs_one_line(tmp_path: Path, words: list[str], named: list[str]):
    done = tool("describe", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in named:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        # a value is missing
        ("+experiment=folder", ["data.root is not set", "data.root=PATH"]),
        ("model", ["model", "KEY=VALUE", "write model=CHOICE"]),
        ("smoke", ["smoke", "KEY=VALUE", "+experiment=smoke"]),
        ("seed", ["seed", "KEY=VALUE", "write seed=VALUE"]),
        # a value of another type
        ("trainer.epochs=three", ["trainer.epochs=three", "a whole number", "null"]),
        ("trainer.epochs=2.5", ["trainer.epochs=2.5", "a whole number"]),
        ("trainer.epochs=3#", ["trainer.epochs=3#", "a whole number"]),
        ("model.depth=fifty", ["model.depth=fifty", "a whole number"]),
        ("optim.lr=fast", ["optim.lr=fast", "a number"]),
        ("trainer.compile=maybe", ["trainer.compile=maybe", "true or false"]),
        ("trainer.freeze=conv1", ["trainer.freeze=conv1", "a list of names"]),
        ("model.non_local.res4=[six]", ["model.non_local.res4=[six]", "whole numbers", "[1,2]"]),
        ("trainer=fast", ["trainer=fast", "trainer.KEY=VALUE"]),
        ("trainer.epochs=1,2", ["trainer.epochs=1,2", "add -m"]),
        ("seed=choice(1,2)", ["seed=choice(1,2)", "add -m"]),
        ("'data.root=${foo}'", ["${...}", "foo", "not found"]),
        ("'data.root=${oc.env:NO_SUCH_NAME}'", ["${...}", "NO_SUCH_NAME", "not found"]),
        # a key that does not exist
        ("trainer.epoch=3", ["trainer.epoch ", "did you mean trainer.epochs=3?"]),
        ("+trainer.epoch=3", ["trainer.epoch ", "did you mean trainer.epochs=3?"]),
        ("lr=0.1", ["lr ", "did you mean optim.lr=0.1?"]),
        ("model.deph=50", ["model.deph ", "model.depth=50"]),
        ("weight=x.pt", ["weight ", "did you mean weights=x.pt?"]),
        (
            "+model.non_local.res6=[1]",
            ["model.non_local.res6 ", "did you mean 'model.non_local.res"],
        ),
        ("crop_size=112", ["data.clip.crop_size=112", "data.val_views.crop_size=112"]),
        ("'data.rot=a (1)'", ["data.rot ", "did you mean 'data.root=a (1)'?"]),
        ("model=pytorchvideo/x3d_m model.depth=50", ["model.depth", "PytorchvideoConfig"]),
        ("optim=adamw optim.momentum=0.9", ["optim.momentum", "SGDConfig", "AdamWConfig"]),
        ("'a b=3'", ["a b", "--cfg job"]),
        ("data.humidity=3", ["data.humidity", "--cfg job"]),
        ("~seeds", ["seeds", "no such key"]),
        # a group or a choice that does not exist
        ("modell=i3d_r50", ["modell", "did you mean model=i3d_r50?"]),
        ("+experimnt=smoke", ["experimnt", "did you mean +experiment=smoke?"]),
        ("experiment=smoke", ["experiment ", "write +experiment=smoke"]),
        ("experiment=i3d_nl6", ["write +experiment=i3d_nl6", "+experiment=i3d_nl5", "--help"]),
        ("experiment=i3d_nl5_8x8", ["+experiment=caffe2/i3d_nl5_8x8"]),
        ("sweep=axes", ["write +sweep=axes"]),
        ("+experiment=smok", ["no experiment named smok", "mean +experiment=smoke,", "--help"]),
        ("+experiment=i3d_nl5_8x8", ["mean +experiment=caffe2/i3d_nl5_8x8", "--help lists all"]),
        ("block=dotproduct", ["no block named dotproduct", "did you mean block=dot_product,"]),
        ("model=x3d", ["no model named x3d", "model=pytorchvideo/x3d_m"]),
        ("data=null", ["no data named null", "data=folder"]),
        ("hydra/launcher=foo", ["hydra/launcher/foo", "basic"]),
        # a plus that is not needed
        ("+model=i3d_r50", ["model is chosen twice", "+ only"]),
        ("+experiment=smoke +experiment=c2d", ["experiment is chosen twice"]),
        ("+trainer.eval_every=3", ["write trainer.eval_every=VALUE", "without +"]),
        # an option
        ("--lr=0.1", ["--lr=0.1", "did you mean optim.lr=0.1?"]),
    ],
)
def test_an_error_names_the_cause_the_nearest_name_and_the_remedy(words: str, named: list[str]):
    line = error_of(*shlex.split(words))
    assert "\n" not in line and len(line) < 300
    for part in named:
        assert part in line, line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("trainer: {epoch: 3}", ["experiment/mine.yaml", "trainer.epoch ", "trainer.epochs?"]),
        ("trainer: {epochs: three}", ["experiment/mine.yaml", "trainer.epochs=three", "whole"]),
        ("defaults: [override /modell: x]", ["experiment/mine.yaml", "modell", "model?"]),
        ("defaults: [override /model: i3d_r5]", ["no model named i3d_r5", "model=i3d_r50"]),
        ("trainer: {{", ["not YAML", "mine.yaml", "line 3"]),
    ],
)
def test_an_error_in_a_config_file_names_the_file(tmp_path: Path, text: str, named: list[str]):
    for path in CONFIG_DIR.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "experiment").unlink()
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    line = error_of("+experiment=mine", folder=tmp_path)
    assert "\n" not in line
    for part in named:
        assert part in line, line


def test_a_suggested_choice_works_as_it_is_typed():
    line = error_of("data.root=.", "+experiment=i3d_nl5_8x8")
    first = line.partition("did you mean ")[2].partition(",")[0]
    assert run_config("data.root=.", first, experiment=None).name == "caffe2/i3d_nl5_8x8"


@pytest.mark.parametrize("group", config_groups())
def test_a_misspelt_choice_of_every_group_is_answered_with_the_nearest(group: str):
    name = choices(group)[0]
    line = error_of(group_word(group, f"{name}x"))
    assert f"no {group} named {name}x" in line and group_word(group, name) in line


@pytest.mark.parametrize("word", ["--multirun", "--cfg", "--config-dir=x", "--help", "--version"])
def test_options_of_hydra_are_not_keys(word: str):
    assert misplaced_dashes(word) is None
