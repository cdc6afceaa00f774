"""Every block of the family equals its equation, and has the properties of the family."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from nlnet.config import NonLocalConfig
from nlnet.errors import ArgumentError, UsageError
from nlnet.model.non_local.axes import AXES
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.build import BLOCKS, build_block
from nlnet.model.non_local.kernels import softmax
from nlnet.model.non_local.layers import SUBSAMPLES, Embedding, Logits, Output, Subsample
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.model.norm import NORMS
from tests.model.non_local import reference_block

CONFIGS = Path(__file__).parents[3] / "configs"
MEMBERS = [f"non_local {name}" for name in PAIRWISE] + [b for b in BLOCKS if b != "non_local"]
WITHOUT_QUERIES = ["spacetime", "space", "time"]  # axes of all blocks
SWITCHES: dict[str, dict[str, Any]] = {
    "published": {},
    "unscaled": {"logits": Logits(scale=False)},
    "temperature": {"logits": Logits(temperature=0.05)},
    "quarter": {"embedding": Embedding(ratio=0.25)},
    "no_bias": {"embedding": Embedding(bias=False), "output": Output(bias=False, zero_init=False)},
    "shared": {"embedding": Embedding(shared=True)},
    "kaiming": {"embedding": Embedding(init="kaiming")},
    "gamma": {"output": Output(gamma=True, zero_init=False)},
    "frozen": {"output": Output(norm="frozen", zero_init=False)},
    "affine": {"output": Output(norm="affine", zero_init=False)},
    "no_norm": {"output": Output(norm="none", zero_init=False)},
    "pools_time": {"subsample": Subsample("input", (2, 2, 2))},
    "large_kernel": {"subsample": Subsample("embedded", (1, 9, 3))},
    "groups": {"group_frames": 2},
    "groups_through_time": {"group_frames": 2, "axes": "time"},
    "groups_criss_cross": {"group_frames": 2, "axes": "criss_cross"},
}


def randomized(block: nn.Module) -> nn.Module:
    """In double precision, with random weights: no term is small, and no weight is zero."""
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.double()


def video(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def config(member: str, **fields: Any) -> NonLocalConfig:
    """The config of a member of the family, by its words in MEMBERS."""
    words = member.split()
    pairwise = {"pairwise": words[1]} if len(words) > 1 else {}
    return NonLocalConfig(block=words[0], **pairwise, **fields)


def outcome(z: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(2)
    cotangent = torch.randn(z.shape, dtype=torch.float64).to(z.dtype)
    return [z.detach(), *torch.autograd.grad(z, inputs, cotangent, allow_unused=True)]


def assert_same(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for x, y in zip(got, wanted, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert (x.double() - y.double()).norm() <= tolerance * y.double().norm().clamp(min=1.0)


def learned(block: nn.Module) -> list[Tensor]:
    return [parameter for parameter in block.parameters() if parameter.requires_grad]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("where", SUBSAMPLES)
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_block_equals_its_equation(pairwise: str, axes: str, where: str):
    block = NonLocalBlock(4, pairwise=pairwise, axes=axes, subsample=Subsample(where))
    randomized(block)
    x = video(2, 4, 3, 5, 4)
    inputs = [x, *learned(block)]
    wanted = reference_block.non_local(block, x, pairwise=pairwise, axes=axes, where=where)
    assert_same(outcome(block(x), inputs), outcome(wanted, inputs), 1e-9)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_block_equals_its_equation_with_every_argument(pairwise: str, switch: str):
    keywords = SWITCHES[switch]
    block = NonLocalBlock(8, pairwise=pairwise, **keywords)
    randomized(block)
    x = video(2, 8, 4, 5, 4)
    inputs = [x, *learned(block)]
    logits = keywords.get("logits", Logits())
    subsample = keywords.get("subsample", Subsample())
    wanted = reference_block.non_local(
        block,
        x,
        pairwise=pairwise,
        axes=keywords.get("axes", "spacetime"),
        group_frames=keywords.get("group_frames"),
        where=subsample.where,
        kernel=subsample.lifted(3),
        scale=logits.scale,
        temperature=logits.temperature,
        shared=keywords.get("embedding", Embedding()).shared,
    )
    assert_same(outcome(block(x), inputs), outcome(wanted, inputs), 1e-9)


@pytest.mark.parametrize("group_frames", [None, 2])
@pytest.mark.parametrize("axes", WITHOUT_QUERIES)
@pytest.mark.parametrize("member", [b for b in BLOCKS if b != "non_local"])
def test_a_block_without_queries_equals_its_equation(
    member: str, axes: str, group_frames: int | None
):
    block = randomized(build_block(config(member, axes=axes), 16, group_frames))
    x = video(2, 16, 4, 3, 2)
    inputs = [x, *learned(block)]
    wanted = reference_block.BLOCKS[member](block, x, axes, group_frames)
    assert_same(outcome(block(x), inputs), outcome(wanted, inputs), 1e-9)


@pytest.mark.parametrize("gamma", [False, True])
@pytest.mark.parametrize("norm", [*sorted(set(NORMS) - {"sync"}), "none"])
@pytest.mark.parametrize("member", MEMBERS)
def test_a_block_starts_as_the_identity_and_can_learn(member: str, norm: str, gamma: bool):
    """At first z = x, or x / 2 for a block that multiplies; a parameter has a gradient.

    The output of a new block is exactly zero, so z = x bit for bit on every processor.
    """
    torch.manual_seed(0)
    block = build_block(config(member, norm=norm, gamma=gamma), 16, None)
    x = torch.randn(2, 16, 2, 4, 4)
    z = block(x)
    assert torch.equal(z, x / 2 if member == "global_context_mul" else x)
    gradients = torch.autograd.grad(z.square().sum(), learned(block), allow_unused=True)
    assert any(g is not None and g.norm() > 0 for g in gradients)
    assert not torch.equal(build_block(config(member, zero_init=False), 16, None)(x), x)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("member", MEMBERS)
def test_gradcheck(member: str, axes: str):
    if axes not in WITHOUT_QUERIES and not member.startswith("non_local"):
        with pytest.raises(UsageError, match=rf"model\.non_local\.axes={axes}"):
            build_block(config(member, axes=axes), 16, None)
        return
    block = randomized(build_block(config(member, axes=axes, norm="none"), 16, None))
    x = video(1, 16, 4, 4, 3)
    inputs = (x, *learned(block))
    assert torch.autograd.gradcheck(lambda x, *_: block(x), inputs, fast_mode=True)


@pytest.mark.parametrize("member", MEMBERS)
def test_the_memory_format_is_kept_and_does_not_change_the_values(member: str):
    block = randomized(build_block(config(member), 16, None)).float()
    x = video(2, 16, 3, 4, 5).detach().float().requires_grad_()
    last = x.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    z, z_last = block(x), block(last)
    inputs = learned(block)
    wanted, got = outcome(z, [x, *inputs]), outcome(z_last, [last, *inputs])
    assert_same(got, wanted, 1e-5)
    assert z.is_contiguous()
    assert z_last.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("member", MEMBERS)
def test_autocast_is_close_and_returns_float32(member: str):
    torch.manual_seed(0)
    block = build_block(config(member, zero_init=False, init="kaiming", norm="none"), 16, None)
    x = torch.randn(2, 16, 3, 4, 4, requires_grad=True)
    inputs = [x, *learned(block)]
    wanted = outcome(block(x), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        z = block(x)
    assert z.dtype == torch.float32
    got = outcome(z, inputs)
    for name, a, b in zip(("z", "x"), got, wanted, strict=False):
        assert (a - b).norm() < 0.03 * b.norm(), name


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("member", MEMBERS)
def test_a_compiled_block_is_one_graph_and_gives_the_same_values(member: str):
    torch._dynamo.reset()
    block = randomized(build_block(config(member), 16, None))
    x = video(2, 16, 3, 4, 4)
    inputs = [x, *learned(block)]
    compiled = torch.compile(block, fullgraph=True)
    assert_same(outcome(compiled(x), inputs), outcome(block(x), inputs), 1e-9)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_frames_of_other_groups_have_no_effect(pairwise: str):
    block = NonLocalBlock(8, pairwise=pairwise, group_frames=2, output=Output(norm="none"))
    randomized(block)
    x = video(1, 8, 6, 4, 4).detach()
    alone = torch.cat([block(x[:, :, i : i + 2]) for i in (0, 2, 4)], dim=2)
    assert torch.allclose(block(x), alone, atol=1e-9)


@pytest.mark.parametrize("member", ["simplified", "global_context", "non_local unary"])
def test_the_context_is_the_same_for_all_queries(member: str):
    """Output minus input is the same everywhere."""
    block = randomized(build_block(config(member, norm="none"), 8, None))
    x = video(1, 8, 3, 4, 4).detach()
    change = (block(x) - x).flatten(2)
    assert torch.allclose(change, change[:, :, :1].expand_as(change), atol=1e-9)


@pytest.mark.parametrize("pairwise", ["whitened", "disentangled"])
def test_a_constant_added_to_all_queries_or_keys_has_no_effect(pairwise: str):
    """The biases of theta and phi add such constants."""
    block = randomized(NonLocalBlock(8, pairwise=pairwise))
    x = video(1, 8, 3, 4, 4).detach()
    before = block(x)
    for name in ("theta.bias", "phi.bias"):
        nn.init.normal_(block.get_parameter(name))
    assert torch.allclose(block(x), before, atol=1e-9)


@contextmanager
def kept_bytes(kept: list[int]) -> Iterator[None]:
    """Append the sum of the sizes of the storages that autograd saves, each counted once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
    kept.append(sum(seen.values()))


