"""The settings of CUDA devices. torch keeps them on a machine without a GPU, too."""

import pytest
import torch
from torch.backends import cuda, cudnn

from nlnet.config import TrainerConfig
from nlnet.trainer.build import build_cuda_arithmetic


def settings() -> tuple[bool, str, str]:
    return cudnn.benchmark, cuda.matmul.fp32_precision, cudnn.conv.fp32_precision


CHOICES = {
    "default": ({}, (True, "tf32", "tf32")),
    "float32": ({"tf32": False}, (True, "ieee", "ieee")),
    "no timing": ({"cudnn_benchmark": False}, (False, "tf32", "tf32")),
    "deterministic": ({"deterministic": True}, (False, "tf32", "tf32")),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_the_settings_hold_inside_only(choice: str):
    changes, expected = CHOICES[choice]
    before = settings()
    with (
        pytest.raises(ZeroDivisionError),
        build_cuda_arithmetic(TrainerConfig(**changes)),
    ):
        assert settings() == expected
        raise ZeroDivisionError
    assert settings() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tf32_is_used_where_it_is_chosen():
    a = torch.randn(512, 512, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    exact = a.double() @ a.double()
    error = {}
    for tf32 in (True, False):
        with build_cuda_arithmetic(TrainerConfig(tf32=tf32)):
            error[tf32] = float((a @ a - exact).norm() / exact.norm())
    assert error[False] < 1e-6 < error[True] < 2**-9
