"""open-mmlab/mmsegmentation: the disentangled block, which extends NonLocal2d of mmcv."""

from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Embedding, Logits, Subsample
from nlnet.model.non_local.whitening import Whitening
from nlnet.weights.blocks.mmcv import NON_LOCAL, names_of, output_of, reduced
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings

# The reference changes its input in mode gaussian, and fails with sub_sample.
MODES = ("embedded_gaussian", "dot_product", "concatenation")


def _build(settings: Settings) -> PublishedBlock:
    inner = reduced(settings)
    scale = inner**-0.5 if settings["use_scale"] else 1.0
    block = NonLocalBlock(
        settings["in_channels"],
        dims=2,
        pairwise=settings["mode"],
        logits=Logits(
            scale=scale / settings["temperature"], whiten=(Whitening(),), unary=("mask",)
        ),
        embedding=Embedding(inner=inner),
        subsample=Subsample("none"),
        output=output_of(settings, dims=2, terms="apart"),
    )
    return PublishedBlock(block, names_of())


PRESETS = {
    "DisentangledNonLocal2d": Preset(
        {**NON_LOCAL, "temperature": REQUIRED},
        _build,
        fixed=("sub_sample",),
        choices={"mode": MODES},
        without_effect=("std", "zeros_init"),
    )
}
