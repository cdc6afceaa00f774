"""Insertion of non-local blocks into networks: positions, names, and unchanged parts."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet18
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation import deeplabv3_resnet50, fcn_resnet50
from torchvision.models.video import r3d_18

import nlnet
from nlnet.errors import ArgumentError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.build import BLOCKS
from nlnet.model.non_local.insertion import insert_non_local
from nlnet.model.non_local.stages import remove_non_local
from nlnet.model.resnet3d import ResNet3d

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def backbone() -> ResNet3d:
    torch.manual_seed(0)
    ones = {stage: [1] for stage in ("res2", "res3", "res4", "res5")}
    return ResNet3d(50, ones, width=4)


def make(stage: str, channels: int) -> nn.Module:
    return NonLocalBlock(channels)


class Residual(nn.Module):
    """x + conv(x), with more channels if there is a projection."""

    def __init__(self, dims: int, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = CONVS[dims](in_channels, channels, 3, padding=1)
        self.project = CONVS[dims](in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.project(x) + self.conv(x))


def small(dims: int = 2) -> nn.Sequential:
    """Two stages of two residual blocks, 16 and 32 channels."""
    torch.manual_seed(0)
    stages = nn.Sequential()
    for name, in_channels, channels in (("layer1", 16, 16), ("layer2", 16, 32)):
        blocks = Residual(dims, in_channels, channels), Residual(dims, channels, channels)
        stages.add_module(name, nn.Sequential(*blocks))
    return stages


# Backbones of nlnet


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


# Networks of torchvision


def resnet() -> nn.Module:
    return resnet18(weights=None)


def video_resnet() -> nn.Module:
    return r3d_18(weights=None)


def fpn() -> nn.Module:
    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=3)


def fcn() -> nn.Module:
    return fcn_resnet50(weights=None, weights_backbone=None, num_classes=3)


def deeplab() -> nn.Module:
    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3)


def mask_rcnn() -> nn.Module:
    sizes = {"min_size": 64, "max_size": 64}
    return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, **sizes)


NETWORKS: list[Any] = [
    pytest.param(resnet, {"layer3": [0, 1], "layer2": [1]}, (2, 3, 64, 64), id="resnet"),
    pytest.param(fpn, {"body.layer3": [0, 1]}, (2, 3, 64, 64), id="fpn"),
    pytest.param(video_resnet, {"layer3": [1]}, (2, 3, 4, 32, 32), id="r3d"),
    pytest.param(fcn, {"backbone.layer3": [1, 3, 5]}, (2, 3, 32, 32), id="fcn"),
    pytest.param(deeplab, {"backbone.layer3": [5]}, (2, 3, 32, 32), id="deeplab"),
    pytest.param(mask_rcnn, {"backbone.body.layer3": [1, 3, 5]}, (2, 3, 64, 64), id="mask_rcnn"),
]
for slow in NETWORKS[3:]:
    NETWORKS[NETWORKS.index(slow)] = pytest.param(
        *slow.values, id=slow.id, marks=[pytest.mark.slow]
    )


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """All tensors that a network returns, with dropout from a fixed seed."""
    torch.manual_seed(1)
    is_detector = type(model).__name__ == "MaskRCNN"
    boxes = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    boxes["masks"] = torch.ones(1, *x.shape[-2:], dtype=torch.uint8)
    found = model(list(x), [boxes] * len(x)) if is_detector and model.training else None
    if found is None:
        found = model(list(x)) if is_detector else model(x)
    if isinstance(found, Tensor):
        return [found]
    records = found if isinstance(found, list) else [found]
    return [tensor for record in records for tensor in record.values()]


@pytest.mark.parametrize(("build", "after", "shape"), NETWORKS)
def test_a_network_is_unchanged_at_first_and_after_removal(
    build: Callable[[], nn.Module], after: dict[str, list[int]], shape: tuple[int, ...]
):
    """Outputs, names, values and objects; one run of a twin without blocks is the reference."""
    torch.manual_seed(0)
    model = build()
    twin = copy.deepcopy(model)
    before = dict(model.named_modules())
    names = insert_non_local(model, after)
    assert names == [f"{stage}.nl{i}" for stage, indices in after.items() for i in indices]
    x = torch.rand(shape)
    for training in (True, False):
        found, expected = (outputs(net.train(training), x) for net in (model, twin))
        assert len(found) == len(expected) > 0
        # A new block adds exact zeros, so the outputs are equal on every processor.
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    state, known = model.state_dict(), twin.state_dict()  # with the statistics of the norms
    assert all(torch.equal(state[name], value) for name, value in known.items())
    new = [name for name in state if name not in known]
    assert new and all(name.startswith(tuple(names)) for name in new)
    assert all(f"{name}.theta.weight" in new for name in names)
    report = model.load_state_dict(known, strict=False)
    assert not report.unexpected_keys and set(report.missing_keys) <= set(new)

    assert sorted(remove_non_local(model)) == sorted(names)
    after_removal = dict(model.named_modules())
    assert list(after_removal) == list(before)
    assert all(after_removal[name] is module for name, module in before.items())
    model.load_state_dict(known, strict=True)


def test_a_training_step_changes_the_blocks():
    model = resnet()
    names = insert_non_local(model, {"layer3": [0, 1]})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, 3, 64, 64)).logsumexp(1).sum().backward()
    optimizer.step()
    assert all(model.get_submodule(name).norm.weight.abs().sum() > 0 for name in names)


# Channels and dimensions


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("block", BLOCKS)
def test_channels_and_dimensions_are_found(block: str, dims: int):
    """Every block of the family; it starts as the identity, or as x / 2 where it multiplies."""
    plain, model = small(dims), small(dims)
    insert_non_local(model, {"layer1": [1], "layer2": [0, 1]}, block)
    x = torch.randn(2, 16, 4, 4, 4)[(...,) + (0,) * (3 - dims)]
    if block == "global_context_mul":
        for residual in (plain.layer1[1], plain.layer2[0], plain.layer2[1]):
            residual.register_forward_hook(lambda _, inputs, output: output / 2)
    assert torch.equal(model(x), plain(x))
    shapes = [block.weight.dim() for block in model.modules() if isinstance(block, CONVS[dims])]
    assert shapes == [dims + 2] * len(shapes)


class Attentive(nn.Module):
    """A residual block whose last convolution makes one map of weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.spatial = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y * self.spatial(y).sigmoid()


