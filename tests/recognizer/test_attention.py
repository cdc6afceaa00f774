"""Attention of a recognizer: coordinates of the clip, errors, Grad-CAM and scores."""

import numpy as np
import pytest
import torch
from torch import Tensor

import nlnet
from nlnet.bench.memory import peak_resident_bytes, reset_peak, resident_bytes
from nlnet.config import NonLocalConfig, ResNetConfig
from nlnet.demo import DEMO, VIDEOS
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.classifier import VideoClassifier
from nlnet.model.non_local.rows import attention_rows, effective_positions
from nlnet.recognizer.attention import AttentionMap, attend, attention_blocks
from nlnet.recognizer.faithfulness import blur, deletion, share_in_region
from nlnet.recognizer.gradcam import gradcam
from nlnet.recognizer.recognizer import Recognizer

SAME = VIDEOS[0]


@pytest.fixture(scope="module")
def demo() -> Recognizer:
    return nlnet.load(DEMO, device="cpu")


def network(**fields: object) -> VideoClassifier:
    torch.manual_seed(0)
    config = ResNetConfig(depth=14, width=8, non_local=NonLocalConfig(res3=[0], **fields))
    model = build_model(config, 3)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def pixels(frames: int = 4, side: int = 32) -> Tensor:
    torch.manual_seed(1)
    return torch.randint(256, (1, 3, frames, side, side), dtype=torch.uint8)


def made_map(weights: np.ndarray, kernel: tuple[int, int, int] = (1, 1, 1)) -> AttentionMap:
    return AttentionMap(
        layer="res3.nl0",
        query=None,
        terms={"pairwise": weights},
        map_sizes=(2, 5, 4),
        kernel=kernel,
        clip_sizes=(4, 20, 16),
        softmax=True,
    )


