"""Grad-CAM in space and time: the parts of a clip that raise a class, for any network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nlnet.errors import UserError
from nlnet.model.classifier import VideoClassifier
from nlnet.model.non_local.rows import Position
from nlnet.model.resnet3d import STAGES
from nlnet.recognizer.attention import AttentionMap, attention_blocks

LAST = STAGES[-1]


def gradcam(
    model: VideoClassifier, clip: Tensor, *, layer: str | None
) -> tuple[Tensor, AttentionMap]:
    """The probabilities (K,) of a clip, and ReLU(sum_c a_c A_c) for the most probable class.

    A is the output of a layer, and a_c the gradient of the class's logit for A_c, averaged over
    all positions. Only the layers after this one are differentiated. Source: Selvaraju et al. 2017,
    with time as a third dimension.

    Args:
        model: in eval mode
        clip: pixels (1, 3, T, H, W) of uint8
        layer: a stage or a block, such as res4 or res4.nl3; None is the last stage

    Raises:
        UserError: there is no such layer.
    """
    layers: dict[str, nn.Module] = {
        stage: model.backbone.get_submodule(stage) for stage in STAGES
    } | attention_blocks(model)
    name = LAST if layer is None else layer
    if name not in layers:
        raise UserError(f"block={name}: no such stage or block; choose one of: {', '.join(layers)}")
    kept: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # a layer after this one may change it in place

    constants = {key: value.detach() for key, value in model.state_dict(keep_vars=True).items()}
    hook = layers[name].register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = functional_call(model, constants, (clip,))[0]
            (gradient,) = torch.autograd.grad(logits.max(), kept[0])
    finally:
        hook.remove()
    (maps,) = kept
    cam = F.relu((maps.detach() * gradient.mean(dim=(2, 3, 4), keepdim=True)).sum(dim=1))[0]
    t, h, w = cam.shape
    weights = cam / cam.sum().clamp(min=torch.finfo(cam.dtype).tiny)
    with torch.inference_mode():
        probabilities = model.scores(clip)[0]
    return probabilities, AttentionMap(
        layer=name,
        query=None,
        terms={"gradcam": weights.double().cpu().numpy()},
        map_sizes=(t, h, w),
        kernel=(1, 1, 1),
        clip_sizes=_sizes(clip),
        softmax=True,
    )


def _sizes(clip: Tensor) -> Position:
    t, h, w = clip.shape[2:]
    return t, h, w