def test_channels_that_the_convolutions_do_not_show_are_asked_for():
    model = nn.Sequential(nn.Sequential(Attentive(8), Attentive(8)))
    with pytest.raises(ArgumentError, match=r"0=\[0\].*Attentive; give channels=\{'0': ...\}"):
        insert_non_local(model, {"0": [0]})
    assert insert_non_local(model, {"0": [0]}, channels={"0": 8}) == ["0.nl0"]
    model(torch.randn(1, 8, 4, 4))


def test_dimensions_that_the_convolutions_do_not_show_are_asked_for():
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Sigmoid()))
    with pytest.raises(ArgumentError, match="give channels="):
        insert_non_local(model, {"0": [0]})
    with pytest.raises(ArgumentError, match="ReLU; give dims=1, 2 or 3"):
        insert_non_local(model, {"0": [0]}, channels={"0": 8})
    assert insert_non_local(model, {"0": [0]}, channels={"0": 8}, dims=1) == ["0.nl0"]
    model(torch.randn(1, 8, 4))


# Options


def test_options_for_all_stages_and_for_one_stage():
    model = small()
    insert_non_local(
        model,
        {"layer1": [0], "layer2": [1]},
        pairwise="dot_product",
        subsample_kernel=(4, 2),
        ratio=0.25,
        per_stage={"layer2": {"ratio": 1.0, "norm": "none"}},
    )
    first, second = model.get_submodule("layer1.nl0"), model.get_submodule("layer2.nl1")
    assert isinstance(first, NonLocalBlock) and isinstance(second, NonLocalBlock)
    assert [type(block.pairwise).__name__ for block in (first, second)] == ["DotProduct"] * 2
    assert first.theta.weight.shape == (4, 16, 1, 1)
    assert second.theta.weight.shape == (32, 32, 1, 1)
    assert isinstance(first.norm, nn.BatchNorm2d) and isinstance(second.norm, nn.Identity)
    assert first.pooling_kernel(torch.empty(1, 1, 9, 9, 16)) == [1, 4, 2]


def test_group_frames_in_videos():
    model = small(3)
    insert_non_local(
        model, {"layer1": [0], "layer2": [0]}, per_stage={"layer2": {"group_frames": 2}}
    )
    assert model.get_submodule("layer1.nl0").group_frames is None
    assert model.get_submodule("layer2.nl0").group_frames == 2


