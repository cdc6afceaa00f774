"""A network whose norms are folded into its convolutions has the same scores."""

import pytest
import torch
from torch import nn

from nlnet.model.classifier import Head, VideoClassifier
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.insertion import insert_non_local
from nlnet.model.non_local.layers import Output
from nlnet.model.resnet3d import ResNet3d
from nlnet.model.speed.folding import fold_norms

C2D = {"res2": [1], "res3": [1], "res4": [1], "res5": [1]}


def network(norm: str) -> VideoClassifier:
    torch.manual_seed(0)
    backbone = ResNet3d(14, C2D, width=8, norm=norm)
    insert_non_local(
        backbone, {"res3": [0]}, lambda _, size: NonLocalBlock(size, output=Output(norm=norm))
    )
    model = VideoClassifier(backbone, Head(256, 5, 0.5, None))
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("norm", ["batch", "sync", "frozen", "affine"])
def test_folding_does_not_change_the_scores(norm: str):
    model = network(norm)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_norms(model)
    video = torch.randint(0, 256, (2, 3, 4, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected, found = model(video), folded(video)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert not any("norm" in name for name, _ in folded.named_parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
