"""Rows of every block against the N x M matrices of the equations, and the sums that they make."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from nlnet.bench.memory import peak_resident_bytes, reset_peak, resident_bytes
from nlnet.config import NonLocalConfig
from nlnet.errors import ArgumentError
from nlnet.model.non_local import rows as rows_module
from nlnet.model.non_local.axes import AXES
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.build import BLOCKS, build_block
from nlnet.model.non_local.layers import SUBSAMPLES, Embedding, Logits, Subsample
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.model.non_local.rows import (
    BLOCK_TYPES,
    attention_rows,
    effective_positions,
    mean_row,
    most_concentrated_query,
)
from tests.model.non_local import reference_block
from tests.model.non_local.reference_block import conv, part, regions

SIZES = (4, 5, 4)
QUERIES = [(0, 0, 0), (3, 4, 3), (1, 2, 3), (2, 0, 1)]


def randomized(block: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.double().eval()


def video(channels: int, sizes: tuple[int, int, int] = SIZES) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, channels, *sizes, dtype=torch.float64)


@contextmanager
def input_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """What enters a module while the block computes."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    yield seen
    hook.remove()


def sums(weights: Tensor, values: Tensor) -> Tensor:
    """sum_j w_ij v_j: rows (Q, T', H', W'), values (1, C, T', H', W') -> (Q, C)."""
    return torch.einsum("qthw,cthw->qc", weights, values[0])


def output_at(y: Tensor, queries: list[tuple[int, int, int]]) -> Tensor:
    """Tokens (1, T, H, W, C) at the queries: (Q, C)."""
    return torch.stack([y[0, t, i, j] for t, i, j in queries])


def pooled(x: Tensor, where: str, when: str) -> Tensor:
    return torch.nn.functional.max_pool3d(x, (1, 2, 2)) if where == when else x


