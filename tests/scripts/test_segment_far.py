"""The images have no local cue, the plain network cannot see both shapes, and a block solves it."""

from types import ModuleType

import pytest
import torch

import nlnet
from tests.scripts.importing import import_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("segment_far")


def test_the_label_of_a_shape_is_the_color_of_the_other(script: ModuleType):
    images, labels = script.draw(400, torch.Generator().manual_seed(1))
    palette = torch.tensor(script.COLORS)
    middle = script.WIDTH // 2
    colors = []
    for image, label in zip(images, labels, strict=True):
        columns = torch.nonzero((label > 0).any(dim=0)).flatten()
        assert columns.diff().max() > script.GAP
        pair, classes = [], []
        for half in (slice(0, middle), slice(middle, None)):
            inside = label[:, half] > 0
            pixels = image[:, :, half][:, inside].T
            assert (pixels == pixels[0]).all()  # a shape has one color and one class
            assert len(label[:, half][inside].unique()) == 1
            pair.append(int((palette - pixels[0]).abs().sum(dim=1).argmin()))
            classes.append(int(label[:, half].max()))
        assert classes == [1 + pair[1], 1 + pair[0]]
        colors.append(pair)
    left, right = torch.tensor(colors).T
    for color in range(len(palette)):  # the color of a shape says nothing about that of the other
        assert 0.4 < (right[left == color] == 0).double().mean() < 0.6


@pytest.mark.parametrize("places", [[], [0]], ids=["without", "with"])
def test_only_a_block_reaches_from_one_shape_to_the_other(script: ModuleType, places: list[int]):
    """The gradient of the outputs at the left shape with respect to the pixels at the right one."""
    torch.manual_seed(0)
    model = script.build().eval()
    for name in nlnet.insert_non_local(model, {"backbone.layer2": places}):
        torch.nn.init.ones_(model.get_submodule(name).norm.weight)
    images = script.draw(1, torch.Generator().manual_seed(2)).images.requires_grad_()
    edge = (script.WIDTH - script.GAP) // 2
    model(images)["out"][..., :edge].square().sum().backward()
    far = images.grad[..., script.WIDTH - edge :]
    assert (far != 0).any() == bool(places)


@pytest.mark.slow
def test_with_a_block_the_other_shape_counts(script: ModuleType):
    found = script.compare(seed=0, steps=script.STEPS)
    assert found["with"] >= 0.9
    assert found["without"] <= 0.6
