"""The convolutions of every experiment, as this processor computes them, against float64."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from nlnet.cli.choices import choices
from nlnet.cli.compose import compose_run
from nlnet.config import NonLocalConfig, ResNetConfig
from nlnet.model.build import build_model
from nlnet.numerics.convolutions import Convolution, convolutions_of
from nlnet.numerics.trust import check_convolutions

CPU = torch.device("cpu")


def all_convolutions() -> dict[Convolution, str]:
    """The distinct convolutions of all experiments, for one clip whose maps have few frames."""
    found: dict[Convolution, str] = {}
    networks = {}
    for name in choices("experiment"):
        run = compose_run(name)
        # The blocks add no nn.Conv3d and keep the sizes.
        model = (
            replace(run.model, non_local=NonLocalConfig())
            if isinstance(run.model, ResNetConfig)
            else run.model
        )
        networks.setdefault(repr((model, run.data.clip.crop_size)), (name, model, run.data.clip))
    for name, model, clip in networks.values():
        size = (1, 3, clip.num_frames, clip.crop_size, clip.crop_size)
        for conv in convolutions_of(partial(build_model, model, num_classes=2), size):
            frames = min(conv.x[2], max(conv.weight[2], 2))
            short = replace(conv, x=(*conv.x[:2], frames, *conv.x[3:]))
            found.setdefault(short, f"{name}: {conv}")
    return found


@pytest.mark.slow
def test_no_kernel_of_an_experiment_is_without_a_right_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # no answers of an earlier check
    convolutions = all_convolutions()
    assert len(convolutions) > 100
    wrong = {}
    for conv, verdict in check_convolutions(
        list(convolutions), device=CPU, dtype=torch.bfloat16, channels_last=True
    ):
        assert verdict.form is not None, (convolutions[conv], verdict)
        if verdict.form != "plain":
            wrong[convolutions[conv]] = verdict
    print(f"{len(convolutions)} convolutions; other forms are used for {wrong or 'none'}")
