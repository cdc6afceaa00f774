"""I3D distinguishes the directions of time, and C2D does not, with or without blocks."""

import pytest
import torch

from nlnet.config import NonLocalConfig, ResNetConfig, StageKernels
from nlnet.model.build import build_model
from nlnet.model.non_local.build import BLOCKS
from nlnet.model.non_local.pairwise import PAIRWISE


def logits_of_both_directions(
    temporal_kernel: int, block: str | None, pairwise: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a random clip of 8 frames and of the same clip in reverse."""
    torch.manual_seed(0)
    kernels = [temporal_kernel]
    places = [] if block is None else [0]
    member = NonLocalConfig(
        res3=places, res4=places, block=block or "non_local", pairwise=pairwise, zero_init=False
    )
    cfg = ResNetConfig(
        depth=14,
        width=4,
        temporal_kernels=StageKernels(kernels, kernels, kernels, kernels),
        zero_init_residual=False,
        non_local=member,
    )
    model = build_model(cfg, num_classes=5).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # blocks far from the identity
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
        clip = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
        return model(clip), model(clip.flip(2))


MEMBERS: list[tuple[str | None, str]] = [("non_local", name) for name in PAIRWISE] + [
    (name, "embedded_gaussian") for name in BLOCKS if name != "non_local"
]
MEMBERS.append((None, "embedded_gaussian"))  # no blocks


@pytest.mark.parametrize(("block", "pairwise"), MEMBERS)
def test_c2d_does_not_distinguish_the_directions_of_time(block: str | None, pairwise: str):
    forwards, backwards = logits_of_both_directions(1, block, pairwise)
    torch.testing.assert_close(forwards, backwards, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("block", "pairwise"), MEMBERS)
def test_i3d_distinguishes_the_directions_of_time(block: str | None, pairwise: str):
    forwards, backwards = logits_of_both_directions(3, block, pairwise)
    assert (forwards - backwards).abs().max() > 1e-3 * forwards.abs().max()
