"""Insertion of non-local blocks into a backbone: positions, names, and unchanged parts."""

import pytest
import torch
from torch import nn

from nlnet.errors import ArgumentError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.insertion import insert_non_local
from nlnet.model.resnet3d import ResNet3d


def backbone() -> ResNet3d:
    torch.manual_seed(0)
    ones = {stage: [1] for stage in ("res2", "res3", "res4", "res5")}
    return ResNet3d(50, ones, width=4)


def make(stage: str, channels: int) -> nn.Module:
    return NonLocalBlock(channels)


def test_blocks_follow_the_named_residual_blocks():
    net = backbone()
    insert_non_local(net, {"res3": [1, 3], "res4": [0]}, make)
    names = [name for name, _ in net.get_submodule("res3").named_children()]
    assert names == ["block0", "block1", "nl1", "block2", "block3", "nl3"]
    names = [name for name, _ in net.get_submodule("res4").named_children()]
    assert names == ["block0", "nl0", *(f"block{i}" for i in range(1, 6))]


def test_a_block_has_the_channels_of_its_stage():
    asked: list[tuple[str, int]] = []

    def record(stage: str, channels: int) -> nn.Module:
        asked.append((stage, channels))
        return nn.Identity()

    net = backbone()
    insert_non_local(net, {"res2": [0], "res5": [2]}, record)
    assert asked == [("res2", net.channels["res2"]), ("res5", net.channels["res5"])]


def test_names_weights_and_outputs_of_the_backbone_do_not_change():
    plain, inserted = backbone(), backbone()
    insert_non_local(inserted, {"res3": [0, 1, 2, 3], "res4": [5]}, make)
    state = inserted.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert {name.split(".")[1] for name in set(state) - set(plain.state_dict())} == {
        "nl0",
        "nl1",
        "nl2",
        "nl3",
        "nl5",
    }
    x = torch.randn(1, 3, 4, 32, 32)
    # A new block adds exact zeros, so the outputs are equal on every processor.
    assert torch.equal(inserted.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"res6": [0]}, "res6=[0]: there is no such stage; choose from res2, res3, res4, res5"),
        ({"res3": [1, 4]}, "res3=[1, 4]: res3 has blocks 0 to 3, not 4"),
        ({"res4": [-1]}, "res4=[-1]: res4 has blocks 0 to 5, not -1"),
    ],
)
def test_an_unknown_position_is_refused(after: dict[str, list[int]], message: str):
    with pytest.raises(ArgumentError) as caught:
        insert_non_local(backbone(), after, make)
    assert str(caught.value) == message
