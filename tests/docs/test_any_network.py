"""The examples of docs/any_network.md do what the page says."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.test_documentation import DOCS, blocks

EXAMPLES = dict(
    zip(
        ("classes", "segmentation", "detection", "sequences"),
        blocks(DOCS / "any_network.md", "python"),
        strict=True,
    )
)


def run_example(name: str) -> dict[str, Any]:
    """Run a code block of the page, and return its variables."""
    torch.manual_seed(0)
    variables: dict[str, Any] = {}
    exec(compile(EXAMPLES[name], f"{name} of any_network.md", "exec"), variables)
    return variables


def check_shapes(name: str, variables: dict[str, Any]) -> None:
    """The shapes that comments of the example state, `variable = ...  # (2, 3)`."""
    stated = re.findall(r"^(\w+) = .*# (\([\d, ]+\))$", EXAMPLES[name], re.MULTILINE)
    assert stated
    for variable, shape in stated:
        assert tuple(variables[variable].shape) == tuple(map(int, re.findall(r"\d+", shape)))


def gradients(model: torch.nn.Module) -> list[Tensor | None]:
    """Those of the norms of the blocks, which are the first to learn."""
    parameters = dict(model.named_parameters())
    return [parameters[name].grad for name in parameters if re.search(r"\.nl\d\.norm.w", name)]


def test_the_outputs_do_not_change_at_first(capsys: pytest.CaptureFixture[str]):
    variables = run_example("classes")
    assert capsys.readouterr().out == "['layer3.nl0', 'layer3.nl1']\n"
    assert torch.equal(variables["before"], variables["after"])


@pytest.mark.parametrize(("name", "count"), [("segmentation", 3), ("sequences", 2)])
def test_a_step_reaches_the_blocks(name: str, count: int):
    variables = run_example(name)
    check_shapes(name, variables)
    learned = gradients(variables["model"])
    assert len(learned) == count
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in learned)


@pytest.mark.slow
def test_a_detector_is_unchanged_at_first_and_learns():
    variables = run_example("detection")
    (before,), (after,) = variables["before"], variables["after"]
    assert set(before) == {"boxes", "labels", "scores", "masks"}
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert {"loss_classifier", "loss_box_reg", "loss_mask"} < set(variables["losses"])
    learned = gradients(variables["model"])
    assert len(learned) == 3
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in learned)
