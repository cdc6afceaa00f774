"""The further settings of the blocks, which published forms need: laws, gradients, rows."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nlnet.errors import ArgumentError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.global_context import FUSIONS, POOLINGS, GlobalContextBlock
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.model.non_local.rows import attention_rows
from nlnet.model.non_local.whitening import CHANNELS, POSITIONS, Whitening
from tests.model.non_local.test_block import assert_same, learned, randomized, video

CENTERED = Whitening()
STANDARD = Whitening(deviation=True)
OVER_ALL = Whitening((POSITIONS, CHANNELS), (POSITIONS, CHANNELS))
SETTINGS: dict[str, dict[str, Any]] = {
    "a number as the scale": {"logits": Logits(scale=0.3)},
    "a scaled Gaussian": {"pairwise": "gaussian", "logits": Logits(scale=0.3)},
    "standardized": {"logits": Logits(whiten=(STANDARD,))},
    "two steps of whitening": {"logits": Logits(whiten=(CENTERED, OVER_ALL))},
    "mask": {"logits": Logits(unary=("mask",))},
    "both terms": {"logits": Logits(whiten=(CENTERED,), unary=("mask", "query"))},
    "weighted": {
        "logits": Logits(unary=("mask",)),
        "output": Output(gamma=True, terms="weighted", norm="none"),
    },
    "apart": {"logits": Logits(unary=("mask",)), "output": Output(terms="apart", norm="none")},
    "PReLU": {"embedding": Embedding(prelu=True)},
    "concatenation with PReLU": {"pairwise": "concatenation", "embedding": Embedding(prelu=True)},
    "weight norm": {"embedding": Embedding(shared=True, weight_norm=True)},
    "embedding norm": {"embedding": Embedding(norm="batch")},
    "no projection": {"output": Output(project=False, norm="none", gamma=True)},
    "no projection, no gamma": {"output": Output(project=False, norm="none")},
    "repeated": {"recurrence": 2, "axes": "row_column", "output": Output(norm="none")},
    "unpooled dot product": {
        "pairwise": "dot_product",
        "logits": Logits(whiten=(CENTERED,), unary=("mask",)),
        "subsample": Subsample("none"),
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_gradcheck(name: str):
    block = randomized(NonLocalBlock(6, dims=2, **SETTINGS[name])).eval()
    inputs = (video(2, 6, 4, 4), *learned(block))
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs, fast_mode=True)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "weighted"])
def test_a_block_starts_as_the_identity_and_can_learn(name: str):
    """The output of a new block is exactly zero, so z = x bit for bit on every processor.

    A term that is added without gamma, after the others, is the exception: see TERMS.
    """
    torch.manual_seed(0)
    block = NonLocalBlock(8, **SETTINGS[name])
    x = torch.randn(2, 8, 2, 4, 4)
    z = block(x)
    assert torch.equal(z, x)
    gradients = torch.autograd.grad(z.square().sum(), learned(block), allow_unused=True)
    assert any(g is not None and g.norm() > 0 for g in gradients)


def test_gamma_of_weighted_terms_is_not_that_of_the_unary_term():
    keywords = SETTINGS["weighted"]
    block = randomized(NonLocalBlock(8, **keywords))
    x = video(1, 8, 2, 4, 4).detach()
    nn.init.zeros_(block.get_parameter("gamma"))
    change = (block(x) - x).flatten(2)
    assert change.abs().max() > 0.1
    assert torch.allclose(change, change[:, :, :1].expand_as(change), atol=1e-12)


def test_the_bias_of_terms_apart_counts_twice():
    blocks = [
        randomized(
            NonLocalBlock(
                8, logits=Logits(unary=("mask",)), output=Output(terms=terms, norm="none")
            )
        )
        for terms in ("joint", "apart")
    ]
    x = video(1, 8, 2, 4, 4).detach()
    bias = blocks[0].get_parameter("out.bias").view(-1, 1, 1, 1)
    assert_same([blocks[1](x)], [blocks[0](x) + bias], 1e-12)


def test_a_disentangled_block_is_a_whitened_one_with_a_mask():
    """Two ways to say the same; the parameters have the same names."""
    logits = Logits(scale=8**-0.5 / 0.05, whiten=(CENTERED,), unary=("mask",))
    blocks = [
        randomized(NonLocalBlock(16, pairwise="disentangled", logits=Logits(temperature=0.05))),
        randomized(NonLocalBlock(16, logits=logits)),
    ]
    blocks[1].load_state_dict(blocks[0].state_dict())
    x = video(2, 16, 2, 4, 4).detach()
    assert_same([blocks[1](x)], [blocks[0](x)], 1e-12)


def test_weight_norm_divides_each_row_by_its_length():
    plain = randomized(NonLocalBlock(8, embedding=Embedding(shared=True)))
    normed = randomized(NonLocalBlock(8, embedding=Embedding(shared=True, weight_norm=True)))
    x = video(1, 8, 2, 4, 4).detach()
    state = normed.state_dict()
    lengths, directions = (state.pop(f"theta.parametrizations.weight.original{k}") for k in (0, 1))
    norms = directions.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
    state["theta.weight"] = lengths * directions / norms
    plain.load_state_dict(state)
    assert_same([normed(x)], [plain(x)], 1e-12)


@pytest.mark.parametrize("name", ["both terms", "standardized", "unpooled dot product", "PReLU"])
def test_the_values_summed_with_a_row_are_the_output(name: str):
    block = randomized(NonLocalBlock(6, **SETTINGS[name])).eval()
    x = video(1, 6, 2, 4, 4).detach()
    seen: list[Tensor] = []
    block.get_submodule("out").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block(x)
    queries = [(0, 0, 0), (1, 2, 3)]
    total = attention_rows(block, x, queries).total()
    assert isinstance(block, NonLocalBlock)
    tokens = x.permute(0, 2, 3, 4, 1).contiguous()
    g = block.keys_along(block.passes[0], tokens)[1][0]  # (T', H', W', d)
    got = torch.einsum("qthw,thwc->qc", total, g)
    assert_same([got], [torch.stack([seen[0][0][query] for query in queries])], 1e-12)


def test_a_repeated_block_has_no_rows():
    block = NonLocalBlock(8, recurrence=2)
    with pytest.raises(ArgumentError, match=r"^recurrence=2: a block that is repeated"):
        attention_rows(block, torch.zeros(1, 8, 2, 4, 4), [(0, 0, 0)])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_context_block_is_exact_and_starts_as_the_identity(fusion: str, pooling: str):
    block = GlobalContextBlock(8, dims=2, fusion=fusion, pooling=pooling)
    x = video(2, 8, 4, 4)
    z = block.double()(x)
    assert torch.equal(z, x if fusion == "add" else x / 2)
    assert all(parameter.dim() in (1, 4) for parameter in block.parameters())
    inputs = (x, *learned(randomized(block)))
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs, fast_mode=True)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "terms": ({"output": Output(terms="twice")}, "terms=twice is unknown; choose one of: joint"),
    "unary": ({"logits": Logits(unary=("keys",))}, "unary=keys is unknown; choose one of: mask"),
    "embedding norm": (
        {"embedding": Embedding(norm="layer")},
        "embedding_norm=layer is unknown; choose one of: none, batch",
    ),
    "two rounds": (
        {"axes": "criss_cross", "output": Output(terms="apart")},
        "terms=apart needs axes with one round of attention",
    ),
    "no mean": ({"logits": Logits(unary=("query",))}, "unary=query needs whitening of theta"),
    "concatenation": (
        {"pairwise": "concatenation", "logits": Logits(whiten=(STANDARD,))},
        "whiten: pairwise=Concatenation takes whitening by the mean over positions alone",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_combination_without_a_meaning_is_refused(mistake: str):
    keywords, message = REFUSED[mistake]
    with pytest.raises(ArgumentError) as caught:
        NonLocalBlock(8, **keywords)
    assert str(caught.value).startswith(message)
