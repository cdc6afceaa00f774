"""huggingface/pytorch-image-models (timm): a non-local block whose scale has the channels of x."""

from nlnet.weights.blocks.cgnl import build_spatial
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings


def _build(settings: Settings) -> PublishedBlock:
    channels, inner = settings["in_channels"], settings["rd_channels"]
    if inner is None:
        inner = _make_divisible(channels * settings["rd_ratio"], settings["rd_divisor"])
    scale = channels**-0.5 if settings["use_scale"] else False
    return build_spatial(channels, inner, scale, bias=True, norm="norm")


def _make_divisible(value: float, divisor: int) -> int:
    """The multiple of the divisor that is nearest to a value, and at least 0.9 of it."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * value else nearest + divisor


PRESETS = {
    "NonLocalAttn": Preset(
        {
            "in_channels": REQUIRED,
            "use_scale": True,
            "rd_ratio": 1 / 8,
            "rd_channels": None,
            "rd_divisor": 8,
        },
        _build,
    )
}