def test_shared_blocks_of_a_stage_have_the_same_weights():
    model = small()
    names = insert_non_local(model, {"layer1": [0, 1], "layer2": [0, 1]}, share=True)
    blocks = [model.get_submodule(name) for name in names]
    assert blocks[0] is blocks[1] and blocks[2] is blocks[3] and blocks[0] is not blocks[2]
    restored = pickle.loads(pickle.dumps(model))
    assert restored.layer1.nl0 is restored.layer1.nl1
    assert list(restored.state_dict()) == list(model.state_dict())
    assert remove_non_local(model) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairwise": "cosine_"}, "pairwise=cosine_ is unknown; choose one of: gaussian"),
        ({"ratio": 0}, "ratio=0 must be a number above 0"),
        ({"pairwize": "gaussian"}, "pairwize='gaussian' is no option; choose from pairwise"),
        ({"block": "no_block"}, "block=no_block is unknown; choose one of: non_local"),
        ({"axes": "time"}, "axes=time is unknown"),
        ({"group_frames": 2}, "group_frames=2 needs frames"),
        ({"subsample_kernel": [1, 2, 2]}, "subsample_kernel=[1, 2, 2] must be 2 numbers"),
        ({"channels": {"layer7": 8}}, "channels={'layer7': ...}: layer7 gets no block"),
        ({"per_stage": {"layer7": {}}}, "per_stage={'layer7': ...}: layer7 gets no block"),
        ({"block": make, "ratio": 1.0}, "ratio: options need a block by its name"),
    ],
)
def test_a_wrong_option_is_refused_and_the_network_unchanged(
    arguments: dict[str, Any], message: str
):
    model = small()
    names = list(model.state_dict())
    with pytest.raises(ArgumentError) as caught:
        insert_non_local(model, {"layer1": [0], "layer2": [0]}, **arguments)
    assert str(caught.value).startswith(message)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("layer3", "layer3=[0]: there is no such stage; choose from layer1, layer2"),
        ("layer1.0", "layer1.0=[0]: layer1.0 is no Sequential; choose from layer1, layer2"),
    ],
)
def test_an_unknown_stage_is_refused(stage: str, message: str):
    model = nn.ModuleDict(dict(small().named_children()))
    with pytest.raises(ArgumentError) as caught:
        insert_non_local(model, {stage: [0]})
    assert str(caught.value) == message


def test_a_network_without_stages_is_refused():
    with pytest.raises(ArgumentError, match="no such stage; choose from none: it has no Seq"):
        insert_non_local(nn.ModuleList([nn.Conv1d(1, 1, 1)]), {"layer3": [0]})


def test_blocks_can_be_added_but_not_twice_at_one_place():
    model = small()
    insert_non_local(model, {"layer1": [1]})
    with pytest.raises(ArgumentError, match="a non-local block follows block 1 already"):
        insert_non_local(model, {"layer1": [0, 1]})
    insert_non_local(model, {"layer1": [0]})
    assert list(dict(model.layer1.named_children())) == ["0", "nl0", "1", "nl1"]
    assert remove_non_local(model) == ["layer1.nl0", "layer1.nl1"]
    assert remove_non_local(model) == []


def test_a_new_block_has_the_type_and_the_mode_of_its_place():
    model = small().double().eval()
    insert_non_local(model, {"layer1": [0]})
    block = model.get_submodule("layer1.nl0")
    assert not block.training and all(p.dtype == torch.float64 for p in block.parameters())
    meta = small().to("meta")
    insert_non_local(meta, {"layer1": [0]})
    assert all(parameter.is_meta for parameter in meta.parameters())


# What users do with a network


def inserted() -> nn.Sequential:
    """A small network whose blocks are not the identity."""
    model = small()
    for name in insert_non_local(model, {"layer1": [0], "layer2": [0, 1]}):
        nn.init.ones_(model.get_submodule(name).norm.weight)
    return model


IMAGES = torch.linspace(-1, 1, 2 * 16 * 8 * 8).view(2, 16, 8, 8)


def test_copies_and_pickles_are_independent_networks():
    model = inserted().eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(IMAGES), model(IMAGES))
        remove_non_local(other)
        assert "nl0" in dict(model.layer1.named_children())


def test_a_network_compiles_to_one_graph():
    model = inserted()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(IMAGES), model(IMAGES))
    torch.compiler.reset()


def test_a_network_is_exported():
    model = inserted().eval()
    program = torch.export.export(model, (IMAGES,))
    torch.testing.assert_close(program.module()(IMAGES), model(IMAGES))


def test_a_network_trains_in_parallel(tmp_path: Path):
    """All parameters get gradients, and the names have the prefix of DDP alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model, twin = inserted(), inserted()
        parallel = DistributedDataParallel(model)
        for network in (parallel, twin):
            network(IMAGES).square().mean().backward()
    finally:
        dist.destroy_process_group()
    assert list(parallel.state_dict()) == [f"module.{name}" for name in twin.state_dict()]
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad)


def test_the_functions_are_names_of_nlnet():
    assert nlnet.insert_non_local is insert_non_local
    assert nlnet.remove_non_local is remove_non_local
    assert nlnet.NonLocalBlock is NonLocalBlock
    with pytest.raises(AttributeError, match="has no attribute 'insert_nonlocal'"):
        nlnet.insert_nonlocal  # noqa: B018
