"""xvjiarui/GCNet: the global context block, and a non-local block with its scale inverted."""

from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Embedding, Logits, Subsample
from nlnet.weights.blocks.mmcv import NON_LOCAL, context_preset, names_of, output_of
from nlnet.weights.blocks.preset import Preset, PublishedBlock
from nlnet.weights.code_base import Settings

MODES = ("embedded_gaussian", "dot_product")


def _build(settings: Settings) -> PublishedBlock:
    """use_scale divides by d^-0.5, so it multiplies by the root of d."""
    inner = settings["in_channels"] // settings["reduction"]
    block = NonLocalBlock(
        settings["in_channels"],
        dims=2,
        pairwise=settings["mode"],
        logits=Logits(scale=inner**0.5 if settings["use_scale"] else False),
        embedding=Embedding(inner=inner),
        subsample=Subsample("none"),
        output=output_of(settings, dims=2),
    )
    return PublishedBlock(block, names_of())


PRESETS = {
    "ContextBlock": context_preset("inplanes"),
    "NonLocal2D": Preset(
        {name: value for name, value in NON_LOCAL.items() if name != "sub_sample"},
        _build,
        choices={"mode": MODES},
    ),
}