@pytest.mark.parametrize("where", SUBSAMPLES)
@pytest.mark.parametrize("axes", [name for name in AXES if name != "criss_cross"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_values_summed_with_a_row_are_the_output(pairwise: str, axes: str, where: str):
    block = randomized(NonLocalBlock(6, pairwise=pairwise, axes=axes, subsample=Subsample(where)))
    x = video(6)
    with input_of(block.get_submodule("out")) as y:
        block(x)
    rows = attention_rows(block, x, QUERIES)
    pool = where if axes not in ("time", "row_column") else "none"
    g = pooled(conv(block, "g", pooled(x, pool, "input")), pool, "embedded")
    torch.testing.assert_close(sums(rows.total(), g), output_at(y[0], QUERIES))


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_values_summed_with_a_composed_row_are_the_output_of_criss_cross(pairwise: str):
    block = NonLocalBlock(6, pairwise=pairwise, axes="criss_cross", subsample=Subsample("none"))
    x = video(6)
    randomized(block)
    with input_of(block.get_submodule("out")) as y:
        block(x)
    rows = attention_rows(block, x, QUERIES)
    assert rows.kernel == (1, 1, 1)
    torch.testing.assert_close(sums(rows.total(), conv(block, "g", x)), output_at(y[0], QUERIES))


@pytest.mark.parametrize("where", ["input", "embedded"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_row_of_pooled_criss_cross_is_the_mean_of_the_rows_of_the_channels(
    pairwise: str, where: str
):
    """The maximum takes one position in each channel, so the row of a channel is a derivative."""
    block = NonLocalBlock(6, pairwise=pairwise, axes="criss_cross", subsample=Subsample(where))
    x = video(6)
    randomized(block)
    rows = attention_rows(block, x, QUERIES)
    g = conv(block, "g", x).detach().requires_grad_()
    theta = block.queries(x.permute(0, 2, 3, 4, 1))
    tokens = x.permute(0, 2, 3, 4, 1).contiguous()
    time, space = block.passes
    first = block.attend_along(time, theta, tokens, values=g.permute(0, 2, 3, 4, 1))
    y = block.attend_along(space, theta, tokens, values=first)
    for k, (t, i, j) in enumerate(QUERIES):
        total = torch.zeros_like(g[0, 0])
        for channel in range(g.shape[1]):
            (slope,) = torch.autograd.grad(y[0, t, i, j, channel], g, retain_graph=True)
            total += slope[0, channel] / g.shape[1]
        torch.testing.assert_close(rows.total()[k], total)


@pytest.mark.parametrize("where", SUBSAMPLES)
@pytest.mark.parametrize("axes", [name for name in AXES if name != "criss_cross"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_row_is_that_of_the_equation(pairwise: str, axes: str, where: str):
    """In the reference block each position is a channel of g: then y_i is the row of i."""
    logits = Logits(temperature=0.5)
    block = NonLocalBlock(
        6, pairwise=pairwise, axes=axes, logits=logits, subsample=Subsample(where)
    )
    x = video(6)
    randomized(block)
    rows = attention_rows(block, x, QUERIES)
    pool = where if axes not in ("time", "row_column") else "none"
    embedded = pairwise not in ("gaussian", "unary")

    def keys(name: str) -> Tensor:
        return pooled(conv(block, name, pooled(x, pool, "input")), pool, "embedded")

    theta = conv(block, "theta", x) if embedded else x
    phi = keys("phi") if embedded else pooled(pooled(x, pool, "input"), pool, "embedded")
    mask = keys("mask") if pairwise in ("unary", "disentangled") else None
    sizes = phi.shape[2:]
    one_hot = torch.eye(sizes.numel(), dtype=torch.float64).view(1, -1, *sizes)
    y = torch.zeros(1, sizes.numel(), *x.shape[2:], dtype=torch.float64)
    width = SIZES[2] if axes == "row_column" else None
    options: dict[str, object] = {"scale": True, "temperature": 0.5, "width": width}
    if pairwise == "concatenation":
        options["weight"] = block.get_parameter("pairwise.weight")
    for region in regions(x.shape, axes, None):
        m = None if mask is None else part(mask, region).squeeze(2)
        maps = (part(theta, region), part(phi, region), part(one_hot, region))
        out = reference_block.group_sum(pairwise, *maps, m, options)
        reference_block.place(y, region, out)
    for k, (t, i, j) in enumerate(QUERIES):
        torch.testing.assert_close(rows.total()[k].flatten(), y[0, :, t, i, j].detach())


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("axes", AXES)
def test_a_group_of_frames_attends_to_itself_alone(pairwise: str, axes: str):
    block = NonLocalBlock(6, pairwise=pairwise, axes=axes, group_frames=2)
    randomized(block)
    rows = attention_rows(block, video(6), QUERIES).total()
    for row, (t, _, _) in zip(rows, QUERIES, strict=True):
        outside = row[2:] if t < 2 else row[:2]
        assert not outside.any()
        if axes == "space":
            assert row.abs().flatten(1).sum(dim=1).nonzero().flatten().tolist() == [t]


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("axes", AXES)
def test_softmax_rows_have_the_sum_one(pairwise: str, axes: str):
    block = randomized(NonLocalBlock(6, pairwise=pairwise, axes=axes))
    rows = attention_rows(block, video(6), QUERIES)
    assert rows.softmax == (pairwise not in ("dot_product", "concatenation"))
    assert set(rows.terms) == {
        "disentangled": {"pairwise", "unary"},
        "unary": {"unary"},
    }.get(pairwise, {"pairwise"})
    first_round = 2 if (pairwise, axes) == ("disentangled", "criss_cross") else 1
    for weights in rows.terms.values():
        if rows.softmax:
            assert (weights >= 0).all()
            torch.testing.assert_close(
                weights.flatten(1).sum(dim=1), torch.full((4,), first_round, dtype=torch.float64)
            )


@pytest.mark.parametrize("axes", ["spacetime", "space", "time"])
@pytest.mark.parametrize("name", ["simplified", "global_context", "global_context_mul"])
def test_a_context_block_has_one_map_for_all_queries_of_a_group(name: str, axes: str):
    block = build_block(NonLocalConfig(block=name, axes=axes), 16, None)
    randomized(block)
    x = video(16)
    rows = attention_rows(block, x, QUERIES)
    assert rows.shared
    first = "out" if name == "simplified" else "reduce"
    with input_of(block.get_submodule(first)) as contexts:  # (groups, 1, C)
        block(x)
    got = sums(rows.terms["unary"], x)
    width = SIZES[2]
    group = {
        "spacetime": [0 for _ in QUERIES],
        "space": [k for k, _, _ in QUERIES],
        "time": [i * width + j for _, i, j in QUERIES],
    }[axes]
    torch.testing.assert_close(got, contexts[0][group, 0])


@pytest.mark.parametrize("axes", ["spacetime", "space", "time"])
def test_the_features_summed_with_a_row_of_double_attention_are_its_output(axes: str):
    block = build_block(NonLocalConfig(block="double_attention", axes=axes), 8, None)
    randomized(block)
    x = video(8)
    with input_of(block.get_submodule("out")) as y:
        block(x)
    rows = attention_rows(block, x, QUERIES)
    got = sums(rows.total(), conv(block, "phi", x))
    torch.testing.assert_close(got, output_at(y[0].view(1, *SIZES, -1), QUERIES))
    assert (rows.total() >= 0).all()


def test_compact_generalized_is_refused_with_the_remedy():
    block = build_block(NonLocalConfig(block="compact_generalized"), 16, None)
    with pytest.raises(ArgumentError, match=r"^block=CompactGeneralizedBlock .*Grad-CAM"):
        attention_rows(block, video(16), QUERIES)


def test_every_block_of_the_family_is_known():
    for name in BLOCKS:
        assert isinstance(build_block(NonLocalConfig(block=name), 16, None), BLOCK_TYPES)


@pytest.mark.parametrize("query", [(4, 0, 0), (0, 5, 0), (0, 0, -1)])
def test_a_query_outside_the_map_is_refused(query: tuple[int, int, int]):
    with pytest.raises(ArgumentError, match=r"queries=.*outside the map of \(4, 5, 4\)"):
        attention_rows(NonLocalBlock(6), video(6).float(), [query])


def test_the_kernel_of_a_key_is_reduced_to_the_map():
    block = NonLocalBlock(6, subsample=Subsample("input", (2, 9, 2)))
    rows = attention_rows(block, video(6).float(), QUERIES)
    assert rows.kernel == (2, 5, 2)
    assert rows.total().shape == (4, 2, 1, 2)


def test_effective_positions_counts_equal_weights():
    rows = torch.zeros(3, 2, 2, 2)
    rows[0, 0, 0, 0] = 0.3
    rows[1, :, 0, 0] = -2
    rows[2] = 1
    torch.testing.assert_close(effective_positions(rows), torch.tensor([1.0, 2.0, 8.0]))


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_most_concentrated_query_is_the_best_of_all(pairwise: str):
    block = randomized(NonLocalBlock(6, pairwise=pairwise, embedding=Embedding()))
    x = video(6)
    t, h, w = SIZES
    everywhere = [(k, i, j) for k in range(t) for i in range(h) for j in range(w)]
    counts = effective_positions(attention_rows(block, x, everywhere).total())
    assert most_concentrated_query(block, x) == everywhere[int(counts.argmin())]


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_mean_row_is_the_mean_of_all_rows(pairwise: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows_module, "CANDIDATES", 7)
    block = randomized(NonLocalBlock(6, pairwise=pairwise))
    t, h, w = SIZES
    everywhere = [(k, i, j) for k in range(t) for i in range(h) for j in range(w)]
    wanted = attention_rows(block, video(6), everywhere)
    got = mean_row(block, video(6))
    assert set(got.terms) == set(wanted.terms)
    for name, weights in wanted.terms.items():
        torch.testing.assert_close(got.terms[name], weights.mean(dim=0, keepdim=True))


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["spacetime", "criss_cross"])
def test_a_clip_of_128_frames_needs_less_than_a_gigabyte(axes: str):
    """res3 of a network of 128 frames of 224 pixels, 64 x 28 x 28 positions; N x M is 39 GB."""
    block = NonLocalBlock(512, axes=axes).eval()
    x = torch.randn(1, 512, 64, 28, 28)
    before = resident_bytes()
    reset_peak()
    rows = attention_rows(block, x, [(32, 14, 14)])
    assert rows.total().numel() in (64 * 14 * 14, 64 * 28 * 28)
    assert peak_resident_bytes() - before < 2**30
