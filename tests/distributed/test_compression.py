"""Gradients that are sent in 16 bits."""

import json
from pathlib import Path

import pytest
import torch

from nlnet.errors import ArgumentError
from nlnet.trainer.prepare import COMPRESSIONS, wrap_for_training
from tests.distributed.conftest import TORCH_PRELUDE

CODE = """
    from torch import nn
    from nlnet.trainer.prepare import wrap_for_training
    found = {}
    for name in ("none", "bf16", "fp16"):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), nn.Conv3d(8, 4, 3))
        cpu = torch.device("cpu")
        network = wrap_for_training(network, device=cpu, gradient_compression=name)
        torch.manual_seed(1 + rank())
        network(torch.randn(2, 3, 6, 6, 6)).square().mean().backward()
        found[name] = torch.cat([p.grad.flatten() for p in network.parameters()]).tolist()
    note(json.dumps(found))
"""


def test_an_unknown_compression_is_refused():
    with pytest.raises(ArgumentError, match=r"^gradient_compression=int8 .*none, bf16, fp16"):
        wrap_for_training(
            torch.nn.Linear(1, 1), device=torch.device("cpu"), gradient_compression="int8"
        )


@pytest.mark.slow
def test_the_gradient_is_the_mean_of_the_ranks_up_to_the_rounding(ranks, tmp_path: Path):
    """Each rank rounds half of its gradient, and the sum is rounded: three half units."""
    assert ranks(TORCH_PRELUDE + CODE, 2) == 0
    first, second = (json.loads((tmp_path / str(i)).read_text()) for i in (0, 1))
    assert first == second
    assert set(first) == set(COMPRESSIONS)
    exact = torch.tensor(first["none"])
    for name, unit in (("bf16", 2**-8), ("fp16", 2**-11)):
        off = (torch.tensor(first[name]) - exact).abs()
        assert 0 < off.max() < 3 * unit * exact.abs().max()
        assert off.norm() < 2 * unit * exact.norm()
