"""KaiyuYue/cgnl-network.pytorch: the compact generalized block, and a spatial non-local block."""

from nlnet.errors import UserError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.compact_generalized import CompactGeneralizedBlock
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings

MODULES = {"theta": "t", "phi": "p", "g": "g", "out": "z"}
SPATIAL: Settings = {"inplanes": REQUIRED, "planes": REQUIRED, "use_scale": False}


def _build_compact(settings: Settings) -> PublishedBlock:
    if settings["groups"] is None:
        raise UserError("groups=None is unsupported; the reference needs a number, too")
    block = CompactGeneralizedBlock(
        settings["inplanes"],
        dims=2,
        inner=settings["planes"],
        groups=settings["groups"],
        scale=settings["use_scale"],
        order=settings.get("order"),
    )
    return PublishedBlock(block, MODULES | {"norm": "gn"})


def build_spatial(
    channels: int, inner: int, scale: bool | float, bias: bool, norm: str
) -> PublishedBlock:
    """A non-local block for images with a batch norm, which is called `norm` there."""
    block = NonLocalBlock(
        channels,
        dims=2,
        logits=Logits(scale=scale),
        embedding=Embedding(inner=inner, bias=bias),
        subsample=Subsample("none"),
        output=Output(bias=bias),
    )
    return PublishedBlock(block, MODULES | {"norm": norm})


def _build_spatial_non_local(settings: Settings) -> PublishedBlock:
    channels, inner = settings["inplanes"], settings["planes"]
    return build_spatial(channels, inner, settings["use_scale"], bias=False, norm="bn")


PRESETS = {
    "SpatialCGNL": Preset({**SPATIAL, "groups": None}, _build_compact),
    "SpatialCGNLx": Preset({**SPATIAL, "groups": None, "order": 2}, _build_compact),
    "SpatialNL": Preset(SPATIAL, _build_spatial_non_local),
}
