"""Blocks for sequences and images: the laws of the blocks for videos."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nlnet.errors import ArgumentError
from nlnet.model.non_local.axes import AXES_OF
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.build import BLOCKS, build_block
from nlnet.model.non_local.kernels import softmax
from nlnet.model.non_local.layers import SUBSAMPLES, Embedding, Output, Subsample
from nlnet.model.non_local.pairwise import PAIRWISE, Maps
from nlnet.model.non_local.tokens import lift
from nlnet.model.norm import NORMS
from tests.model.non_local import reference_block
from tests.model.non_local.reference_block import as_video
from tests.model.non_local.test_block import (
    MEMBERS,
    assert_same,
    config,
    learned,
    memory_of_a_step,
    outcome,
    randomized,
    video,
)

SIZES = {1: (12,), 2: (5, 4)}
PLACES = [(dims, axes) for dims in SIZES for axes in AXES_OF[dims]]


def built(member: str, dims: int, channels: int = 16, **fields: Any) -> nn.Module:
    return build_block(config(member, **fields), channels, None, dims)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("where", SUBSAMPLES)
@pytest.mark.parametrize(("dims", "axes"), PLACES)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_block_equals_its_equation(pairwise: str, dims: int, axes: str, where: str):
    subsample = Subsample(where)
    block = NonLocalBlock(4, dims=dims, pairwise=pairwise, axes=axes, subsample=subsample)
    randomized(block)
    x = video(2, 4, *SIZES[dims])
    inputs = [x, *learned(block)]
    kernel = {1: (2, 1, 1), 2: (1, 2, 2)}[dims]
    wanted = reference_block.non_local(
        block, lift(x), pairwise=pairwise, axes=axes, where=where, kernel=kernel
    )
    z = block(x)
    assert z.shape == x.shape
    assert_same(outcome(z, inputs), outcome(wanted.reshape(x.shape), inputs), 1e-9)


@pytest.mark.parametrize(("dims", "axes"), [p for p in PLACES if p[1] != "row_column"])
@pytest.mark.parametrize("member", [b for b in BLOCKS if b != "non_local"])
def test_a_block_without_queries_equals_its_equation(member: str, dims: int, axes: str):
    block = randomized(built(member, dims, axes=axes))
    x = video(2, 16, *SIZES[dims])
    inputs = [x, *learned(block)]
    wanted = reference_block.BLOCKS[member](block, lift(x), axes, None).reshape(x.shape)
    assert_same(outcome(block(x), inputs), outcome(wanted, inputs), 1e-9)


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("member", MEMBERS)
def test_an_image_is_a_frame_and_a_sequence_is_a_line_of_frames(member: str, dims: int):
    """With the parameters of the block for videos, which differ in their shapes alone."""
    kernel = [1, 2, 2] if dims == 2 else [2, 1, 1]
    whole = randomized(built(member, 3, subsample_kernel=kernel))
    block = built(member, dims).double()
    state = block.state_dict()
    for name, tensor in whole.state_dict().items():
        assert as_video(state[name]).shape == tensor.shape or tensor.dim() < 5
        state[name].copy_(tensor.reshape(state[name].shape))
    convs = [tensor.dim() for name, tensor in state.items() if ".weight" in name]
    assert set(convs) <= {1, dims + 2}
    x = video(2, 16, *SIZES[dims])
    assert_same([block(x)], [whole(lift(x)).reshape(x.shape)], 1e-12)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("member", MEMBERS)
def test_gradcheck(member: str, dims: int):
    block = randomized(built(member, dims, norm="none"))
    inputs = (video(1, 16, *SIZES[dims]), *learned(block))
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs, fast_mode=True)


@pytest.mark.parametrize("norm", [*NORMS, "none"])
@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("member", MEMBERS)
def test_a_block_starts_as_the_identity_in_the_same_memory_format(
    member: str, dims: int, norm: str
):
    """The output of a new block is exactly zero, so z = x bit for bit on every processor."""
    block = built(member, dims, norm=norm)
    x = torch.randn(2, 16, *SIZES[dims])
    z = block(x)
    assert torch.equal(z, x / 2 if member == "global_context_mul" else x)
    assert z.is_contiguous()
    if dims == 2:
        last = block(x.contiguous(memory_format=torch.channels_last))
        assert torch.equal(last, z)
        assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", [*NORMS, "none"])
@pytest.mark.parametrize("dims", SIZES)
def test_a_norm_normalizes_as_that_of_videos_does(dims: int, norm: str):
    torch.manual_seed(0)
    blocks = [NonLocalBlock(4, dims=k, output=Output(norm=norm)) for k in (dims, 3)]
    norms = [block.get_submodule("norm") for block in blocks]
    for tensors in zip(*(module.state_dict().values() for module in norms), strict=True):
        if tensors[0].dim() == 1:
            tensors[0].uniform_(0.5, 1.5)
        tensors[1].copy_(tensors[0])
    x = torch.randn(2, 4, *SIZES[dims])
    for training in (True, False):
        got, wanted = (module.train(training) for module in norms)
        torch.testing.assert_close(got(x), wanted(lift(x)).reshape(x.shape))
    if norm == "batch":
        assert type(norms[0]) is {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims]


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("member", MEMBERS)
def test_permuted_positions_give_a_permuted_output(member: str, dims: int):
    block = randomized(built(member, dims, subsample="none"))
    x = video(2, 16, *SIZES[dims]).detach()
    order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(3))

    def permuted(maps: Tensor) -> Tensor:
        return maps.flatten(2)[:, :, order].reshape(maps.shape)

    assert_same([block(permuted(x))], [permuted(block(x))], 1e-12)


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("member", MEMBERS)
def test_autocast_is_close_and_returns_float32(member: str, dims: int):
    torch.manual_seed(0)
    block = built(member, dims, zero_init=False, init="kaiming", norm="none")
    x = torch.randn(2, 16, *SIZES[dims])
    wanted = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        z = block(x)
    assert z.dtype == torch.float32
    assert (z - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("sizes", [(256,), (16, 16)], ids=str)
@pytest.mark.parametrize("member", MEMBERS)
def test_memory_is_linear_in_the_positions(
    member: str, sizes: tuple[int, ...], small_blocks: None, monkeypatch: pytest.MonkeyPatch
):
    """Four times the positions take about four times the bytes, not 16 times."""
    monkeypatch.setattr(softmax, "BLOCK", 128)
    block = built(member, len(sizes), subsample="none")
    few, many = (memory_of_a_step(block, (k * sizes[0], *sizes[1:])) for k in (2, 8))
    for small, large in zip(few, many, strict=True):
        assert small < large < 5 * small
        assert large < 4 * (8 * 256) ** 2 / 2


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_rows_and_columns_under_autocast_and_in_linear_memory(pairwise: str):
    """A frame has as many weights as positions times H + W, so the frames count alone."""
    torch.manual_seed(0)
    output = Output(norm="none", zero_init=False)
    embedding = Embedding(init="kaiming")
    block = NonLocalBlock(
        16, pairwise=pairwise, axes="row_column", output=output, embedding=embedding
    )
    x = torch.randn(2, 16, 2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        z = block(x)
    wanted = block(x)
    assert z.dtype == torch.float32
    assert (z - wanted).norm() < 0.03 * wanted.norm()
    memory_of_a_step(block, (1, 16, 16))
    few, many = memory_of_a_step(block, (2, 16, 16)), memory_of_a_step(block, (8, 16, 16))
    for small, large in zip(few, many, strict=True):
        assert small < large < 5 * small


@pytest.mark.slow
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_compiled_rows_and_columns_are_one_graph(pairwise: str):
    torch._dynamo.reset()
    block = randomized(NonLocalBlock(6, dims=2, pairwise=pairwise, axes="row_column"))
    x = video(2, 6, 4, 3).detach()
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    assert_same([compiled(x)], [block(x)], 1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("member", MEMBERS)
def test_a_compiled_block_is_one_graph_and_gives_the_same_values(member: str, dims: int):
    torch._dynamo.reset()
    block = randomized(built(member, dims))
    x = video(2, 16, *SIZES[dims]).detach()
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    assert_same([compiled(x)], [block(x)], 1e-9)


def test_groups_of_positions_of_a_sequence_attend_to_themselves():
    block = randomized(NonLocalBlock(4, dims=1, group_frames=4, output=Output(norm="none")))
    x = video(2, 4, 12).detach()
    alone = torch.cat([block(x[:, :, i : i + 4]) for i in (0, 4, 8)], dim=2)
    assert_same([block(x)], [alone], 1e-12)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dims": ({"dims": 4}, "dims=4 is unknown; choose one of: 1, 2, 3"),
    "axes of a sequence": (
        {"dims": 1, "axes": "space"},
        "axes=space is unknown; choose one of: sequence",
    ),
    "axes of an image": (
        {"dims": 2, "axes": "spacetime"},
        "axes=spacetime is unknown; choose one of: space, row, column, row_column",
    ),
    "frames of an image": ({"dims": 2, "group_frames": 2}, "group_frames=2 needs frames"),
    "kernel": (
        {"dims": 2, "subsample": Subsample("input", (1, 2, 2))},
        "subsample_kernel=[1, 2, 2] must be 2 numbers",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_wrong_argument_is_named(mistake: str):
    keywords, message = REFUSED[mistake]
    with pytest.raises(ArgumentError) as caught:
        NonLocalBlock(8, **keywords)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_map_of_other_dimensions_is_refused(member: str):
    with pytest.raises(
        ArgumentError, match=r"^dims=2 needs a map \(B, C, H, W\), not \(2, 16, 3\)"
    ):
        built(member, 2)(torch.zeros(2, 16, 3))


def test_the_cost_of_rows_and_columns_counts_their_keys():
    theta, phi, g = torch.zeros(2, 12, 3), torch.zeros(2, 12, 3), torch.zeros(2, 12, 5)
    maps = Maps(theta, phi, g, None, width=4)  # 3 rows, so 6 keys of each query
    assert PAIRWISE["dot_product"](3).multiply_adds(maps) == 2 * 12 * 6 * (3 + 5)
    assert PAIRWISE["unary"](3).multiply_adds(maps) == 2 * 12 * 6 * 5
