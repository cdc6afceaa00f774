"""nguyenvo09/Double-Attention-Network: the double attention of A2-Nets, without a residual sum."""

from nlnet.model.non_local.double_attention import DoubleAttentionBlock
from nlnet.model.non_local.layers import Embedding, Output
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings


def _build(settings: Settings) -> PublishedBlock:
    block = DoubleAttentionBlock(
        settings["in_channels"],
        dims=2,
        descriptors=settings["c_n"],
        embedding=Embedding(inner=settings["c_m"]),
        output=Output(norm="none", project=settings["reconstruct"], residual=False),
    )
    modules = {"phi": "convA", "theta": "convB", "rho": "convV", "out": "conv_reconstruct"}
    return PublishedBlock(block, modules)


PRESETS = {
    "DoubleAttentionLayer": Preset(
        {"in_channels": REQUIRED, "c_m": REQUIRED, "c_n": REQUIRED, "reconstruct": False}, _build
    )
}
