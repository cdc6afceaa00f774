"""yinmh17/DNL-Semantic-Segmentation: the disentangled block of the paper, and one with other norms.

Both have gamma before the unary term is added, and by default no output convolution.
"""

from collections.abc import Mapping
from typing import Any

from nlnet.errors import UserError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.model.non_local.whitening import BATCH, CHANNELS, POSITIONS, Axes, Whitening
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings
from nlnet.weights.keymap import Table

# Names of whiten_type, in the order in which the code applies them; it ignores all others.
BN_WHITENINGS: Mapping[str, Axes] = {
    "channel": (POSITIONS,),
    "spatial": (CHANNELS,),
    "ln_nostd": (POSITIONS, CHANNELS),
}
# The first of these names that whiten_type has counts.
NOWD_WHITENINGS: Mapping[str, tuple[Axes, bool]] = {
    "in_nostd": ((POSITIONS,), False),
    "in": ((POSITIONS,), True),
    "ln_nostd": ((POSITIONS, CHANNELS), False),
    "ln": ((POSITIONS, CHANNELS), True),
    "fln_nostd": ((BATCH, POSITIONS, CHANNELS), False),
    "fln": ((BATCH, POSITIONS, CHANNELS), True),
}
COMMON: Settings = {
    "inplanes": REQUIRED,
    "planes": REQUIRED,
    "downsample": True,
    "use_out": False,
    "out_bn": False,
    "with_gc": False,
}


def _build_bn(settings: Settings) -> PublishedBlock:
    kinds = settings["whiten_type"]
    whiten = tuple(Whitening(axes, axes) for kind, axes in BN_WHITENINGS.items() if kind in kinds)
    learned, fixed = "bn_affine" in kinds, "bn" in kinds
    if (learned and fixed) or ((learned or fixed) and "ln_nostd" in kinds):
        raise UserError(f"whiten_type={kinds} is unsupported: one norm, and no other step after it")
    unary = ("query",) if settings["with_unary"] else ()
    if settings["with_unary"] and not (whiten and POSITIONS in whiten[-1].theta):
        raise UserError(f"with_unary needs a mean over positions, and whiten_type={kinds} has none")
    scale = settings["planes"] ** -0.5 / settings["temperature"]
    norm = "batch" if learned else "batch_fixed" if fixed else "none"
    norms = {"theta_norm": "query_bn", "phi_norm": "key_bn"}
    if learned:
        norms = {ours: f"{theirs}_affine" for ours, theirs in norms.items()}
    return _published(settings, Logits(float(scale), whiten=whiten, unary=unary), norm, norms)


def _build_nowd(settings: Settings) -> PublishedBlock:
    kinds, eps = settings["whiten_type"], settings["eps"]
    found = [NOWD_WHITENINGS[kind] for kind in NOWD_WHITENINGS if kind in kinds][:1]
    whiten = tuple(Whitening(axes, axes, deviation, eps) for axes, deviation in found)
    scale = 1.0 if "nl" in settings["nowd"] else settings["planes"] ** -0.5
    return _published(settings, Logits(float(scale), whiten=whiten), "none", {})


def _published(
    settings: Settings, logits: Logits, embedding_norm: str, norms: Table
) -> PublishedBlock:
    projects = settings["use_out"]
    pairwise = settings.get("with_nl", True)
    if not pairwise and not settings["with_gc"]:
        raise UserError("with_nl=False needs with_gc=True: the block has no term without it")
    unary = logits.unary
    if settings["with_gc"] and pairwise:
        unary += ("mask",)
    block = NonLocalBlock(
        settings["inplanes"],
        dims=2,
        pairwise="embedded_gaussian" if pairwise else "unary",
        logits=Logits(logits.scale, whiten=logits.whiten if pairwise else (), unary=unary),
        embedding=Embedding(inner=settings["planes"], value_bias=projects, norm=embedding_norm),
        subsample=Subsample("input" if settings["downsample"] else "none"),
        output=Output(
            bias=False,
            norm="batch" if settings["out_bn"] else "none",
            gamma=pairwise,
            terms="weighted",
            project=projects,
        ),
    )
    modules = {
        "theta": "conv_query",
        "phi": "conv_key",
        "g": "conv_value",
        "mask": "conv_mask",
        "out": "conv_out",
        "norm": "out_bn",
        **norms,
    }
    if not pairwise:
        return PublishedBlock(block, modules, unused=("gamma",))
    return PublishedBlock(block, modules, {"gamma": "gamma"})


def _preset(build: Any, more: Settings, without_effect: tuple[str, ...]) -> Preset:
    return Preset({**COMMON, **more}, build, without_effect=("lr_mult", *without_effect))


PRESETS = {
    "NonLocal2d_bn": _preset(
        _build_bn,
        {"whiten_type": ("channel",), "temperature": 1.0, "with_unary": False},
        ("use_gn",),
    ),
    "NonLocal2d_nowd": _preset(
        _build_nowd,
        {"whiten_type": ("in_nostd",), "with_nl": True, "eps": 1e-5, "nowd": ("nl",)},
        ("weight_init_scale",),
    ),
}
