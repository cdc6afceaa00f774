"""Howal/DNL-Object-Detection: a non-local block with whitening, beside a global context block."""

from dataclasses import replace

from nlnet.errors import UserError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Embedding, Logits, Subsample
from nlnet.model.non_local.sum import BlockSum
from nlnet.model.non_local.whitening import BATCH, CHANNELS, POSITIONS, Whitening
from nlnet.weights.blocks.mmcv import NON_LOCAL, context_preset, names_of, output_of
from nlnet.weights.blocks.preset import Preset, PublishedBlock
from nlnet.weights.code_base import Settings

MODES = ("embedded_gaussian", "dot_product", "gaussian")
# Theta is transposed there, so the same axis is that of its channels and of the positions of phi.
WHITENINGS = {
    None: (),
    "channel": (Whitening(theta=(CHANNELS,), phi=(POSITIONS,)),),
    "bn-like": (Whitening(theta=(BATCH, CHANNELS), phi=(BATCH, POSITIONS)),),
}
CONTEXT = context_preset("inplanes")


def _build(settings: Settings) -> PublishedBlock:
    channels, mode = settings["in_channels"], settings["mode"]
    inner = channels // settings["reduction"]
    if mode == "gaussian" and (settings["downsample"] or settings["whiten_type"]):
        raise UserError("mode=gaussian is unsupported with downsample and with whiten_type")
    d = channels if mode == "gaussian" else inner
    power = -0.5 if settings["fixbug"] else 0.5
    scale = d**power if settings["use_scale"] else 1.0
    context = settings["gcb"]
    output = output_of(settings, dims=2)
    block = NonLocalBlock(
        channels,
        dims=2,
        pairwise=mode,
        logits=Logits(
            scale=float(scale / settings["temp"]), whiten=WHITENINGS[settings["whiten_type"]]
        ),
        embedding=Embedding(inner=inner),
        subsample=Subsample("input" if settings["downsample"] else "none"),
        output=output if not context else replace(output, residual=False),
    )
    if not context:
        return PublishedBlock(block, names_of())
    gc = CONTEXT.read({"inplanes": channels, **context})
    modules = {f"blocks.non_local.{ours}": theirs for ours, theirs in names_of().items()}
    modules |= {f"blocks.context.{ours}": f"gc_block.{name}" for ours, name in gc.modules.items()}
    return PublishedBlock(BlockSum(context=gc.block, non_local=block), modules)


PRESETS = {
    "NonLocal2D": Preset(
        {
            **{name: value for name, value in NON_LOCAL.items() if name != "sub_sample"},
            "whiten_type": None,
            "temp": 1.0,
            "downsample": False,
            "fixbug": False,
            "learn_t": False,
            "gcb": None,
        },
        _build,
        fixed=("learn_t",),
        choices={"mode": MODES, "whiten_type": WHITENINGS},
    ),
    "ContextBlock": CONTEXT,
}
