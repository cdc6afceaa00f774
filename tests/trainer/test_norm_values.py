import pytest
import torch
from torch import nn

from nlnet.trainer.norm_values import smallest_norm


def network() -> nn.Module:
    first = nn.Sequential(nn.Conv3d(3, 4, 1, stride=2), nn.BatchNorm3d(4))
    return nn.Sequential(first, nn.Sequential(nn.Conv3d(4, 4, 1, stride=2), nn.BatchNorm3d(4)))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_it_is_the_batch_norm_that_torch_refuses(size: int):
    """torch raises ValueError where a channel has one value."""
    name, values = smallest_norm(network, (3, 3, size, size), freeze=())
    assert name == "1.1"
    outputs = [-(-side // 4) for side in (3, size, size)]
    assert values == outputs[0] * outputs[1] * outputs[2]
    if values > 1:
        network().train()(torch.randn(1, 3, 3, size, size))
    else:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            network().train()(torch.randn(1, 3, 3, size, size))


def test_frozen_parts_do_not_count():
    assert smallest_norm(network, (3, 3, 4, 4), freeze=["1"]) == ("0.1", 2 * 2 * 2)
    assert smallest_norm(network, (3, 3, 4, 4), freeze=["0", "1"]) == ("", 2)