def test_the_rows_are_those_of_the_map_that_enters_the_block(demo: Recognizer):
    attention = demo.attention(SAME, (6, 40, 20), "res3.nl1")
    (found,) = attention.maps
    seen: list[Tensor] = []
    block = attention_blocks(demo.model)["res3.nl1"]
    hook = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        scores = demo.model.scores(demo.clip(SAME))[0]
    hook.remove()
    t, h, w = found.map_sizes
    rows = attention_rows(block, seen[0], [(6 * t // 8, 40 * h // 64, 20 * w // 64)])
    np.testing.assert_allclose(found.weights, rows.total()[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(attention.probabilities, scores.numpy(), rtol=1e-6)
    assert attention.class_names[attention.predicted] == "same"
    assert attention.frames.shape == (8, 64, 64, 3)


def test_auto_is_the_query_with_the_fewest_effective_positions(demo: Recognizer):
    auto = demo.attention(SAME, block="res3.nl0").maps[0]
    fewest = effective_positions(torch.from_numpy(auto.weights)[None])
    for query in ((0, 20, 20), (7, 50, 40), (3, 0, 63)):
        other = demo.attention(SAME, query, "res3.nl0").maps[0]
        assert fewest <= effective_positions(torch.from_numpy(other.weights)[None]) + 1e-6


def test_weights_spread_over_the_clip_keep_their_sum_and_their_places():
    weights = np.arange(40, dtype=float).reshape(2, 5, 4)
    each = made_map(weights)
    spread = each.on_clip(weights)
    assert spread.sum() == pytest.approx(weights.sum())
    assert (spread[2:, 4:8, 12:16] == weights[1, 1, 3] / 32).all()
    assert each.strongest(1) == [((3, 18, 14), 39.0)]


def test_pixels_of_an_incomplete_window_have_no_weight():
    weights = np.ones((2, 2, 2))  # keys of 2 x 2 positions; the fifth row is dropped
    spread = made_map(weights, kernel=(1, 2, 2)).on_clip(weights)
    assert spread.sum() == pytest.approx(8)
    assert not spread[:, 16:].any()
    assert spread[:, :16].all()


def test_the_share_in_a_region_of_even_attention_is_its_area():
    inside = np.zeros((4, 20, 16))
    inside[1:3, 3:11, 2:9] = 1
    share = share_in_region(made_map(np.ones((2, 5, 4))), inside)
    assert share.ratio == pytest.approx(1)
    one = np.zeros((2, 5, 4))
    one[0, 0, 0] = -2.0
    assert share_in_region(made_map(one), np.ones((4, 20, 16))).mass == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"query": (8, 0, 0)}, ["query=8,0,0", "8 frames of 64 x 64", "7,63,63"]),
        ({"query": "middle"}, ["query=middle", "auto"]),
        ({"block": "res4.nl3"}, ["block=res4.nl3", "res3.nl0, res3.nl1"]),
        ({"block": "res9", "method": "gradcam"}, ["block=res9", "res2, res3, res4, res5"]),
        ({"method": "rollout"}, ["method=rollout", "rows, gradcam"]),
    ],
)
def test_errors_name_the_remedy(demo: Recognizer, arguments: dict, parts: list[str]):
    with pytest.raises(UserError) as caught:
        demo.attention(SAME, **arguments)
    assert all(part in str(caught.value) for part in parts)


def test_networks_without_rows_name_gradcam():
    plain = build_model(ResNetConfig(depth=14, width=8), 3).eval()
    with pytest.raises(UserError, match=r"no non-local block.*gradcam"):
        attend(plain, pixels(), query="auto", block=None)
    with pytest.raises(UserError, match=r"^res3\.nl0: .*CompactGeneralizedBlock.*Grad-CAM"):
        attend(network(block="compact_generalized"), pixels(), query="auto", block=None)


def test_a_shared_map_has_no_query():
    _, (found,) = attend(network(block="global_context"), pixels(), query="auto", block=None)
    assert found.query is None
    assert list(found.terms) == ["unary"]


@pytest.mark.parametrize("layer", ["res2", "res3.nl0", "res5"])
def test_gradcam_is_its_equation(layer: str):
    """The oracle differentiates the whole network, with a perturbation that is added to A."""
    model, clip = network(), pixels()
    probabilities, found = gradcam(model, clip, layer=layer)
    kept: list[Tensor] = []

    def add(_: object, inputs: object, output: Tensor) -> Tensor:
        kept.extend([output, torch.zeros_like(output, requires_grad=True)])
        return output + kept[1]

    hook = model.backbone.get_submodule(layer).register_forward_hook(add)
    model(clip).max().backward()
    hook.remove()
    features, perturbation = kept
    assert perturbation.grad is not None
    means = perturbation.grad.mean(dim=(2, 3, 4))
    cam = torch.einsum("bc,bcthw->thw", means, features.detach()).relu()
    np.testing.assert_allclose(found.weights, (cam / cam.sum()).numpy(), atol=1e-5)
    assert probabilities.shape == (3,)


def test_gradcam_changes_no_gradient_of_the_model():
    model = network()
    gradcam(model, pixels(), layer=None)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_deletion_falls_at_once_if_the_attended_positions_are_all_that_matters():
    """The network is the brightness of one corner, and the weights are there or elsewhere."""

    class Corner(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Head(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x[:, :1, 0, :4, :4].mean(dim=(2, 3)) - 200
            return torch.stack([bright, -bright], dim=2)

    model = VideoClassifier(Corner(), Head())
    model.mean.zero_()
    model.std.fill_(1)
    clip = torch.zeros(1, 3, 4, 20, 16, dtype=torch.uint8)
    clip[:, :, :, :4, :4] = 255
    weights = np.zeros((2, 5, 4))
    weights[0, 0, 0] = 1
    right = deletion(model, clip, made_map(weights), steps=20)
    assert right.attended[0] == right.random[0] == 1
    assert right.attended[1] < 0.01
    assert right.area_between > 0.2
    wrong = deletion(model, clip, made_map(1 - weights), steps=20)
    assert wrong.attended[-2] == 1
    assert wrong.area_between < 0


def test_blur_keeps_even_colors_and_sizes():
    clip = torch.full((1, 3, 2, 12, 16), 77, dtype=torch.uint8)
    assert torch.equal(blur(clip), clip)


@pytest.mark.slow
def test_the_attention_of_a_clip_of_128_frames_needs_less_than_a_gigabyte():
    """I3D-NL5 with the stem of long clips, 224 pixels; its affinities would need gigabytes."""
    from nlnet.cli.compose import compose_run

    run = compose_run("i3d_nl5_128x1")
    model = build_model(run.model, 10).eval()
    clip = pixels(128, 224)
    before = resident_bytes()
    reset_peak()
    _, maps = attend(model, clip, query=(64, 112, 112), block="res3.nl1")
    assert maps[0].weights.size == 16 * 14 * 14
    assert peak_resident_bytes() - before < 2**30


def test_the_clip_is_the_center_crop_of_the_middle_clip(demo: Recognizer):
    frames = np.zeros((24, 64, 80, 3), np.uint8)
    frames[8:16, :, 8:72] = 200
    clip = demo.clip(frames)
    assert clip.shape == (1, 3, 8, 64, 64)
    assert (clip == 200).all()
