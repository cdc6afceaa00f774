"""The norms: fixed ones equal a batch norm in evaluation, the sync norm equals one large batch."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nlnet.distributed.launch import launch
from nlnet.model.norm import NORMS, Affine3d, SyncBatchNorm3d

RANK = """
import sys
import torch
from nlnet.distributed.ranks import process_group, rank
from nlnet.model.norm import SyncBatchNorm3d

folder, dtype = sys.argv[1], getattr(torch, sys.argv[2])
given = torch.load(f"{folder}/given.pt", weights_only=True)
with process_group(torch.device("cpu")):
    norm = SyncBatchNorm3d(given["x"].shape[1])
    norm.load_state_dict(given["norm"])
    share = slice(0, 3) if rank() == 0 else slice(3, None)
    x = given["x"][share].to(dtype).requires_grad_()
    y = norm(x)
    (y * given["pull"][share]).sum().backward()
    found = {"y": y, "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    found |= {name: value for name, value in norm.named_buffers()}
    torch.save({name: value.detach() for name, value in found.items()}, f"{folder}/{rank()}.pt")
"""


@pytest.fixture
def given() -> dict:
    """Inputs (8, 5, 2, 3, 4) with means far from 0, gradients of the output, and parameters."""
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm3d(5)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.normal_(generator=generator)
    x = 3 * torch.randn(8, 5, 2, 3, 4, generator=generator) + torch.arange(5).view(5, 1, 1, 1) * 7
    pull = torch.randn(8, 5, 2, 3, 4, generator=generator)
    return {"x": x, "pull": pull, "norm": norm.state_dict()}


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 2e-6), pytest.param("bfloat16", 3e-2, marks=pytest.mark.slow)],
)
def test_two_ranks_normalize_like_one_batch(
    given: dict, tmp_path: Path, dtype: str, tolerance: float
):
    """The ranks have 3 and 5 clips. Outputs, gradients and running statistics are compared."""
    torch.save(given, tmp_path / "given.pt")
    assert launch([sys.executable, "-c", RANK, str(tmp_path), dtype], 2) == 0
    first, second = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(2))

    norm = nn.BatchNorm3d(5).double()
    norm.load_state_dict(given["norm"])
    x = given["x"].to(getattr(torch, dtype)).double().requires_grad_()
    y = norm(x)
    (y * given["pull"].double()).sum().backward()
    for name, expected in (("y", y), ("x", x.grad)):
        found = torch.cat([first[name], second[name]])
        assert found.dtype == getattr(torch, dtype)
        scale = expected.abs().max().item()
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)
    for name, parameter in (("weight", norm.weight), ("bias", norm.bias)):
        found = (first[name] + second[name]).double()
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=100 * tolerance)
    for name, buffer in norm.named_buffers():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name].to(buffer), buffer, rtol=1e-5, atol=1e-6)


def test_with_one_rank_it_is_a_batch_norm(given: dict):
    plain, sync = nn.BatchNorm3d(5), SyncBatchNorm3d(5)
    for norm in (plain, sync):
        norm.load_state_dict(given["norm"])
    for mode in (True, False):  # the same code of torch runs, so the bits are equal everywhere
        assert torch.equal(plain.train(mode)(given["x"]), sync.train(mode)(given["x"]))
    assert torch.equal(plain.running_var, sync.running_var)


@pytest.mark.parametrize("name", NORMS)
def test_all_norms_are_equal_in_evaluation_and_share_names(given: dict, name: str):
    plain = nn.BatchNorm3d(5).eval()
    plain.load_state_dict(given["norm"])
    norm = NORMS[name](5).eval()
    if isinstance(norm, Affine3d):  # statistics are folded in
        scale = plain.weight.data / (plain.running_var + plain.eps).sqrt()
        norm.weight.data, norm.bias.data = scale, plain.bias.data - plain.running_mean * scale
    else:
        norm.load_state_dict(given["norm"])
    torch.testing.assert_close(norm(given["x"]), plain(given["x"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["frozen", "affine"])
def test_a_fixed_norm_does_not_learn(given: dict, name: str):
    norm = NORMS[name](5).train()
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    norm(given["x"].requires_grad_()).sum().backward()
    assert not any(parameter.requires_grad for parameter in norm.parameters())
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
