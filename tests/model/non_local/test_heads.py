"""Blocks with several heads: the equation of each head, and the laws of blocks with one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nlnet.config import NonLocalConfig
from nlnet.errors import ArgumentError, UsageError
from nlnet.model.cost import multiply_adds
from nlnet.model.non_local.axes import AXES, AXES_OF
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.build import BLOCKS, build_block
from nlnet.model.non_local.kernels import softmax
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.model.non_local.rows import attention_rows, mean_row
from nlnet.model.non_local.tokens import lift, merge_heads, split_heads
from nlnet.model.non_local.whitening import CHANNELS, Whitening
from tests.model.non_local import reference_block
from tests.model.non_local.test_block import (
    assert_same,
    learned,
    memory_of_a_step,
    outcome,
    randomized,
    video,
)

SIZES = {1: (6,), 2: (3, 4), 3: (2, 3, 4)}
KERNELS = {1: (2, 1, 1), 2: (1, 2, 2), 3: (1, 2, 2)}
PLACES = [(dims, axes) for dims in SIZES for axes in AXES_OF[dims]]
SETTINGS: dict[str, dict[str, Any]] = {
    "a mask beside the function": {"logits": Logits(unary=("mask",))},
    "mask and query": {"logits": Logits(whiten=(Whitening(),), unary=("mask", "query"))},
    "terms apart": {
        "logits": Logits(unary=("mask",)),
        "output": Output(terms="apart", norm="none"),
    },
    "means over channels": {"logits": Logits(whiten=(Whitening((CHANNELS,), (CHANNELS,)),))},
    "embedding norm": {"embedding": Embedding(norm="batch")},
    "PReLU": {"pairwise": "concatenation", "embedding": Embedding(prelu=True)},
    "no projection": {"output": Output(project=False, norm="none", gamma=True)},
}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dims", "axes"), PLACES)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_block_equals_the_equation_of_its_heads(pairwise: str, dims: int, axes: str):
    block = NonLocalBlock(8, dims=dims, pairwise=pairwise, axes=axes, heads=2)
    randomized(block)
    x = video(2, 8, *SIZES[dims])
    wanted = reference_block.non_local(
        block, lift(x), pairwise=pairwise, axes=axes, kernel=KERNELS[dims], heads=2
    )
    inputs = [x, *learned(block)]
    assert_same(outcome(block(x), inputs), outcome(wanted.reshape(x.shape), inputs), 1e-9)


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_gradcheck(pairwise: str, dims: int):
    output = Output(norm="none")
    block = NonLocalBlock(8, dims=dims, pairwise=pairwise, heads=4, output=output)
    randomized(block)
    inputs = (video(1, 8, *SIZES[dims]), *learned(block))
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs, fast_mode=True)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_further_settings_have_right_gradients_and_rows_of_each_head(setting: str):
    block = NonLocalBlock(8, heads=2, **SETTINGS[setting])
    randomized(block).eval()
    x = video(1, 8, 2, 4, 4)
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, *learned(block)), fast_mode=True)
    if block.terms == "joint":
        assert_rows_of_heads(block, x.detach())


@pytest.mark.parametrize("axes", [name for name in AXES if name != "criss_cross"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_row_sums_the_values_of_its_head(pairwise: str, axes: str):
    block = NonLocalBlock(8, pairwise=pairwise, axes=axes, heads=2)
    randomized(block)
    assert_rows_of_heads(block, video(1, 8, 2, 4, 4).detach())


@pytest.mark.parametrize("where", ["none", "input"])
def test_a_row_of_criss_cross_is_that_of_its_head(where: str):
    """Its head computes alone: the block of one head with a part of the weights."""
    block = NonLocalBlock(8, axes="criss_cross", heads=2, subsample=Subsample(where))
    randomized(block)
    embedding = Embedding(inner=2)
    x = video(1, 8, 2, 4, 4).detach()
    for head in range(2):
        alone = NonLocalBlock(
            8, axes="criss_cross", embedding=embedding, subsample=Subsample(where)
        )
        randomized(alone)
        own = slice(2 * head, 2 * head + 2)
        for name in ("theta", "phi", "g"):
            for tensor in ("weight", "bias"):
                whole = block.get_parameter(f"{name}.{tensor}")
                alone.get_parameter(f"{name}.{tensor}").data.copy_(whole.data[own])
        got = attention_rows(block, x, QUERIES, head).total()
        torch.testing.assert_close(got, attention_rows(alone, x, QUERIES).total())


QUERIES = [(0, 0, 0), (1, 2, 3)]


def assert_rows_of_heads(block: NonLocalBlock, x: Tensor) -> None:
    seen: list[Tensor] = []
    block.get_submodule("out").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    if isinstance(block.out, nn.Identity):
        seen.append(block.attend(x.permute(0, 2, 3, 4, 1).contiguous()))
    block(x)
    y = torch.stack([seen[0][0][query] for query in QUERIES])
    tokens = x.permute(0, 2, 3, 4, 1).contiguous()
    g = block.keys_along(block.passes[0], tokens)[1][0]  # (T', H', W', e)
    rows = [attention_rows(block, x, QUERIES, head).total() for head in range(block.heads)]
    sums = [
        torch.einsum("qthw,thwc->qc", weights, values)
        for weights, values in zip(rows, g.chunk(block.heads, dim=3), strict=True)
    ]
    assert_same([torch.cat(sums, dim=1)], [y], 1e-12)
    mean = attention_rows(block, x, QUERIES).total()
    torch.testing.assert_close(mean, torch.stack(rows).mean(dim=0))


def test_softmax_rows_of_all_heads_have_the_sum_one():
    block = NonLocalBlock(8, heads=4)
    rows = mean_row(block, torch.randn(1, 8, 2, 4, 4))
    assert rows.softmax
    torch.testing.assert_close(rows.total().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("head", [-1, 2])
def test_rows_of_an_unknown_head_are_refused(head: int):
    block = NonLocalBlock(8, heads=2)
    with pytest.raises(ArgumentError, match=f"^head={head} is none of the 2 heads"):
        attention_rows(block, torch.zeros(1, 8, 2, 4, 4), QUERIES, head)


def test_heads_are_consecutive_channels():
    tokens = torch.arange(2 * 3 * 4).view(2, 3, 4)
    heads = split_heads(tokens, 2)
    for clip in range(2):
        for head in range(2):
            own = tokens[clip, :, 2 * head : 2 * head + 2]
            assert torch.equal(heads[2 * clip + head], own)
    assert torch.equal(merge_heads(heads, 2), tokens)
    assert split_heads(tokens, 1) is tokens
    assert merge_heads(tokens, 1) is tokens


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_block_starts_as_the_identity_and_keeps_the_names_of_one_head(pairwise: str):
    """The output of a new block is exactly zero, so z = x bit for bit on every processor.

    A mask of each head is the one parameter that has another shape.
    """
    block = NonLocalBlock(16, pairwise=pairwise, heads=4)
    x = torch.randn(2, 16, 2, 4, 4)
    z = block(x)
    assert torch.equal(z, x)
    gradients = torch.autograd.grad(z.square().sum(), learned(block), allow_unused=True)
    assert any(g is not None and g.norm() > 0 for g in gradients)
    one = NonLocalBlock(16, pairwise=pairwise).state_dict()
    many = block.state_dict()
    assert list(one) == list(many)
    others = {name for name in one if one[name].shape != many[name].shape}
    assert others == ({"mask.weight", "mask.bias"} & set(one))


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_permuted_positions_give_a_permuted_output(pairwise: str, dims: int):
    subsample = Subsample("none")
    block = NonLocalBlock(8, dims=dims, pairwise=pairwise, heads=4, subsample=subsample)
    randomized(block)
    x = video(2, 8, *SIZES[dims]).detach()
    order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(3))

    def permuted(maps: Tensor) -> Tensor:
        return maps.flatten(2)[:, :, order].reshape(maps.shape)

    assert_same([block(permuted(x))], [permuted(block(x))], 1e-12)


def test_narrow_heads_keep_smaller_affinities_and_one_head_keeps_what_it_kept():
    """Of several heads, 2^18 numbers each: above that it is slower, by measurement."""
    few, many, more = (torch.zeros(8, n, 32) for n in (512, 513, 2**13))
    assert all(softmax.affinity_is_small(few, few, heads) for heads in (1, 8))
    assert softmax.affinity_is_small(many, few)
    assert not softmax.affinity_is_small(many, few, 8)
    assert softmax.affinity_is_small(more, few)
    assert not softmax.affinity_is_small(more, many)


@pytest.mark.parametrize("pairwise", ["disentangled", "dot_product", "concatenation"])
def test_memory_is_linear_in_the_positions(
    pairwise: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch
):
    """Four times the frames take about four times the bytes; an affinity would take 16 times."""
    monkeypatch.setattr(softmax, "BLOCK", 64)
    block = NonLocalBlock(16, pairwise=pairwise, heads=4, subsample=Subsample("none"))
    memory_of_a_step(block, (1, 8, 8))
    few, many = memory_of_a_step(block, (3, 8, 8)), memory_of_a_step(block, (12, 8, 8))
    for small, large in zip(few, many, strict=True):
        assert small < large < 5 * small


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_autocast_is_close_and_returns_float32(pairwise: str):
    torch.manual_seed(0)
    output = Output(norm="none", zero_init=False)
    embedding = Embedding(init="kaiming")
    block = NonLocalBlock(16, pairwise=pairwise, heads=4, output=output, embedding=embedding)
    x = torch.randn(2, 16, 3, 4, 4)
    wanted = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        z = block(x)
    assert z.dtype == torch.float32
    assert (z - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.slow
@pytest.mark.parametrize("pairwise", ["disentangled", "dot_product", "concatenation"])
def test_a_compiled_block_is_one_graph(pairwise: str):
    torch._dynamo.reset()
    block = randomized(NonLocalBlock(8, dims=2, pairwise=pairwise, heads=2))
    x = video(2, 8, 4, 4)
    inputs = [x, *learned(block)]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    assert_same(outcome(compiled(x), inputs), outcome(block(x), inputs), 1e-9)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_heads_do_not_change_the_number_of_multiply_adds(pairwise: str):
    """N M (d + e) is divided over the heads."""
    counts = []
    for heads in (1, 4):
        block = NonLocalBlock(16, pairwise=pairwise, heads=heads)
        seen: list[int] = []
        block.pairwise.register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(
                multiply_adds(module, inputs, output)
            )
        )
        block(torch.zeros(2, 16, 2, 4, 4))
        counts.append(seen[0])
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    ("heads", "pairwise"), [(3, "dot_product"), (0, "gaussian"), (-1, "unary")]
)
def test_heads_that_do_not_divide_the_channels_are_refused(heads: int, pairwise: str):
    with pytest.raises(ArgumentError, match=rf"^heads={heads} does not divide the 8 inner"):
        NonLocalBlock(16, pairwise=pairwise, heads=heads)
    with pytest.raises(UsageError, match=rf"^model\.non_local\.heads={heads} "):
        build_block(NonLocalConfig(pairwise=pairwise, heads=heads), 16, None)


def test_the_channels_of_x_are_divided_too_where_they_are_theta():
    with pytest.raises(ArgumentError, match=r"^heads=4 does not divide the 10 inner"):
        NonLocalBlock(10, pairwise="gaussian", embedding=Embedding(inner=4), heads=4)


@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "non_local"])
def test_other_blocks_refuse_heads(name: str):
    with pytest.raises(UsageError, match=r"^model\.non_local\.heads=2 is only for"):
        build_block(NonLocalConfig(block=name, heads=2), 16, None)
