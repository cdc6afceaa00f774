"""speedinghzl/CCNet: criss-cross attention, one softmax over the row and the column."""

from functools import partial

from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings


def build_self_attention(
    channels: str, axes: str, gamma: str, settings: Settings
) -> PublishedBlock:
    """Attention with queries of C // 8 channels and values of C, without W_z and without a scale.

    `channels` is the keyword of C, and `gamma` the name of the learned factor there.
    """
    count = settings[channels]
    block = NonLocalBlock(
        count,
        dims=2,
        axes=axes,
        logits=Logits(scale=False),
        embedding=Embedding(inner=count // 8),
        subsample=Subsample("none"),
        output=Output(norm="none", gamma=True, project=False),
        recurrence=settings.get("recurrence", 1),
    )
    modules = {"theta": "query_conv", "phi": "key_conv", "g": "value_conv"}
    return PublishedBlock(block, modules, {"gamma": gamma})


def criss_cross_preset(channels: str, gamma: str) -> Preset:
    """The preset of a CrissCrossAttention; `recurrence` is how often a network applies it."""
    return Preset(
        {channels: REQUIRED, "recurrence": 1},
        partial(build_self_attention, channels, "row_column", gamma),
    )


PRESETS = {"CrissCrossAttention": criss_cross_preset("in_dim", "gamma")}
