"""The convolutions of the networks of the paper on a CUDA device, in every reduced precision."""

from functools import partial
from pathlib import Path

import pytest
import torch

from nlnet.cli.compose import compose_run
from nlnet.model.build import build_model
from nlnet.numerics.convolutions import convolutions_of
from nlnet.numerics.trust import check_convolutions
from nlnet.trainer.cuda_arithmetic import cuda_arithmetic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("batch", [2, 8])
@pytest.mark.parametrize("cudnn_benchmark", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("experiment", ["c2d_nl5", "i3d_nl5", "i3d_nl5_r101"])
def test_every_convolution_has_a_right_form(
    experiment: str,
    dtype: torch.dtype,
    cudnn_benchmark: bool,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    """float32 is TF32 here. The printed forms are used where cuDNN's kernel is wrong."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # no answers of an earlier check
    run = compose_run(experiment)
    clip = run.data.clip
    size = (batch, 3, clip.num_frames, clip.crop_size, clip.crop_size)
    found = convolutions_of(partial(build_model, run.model, num_classes=2), size)
    with cuda_arithmetic(cudnn_benchmark=cudnn_benchmark, tf32=True):
        for conv, verdict in check_convolutions(
            list(found), device=torch.device("cuda"), dtype=dtype, channels_last=True
        ):
            assert verdict.form is not None, (found[conv], conv, verdict)
            if verdict.form != "plain":
                print(f"{found[conv]}: wrong by {verdict.error:.1g}, {verdict.form} is right")
