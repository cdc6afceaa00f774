"""One line for each mistake on the command line."""

from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from nlnet.cli.explain import explain
from tests.cli.commands import run_config, tool


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


@pytest.mark.parametrize(
    ("word", "nested"), [("model=foo", "pytorchvideo/"), ("+experiment=foo", "slowfast/")]
)
def test_an_unknown_choice_is_answered_with_all_of_them(word: str, nested: str):
    with pytest.raises(MissingConfigException) as caught:
        run_config(word)
    said = explain(caught.value)
    assert "foo" in said and nested in said and "\n" not in said
