"""heykeetae/Self-Attention-GAN: the self-attention of SAGAN."""

from functools import partial

from nlnet.weights.blocks.ccnet import build_self_attention
from nlnet.weights.blocks.preset import REQUIRED, Preset

PRESETS = {
    "Self_Attn": Preset(
        {"in_dim": REQUIRED},
        partial(build_self_attention, "in_dim", "space", "gamma"),
        without_effect=("activation",),
    )
}
