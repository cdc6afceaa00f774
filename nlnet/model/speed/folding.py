"""Norms folded into the convolutions in front of them: an evaluation without norms."""

import copy

import torch
from torch import Tensor, nn

from nlnet.model.classifier import VideoClassifier
from nlnet.model.norm import Affine3d, FrozenBatchNorm3d

FIXED = (nn.BatchNorm3d, FrozenBatchNorm3d, Affine3d)  # in eval mode, an affine map per channel
PAIRS = {  # the norm behind a convolution, by their names in a block
    "conv1": "norm1",
    "conv_a": "norm_a",
    "conv_b": "norm_b",
    "conv_c": "norm_c",
    "shortcut": "shortcut_norm",
    "out": "norm",
}


def fold_norms(model: VideoClassifier) -> VideoClassifier:
    """A copy for evaluation whose convolutions do the work of the norms behind them.

    Its scores equal the model's to rounding. The model stays as it is, for training and for
    checkpoints; the copy has other weights, of other names, and follows no later change.
    """
    folded = copy.deepcopy(model).eval()
    for block in folded.modules():
        layers = dict(block.named_children())
        for conv_name, norm_name in PAIRS.items():
            conv, norm = layers.get(conv_name), layers.get(norm_name)
            if isinstance(conv, nn.Conv3d) and isinstance(norm, FIXED):
                fold(conv, norm)
                block.set_submodule(norm_name, nn.Identity())
    return folded


@torch.no_grad()
def fold(conv: nn.Conv3d, norm: nn.Module) -> None:
    """Make the convolution compute norm(conv(x))."""
    scale, shift = affine_of(norm, conv.out_channels)
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1, 1)
    bias = shift if conv.bias is None else shift + scale * conv.bias.double()
    conv.weight.copy_(weight)
    conv.bias = nn.Parameter(bias.to(conv.weight))


def affine_of(norm: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel, float64: what the norm makes of 1 and of 0."""
    exact = copy.deepcopy(norm).double()
    device = next(exact.parameters()).device
    probe = torch.zeros(2, channels, 1, 1, 1, dtype=torch.float64, device=device)
    probe[1] = 1
    shift, one = exact(probe).flatten(1)
    return one - shift, shift
