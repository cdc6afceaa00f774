"""The nearest names to a misspelt one."""

import pytest

from nlnet.cli.nearest import nearest

NAMES = ["optim.lr", "trainer.epochs", "data.root", "data.clip.crop_size", "caffe2/i3d_8x8"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("optim.lr", "optim.lr"),
        ("lr", "optim.lr"),
        ("trainer.epoch", "trainer.epochs"),
        ("Epochs", "trainer.epochs"),
        ("data.rot", "data.root"),
        ("i3d_8x8", "caffe2/i3d_8x8"),
        ("cafe2/i3d_8x8", "caffe2/i3d_8x8"),
    ],
)
def test_the_nearest_name_comes_first(name: str, first: str):
    assert nearest(name, NAMES, cutoff=0.8)[0] == first


def test_names_that_are_not_alike_are_left_out():
    assert nearest("temperature", NAMES, cutoff=0.8) == []
    assert len(nearest("temperature", NAMES)) == 3
