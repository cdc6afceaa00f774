"""Norms folded into the convolutions before them: evaluation without norms."""

import copy

import torch
from torch import Tensor, nn

from nlnet.model.classifier import VideoClassifier
from nlnet.model.norm import Affine3d, FrozenBatchNorm3d

FIXED = (nn.BatchNorm3d, FrozenBatchNorm3d, Affine3d)  # affine maps per channel in eval mode
PAIRS = {  # convolution -> the norm after it, by their names in a block
    "conv1": "norm1",
    "conv_a": "norm_a",
    "conv_b": "norm_b",
    "conv_c": "norm_c",
    "shortcut": "shortcut_norm",
    "out": "norm",
}


def fold_norms(model: VideoClassifier) -> VideoClassifier:
    """A copy of the model for evaluation, whose norms are part of its convolutions.

    Its scores equal those of the model up to rounding. The parameters of the copy have other
    values and names; the model itself is not changed.
    """
    folded = copy.deepcopy(model).eval()
    for block in folded.modules():
        layers = dict(block.named_children())
        for conv_name, norm_name in PAIRS.items():
            conv, norm = layers.get(conv_name), layers.get(norm_name)
            if isinstance(conv, nn.Conv3d) and isinstance(norm, FIXED):
                _fold_norm(conv, norm)
                block.set_submodule(norm_name, nn.Identity())
    return folded


@torch.no_grad()
def _fold_norm(conv: nn.Conv3d, norm: nn.Module) -> None:
    """Change the convolution's weight and bias so that it computes norm(conv(x))."""
    scale, shift = _affine_of(norm, conv.out_channels)
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1, 1)
    bias = shift if conv.bias is None else shift + scale * conv.bias.double()
    conv.weight.copy_(weight)
    conv.bias = nn.Parameter(bias.to(conv.weight))


def _affine_of(norm: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel in float64, from the norm's outputs for 1 and for 0."""
    exact = copy.deepcopy(norm).double()
    device = next(exact.parameters()).device
    probe = torch.zeros(2, channels, 1, 1, 1, dtype=torch.float64, device=device)
    probe[1] = 1
    shift, one = exact(probe).flatten(1)
    return one - shift, shift
