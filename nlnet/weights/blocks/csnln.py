"""SHI-Labs/Cross-Scale-Non-Local-Attention: the block for super-resolution within one scale.

The block across scales is not supported: it compares patches of two maps.
"""

from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.weights.blocks.preset import Preset, PublishedBlock
from nlnet.weights.code_base import Settings

NAMES = {"theta": "conv_match1", "phi": "conv_match2", "g": "conv_assembly"}


def _build(settings: Settings) -> PublishedBlock:
    channels = settings["channel"]
    block = NonLocalBlock(
        channels,
        dims=2,
        logits=Logits(scale=False),
        embedding=Embedding(inner=channels // settings["reduction"], prelu=True),
        subsample=Subsample("none"),
        output=Output(norm="none", project=False, residual=False),
    )
    modules = {ours: f"{theirs}.0" for ours, theirs in NAMES.items()}
    slopes = {f"{ours}.slope": f"{theirs}.1.weight" for ours, theirs in NAMES.items()}
    return PublishedBlock(block, modules, slopes)


PRESETS = {
    "NonLocalAttention": Preset(
        {"channel": 128, "reduction": 2},
        _build,
        without_effect=("ksize", "scale", "stride", "softmax_scale", "average"),
    )
}
