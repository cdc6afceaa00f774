"""Networks of pytorchvideo: their weights, their outputs, and non-local blocks in them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from nlnet.config import NonLocalConfig, PytorchvideoConfig
from nlnet.errors import UsageError
from nlnet.model.build import build_model
from nlnet.weights.load import load_weights
from nlnet.weights.rewrite import export_state, import_state

pytestmark = pytest.mark.filterwarnings("ignore")  # pytorchvideo warns while it is imported

CONFIGS = Path(__file__).parents[2] / "configs" / "model" / "pytorchvideo"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
CLIPS = {"slow_r50": 8, "r2plus1d_r50": 16, "csn_r101": 32, "x3d_m": 16}  # of the hub
SLOW = {"csn_r101", "r2plus1d_r50"}
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES]


def config(name: str, **settings: Any) -> PytorchvideoConfig:
    preset = OmegaConf.load(CONFIGS / f"{name}.yaml").model
    cfg = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(PytorchvideoConfig), preset, settings)
    )
    assert isinstance(cfg, PytorchvideoConfig)
    return cfg


def hub(name: str) -> Any:
    from pytorchvideo.models import hub

    torch.manual_seed(0)
    network = getattr(hub, name)(pretrained=False).eval()
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif key.endswith(("norm_c.weight", "running_mean")):
            tensor.uniform_(0.1, 0.3)
    return network


def test_every_network_of_the_hub_has_a_config():
    assert sorted(CLIPS) == NAMES


@pytest.mark.parametrize("name", EACH)
def test_hub_weights_load_and_give_the_same_outputs(name: str, tmp_path: Path):
    theirs = hub(name)
    torch.save({"model_state": theirs.state_dict()}, tmp_path / "hub.pyth")
    model = build_model(config(name), 400).eval()
    report = load_weights(model, str(tmp_path / "hub.pyth"))
    assert not report.new and not report.ignored and not report.inflated
    video = torch.randn(1, 3, CLIPS[name], 224, 224)
    with torch.no_grad():
        expected = theirs(video)
        found = model.scores(video) if name in ("r2plus1d_r50", "x3d_m") else model(video)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", EACH)
def test_blocks_follow_the_named_residual_blocks(name: str, tmp_path: Path):
    """New blocks add exact zeros, so the outputs are equal; hub weights do not load into them."""
    places = NonLocalConfig(res3=[1, 3], res4=[0])
    torch.save({"model_state": hub(name).state_dict()}, tmp_path / "hub.pyth")
    plain = build_model(config(name, head_window=None), 400).eval()
    model = build_model(config(name, head_window=None, non_local=places), 400).eval()
    load_weights(plain, str(tmp_path / "hub.pyth"))
    report = load_weights(model, str(tmp_path / "hub.pyth"))
    blocks = {key.split(".theta")[0] for key in report.new if ".theta." in key}
    assert blocks == {"backbone.res3.nl1", "backbone.res3.nl3", "backbone.res4.nl0"}
    assert all(".nl" in key for key in report.new)
    video = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(video), plain(video))
    loss = model.train()(video.expand(2, -1, -1, -1, -1)).logsumexp(1).mean()
    loss.backward()
    gradient = model.get_parameter("backbone.res4.nl0.norm.weight").grad
    assert gradient is not None and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", EACH)
def test_hub_weights_are_imported_and_exported_unchanged(name: str):
    theirs = hub(name).state_dict()
    back = export_state(import_state(theirs, "pytorchvideo_modules"), "pytorchvideo_modules")
    assert list(back) == list(theirs)
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_an_image_larger_than_the_crop_has_several_windows():
    model = build_model(config("x3d_m"), 10).eval()
    with torch.no_grad():
        assert model.window_logits(torch.randn(1, 3, 4, 256, 256)).shape == (1, 4, 10)


def test_an_unknown_network_and_a_missing_block_are_refused():
    with pytest.raises(UsageError, match=r"model.network=slow_r18 is unknown; choose one of"):
        build_model(PytorchvideoConfig(network="slow_r18"), 5)
    with pytest.raises(UsageError, match="res3 has blocks 0 to 3, not 9"):
        build_model(config("slow_r50", non_local=NonLocalConfig(res3=[9])), 5)