def memory_of_a_step(block: nn.Module, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Bytes that the forward pass keeps, and the peak of a whole step."""
    x = torch.randn(1, 16, *sizes, requires_grad=True)
    kept: list[int] = []
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        with kept_bytes(kept):
            z = block(x)
        z.sum().backward()
    held, peak = 0, 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return kept[0], peak


@pytest.mark.parametrize("where", ["none", "input"])
@pytest.mark.parametrize("member", MEMBERS)
def test_memory_is_linear_in_the_positions(
    member: str, where: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch
):
    """Four times the frames take about four times the bytes; an affinity would take 16 times."""
    monkeypatch.setattr(softmax, "BLOCK", 128)
    block = build_block(config(member, subsample=where), 16, None)
    memory_of_a_step(block, (1, 16, 16))
    few, many = memory_of_a_step(block, (2, 16, 16)), memory_of_a_step(block, (8, 16, 16))
    affinity = 4 * (8 * 256) ** 2 // (4 if where == "input" else 1)
    for small, large in zip(few, many, strict=True):
        assert small < large < 5 * small
        assert large < affinity / 2


def test_the_memory_test_detects_an_affinity():
    """The direct form of the softmax keeps an affinity, so the test above would fail with it."""
    block = NonLocalBlock(16, subsample=Subsample("none"))
    few, many = memory_of_a_step(block, (2, 16, 16)), memory_of_a_step(block, (8, 16, 16))
    assert many[0] > 10 * few[0]


REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "block": (
        lambda: build_block(NonLocalConfig(block="nonlocal"), 8, None),
        "model.non_local.block=nonlocal is unknown; choose one of: non_local, simplified",
    ),
    "pairwise": (
        lambda: build_block(NonLocalConfig(pairwise="softmax"), 8, None),
        "model.non_local.pairwise=softmax is unknown; choose one of: gaussian",
    ),
    "axes": (
        lambda: build_block(NonLocalConfig(axes="spacetimes"), 8, None),
        "model.non_local.axes=spacetimes is unknown; choose one of: spacetime, space, time",
    ),
    "subsample": (
        lambda: build_block(NonLocalConfig(subsample="before"), 8, None),
        "model.non_local.subsample=before is unknown; choose one of: none, input, embedded",
    ),
    "kernel": (
        lambda: build_block(NonLocalConfig(subsample_kernel=[2, 2]), 8, None),
        "model.non_local.subsample_kernel=[2, 2] must be three numbers",
    ),
    "norm": (
        lambda: build_block(NonLocalConfig(norm="layer"), 8, None),
        "model.non_local.norm=layer is unknown; choose one of: batch",
    ),
    "init": (
        lambda: build_block(NonLocalConfig(init="zeros"), 8, None),
        "model.non_local.init=zeros is unknown; choose one of: normal, kaiming",
    ),
    "groups of channels": (
        lambda: build_block(NonLocalConfig(block="compact_generalized", ratio=0.3), 16, None),
        "model.non_local.ratio=0.3 makes 4 of 16 channels",
    ),
}
IN_A_FORWARD_PASS: dict[str, tuple[Callable[[], object], str]] = {
    "groups of frames": (
        lambda: NonLocalBlock(8, group_frames=3)(torch.zeros(1, 8, 4, 2, 2)),
        "group_frames=3 does not divide the 4 frames",
    ),
    "pooled groups": (
        lambda: NonLocalBlock(8, axes="space", subsample=Subsample("input", (2, 1, 1)))(
            torch.zeros(1, 8, 4, 2, 2)
        ),
        "subsample_kernel=[2, 1, 1] pools frames of different groups together",
    ),
}


@pytest.mark.parametrize("mistake", IN_A_FORWARD_PASS)
def test_a_wrong_argument_in_a_forward_pass_is_named(mistake: str):
    make, message = IN_A_FORWARD_PASS[mistake]
    with pytest.raises(ArgumentError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mistake", REFUSALS)
def test_a_wrong_value_is_reported_in_one_line_with_its_key(mistake: str):
    make, message = REFUSALS[mistake]
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def chosen(fields: Mapping[str, Any]) -> str:
    words = (fields["block"], fields["pairwise"] if fields["block"] == "non_local" else "")
    return " ".join(words).strip()


def test_every_member_has_a_config_and_is_in_the_sweep():
    files = {path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS.glob("block/*.yaml")}
    assert {chosen(fields) for fields in files.values()} == set(MEMBERS)
    sweep = yaml.safe_load((CONFIGS / "sweep/pairwise.yaml").read_text())
    swept = sweep["hydra"]["sweeper"]["params"]["block"].split(",")
    assert {chosen(files[name]) for name in swept} == set(MEMBERS)
    for fields in files.values():
        assert isinstance(build_block(NonLocalConfig(**fields), 32, None), nn.Module)
