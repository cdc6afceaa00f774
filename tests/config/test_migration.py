"""Configurations of older versions are read as those of this version."""

from pathlib import Path

import pytest

from nlnet.cli.folders import claim_folder
from nlnet.config import (
    PytorchvideoConfig,
    ResNetConfig,
    parse_run,
    read_run_tree,
    run_text,
)
from nlnet.errors import UserError
from tests.test_configs import run_config

# Written by the last commit that had one class for all networks, with `inflation=centre`.
OLD = Path(__file__).parent / "old"
COMMANDS = {
    "resnet": ["+experiment=i3d_nl5"],
    "pytorchvideo": ["+experiment=pytorchvideo/x3d_m_16x5"],
}


@pytest.mark.parametrize(
    ("name", "kind"), [("resnet", ResNetConfig), ("pytorchvideo", PytorchvideoConfig)]
)
def test_an_older_text_means_what_its_command_means_now(name: str, kind: type):
    run = parse_run((OLD / f"{name}.yaml").read_text(), "old.yaml")
    assert run == run_config(*COMMANDS[name], "inflation=center")
    assert type(run.model) is kind


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_of_an_older_run_resumes_with_the_same_command(name: str, tmp_path: Path):
    text = (OLD / f"{name}.yaml").read_text()
    (tmp_path / "log.txt").touch()
    (tmp_path / "config.yaml").write_text(text)
    run = run_config(*COMMANDS[name], "inflation=center")
    claim_folder(run, tmp_path)
    assert (tmp_path / "config.yaml").read_text() == run_text(run)
    with pytest.raises(UserError, match="seed 0 -> 3"):
        claim_folder(run_config(*COMMANDS[name], "inflation=center", "seed=3"), tmp_path)


def test_keys_that_a_text_lacks_have_their_defaults():
    tree = read_run_tree("name: older\nmodel: {dropout: 0.1, unknown: 1}", "old.yaml")
    assert tree["name"] == "older" and tree["seed"] == 0
    assert tree["model"]["dropout"] == 0.1 and tree["model"]["depth"] == 50
    assert tree["model"]["unknown"] == 1


@pytest.mark.parametrize("text", ["- a list", "a: [", "name: x\nmodel: {depht: 50}", "lr: 1"])
def test_other_texts_are_refused_in_one_line(text: str):
    with pytest.raises(UserError, match=r"^old\.yaml: not a configuration[^\n]*$"):
        parse_run(text, "old.yaml")
