"""Non-local blocks in a finished backbone: places, names, and what stays as it was."""

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


def test_blocks_stand_behind_the_residual_blocks_named():
    net = backbone()
    insert_non_local(net, {"res3": [1, 3], "res4": [0]}, make)
    names = [name for name, _ in net.get_submodule("res3").named_children()]
    assert names == ["block0", "block1", "nl1", "block2", "block3", "nl3"]
    names = [name for name, _ in net.get_submodule("res4").named_children()]
    assert names == ["block0", "nl0", *(f"block{i}" for i in range(1, 6))]


def test_each_stage_s_block_has_its_channels():
    asked: list[tuple[str, int]] = []

    def note(stage: str, channels: int) -> nn.Module:
        asked.append((stage, channels))
        return nn.Identity()

    net = backbone()
    insert_non_local(net, {"res2": [0], "res5": [2]}, note)
    assert asked == [("res2", net.channels["res2"]), ("res5", net.channels["res5"])]


def test_names_and_weights_of_the_backbone_stay_and_so_does_its_answer():
    plain, furnished = backbone(), backbone()
    insert_non_local(furnished, {"res3": [0, 1, 2, 3], "res4": [5]}, make)
    state = furnished.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert {name.split(".")[1] for name in set(state) - set(plain.state_dict())} == {
        "nl0",
        "nl1",
        "nl2",
        "nl3",
        "nl5",
    }
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(furnished.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"res6": [0]}, "res6=[0]: there is no such stage; choose from res2, res3, res4, res5"),
        ({"res3": [1, 4]}, "res3=[1, 4]: res3 has blocks 0 to 3, not 4"),
        ({"res4": [-1]}, "res4=[-1]: res4 has blocks 0 to 5, not -1"),
    ],
)
def test_a_place_that_is_not_there_is_refused(after: dict[str, list[int]], message: str):
    with pytest.raises(ArgumentError) as caught:
        insert_non_local(backbone(), after, make)
    assert str(caught.value) == message
