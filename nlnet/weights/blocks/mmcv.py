"""open-mmlab/mmcv: the blocks of mmaction2, mmdetection and mmsegmentation."""

from functools import partial

from nlnet.errors import UserError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.global_context import GlobalContextBlock
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings
from nlnet.weights.keymap import Table
from nlnet.weights.settings import check_eps

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
NORMS = ("BN", "BN1d", "BN2d", "BN3d", "SyncBN")
POOLINGS = {"att": "attention", "avg": "mean"}
FUSIONS = {
    ("channel_add",): "add",
    ("channel_mul",): "mul",
    ("channel_add", "channel_mul"): "mul_add",
}
NON_LOCAL: Settings = {
    "in_channels": REQUIRED,
    "reduction": 2,
    "use_scale": True,
    "conv_cfg": None,
    "norm_cfg": None,
    "mode": "embedded_gaussian",
    "sub_sample": False,
}


def _build(dims: int, settings: Settings) -> PublishedBlock:
    pools = settings["sub_sample"]
    block = NonLocalBlock(
        settings["in_channels"],
        dims=dims,
        pairwise=settings["mode"],
        logits=Logits(scale=settings["use_scale"]),
        embedding=Embedding(inner=reduced(settings)),
        subsample=Subsample("embedded" if pools else "none"),
        output=output_of(settings, dims),
    )
    return PublishedBlock(block, names_of(pools))


def reduced(settings: Settings) -> int:
    """d, the number of inner channels."""
    return int(max(1, settings["in_channels"] // settings["reduction"]))


def output_of(settings: Settings, dims: int, terms: str = "joint") -> Output:
    """W_z, which has a bias if no norm follows it. Raises UserError for other convolutions."""
    conv = (settings["conv_cfg"] or {}).get("type")
    if conv not in (None, f"Conv{dims}d") and not (conv == "Conv" and dims == 2):
        raise UserError(f"conv_cfg={settings['conv_cfg']} is unsupported; nlnet has Conv{dims}d")
    norm = settings["norm_cfg"]
    if norm is None:
        return Output(norm="none", terms=terms)
    if norm.get("type") not in NORMS:
        known = ", ".join(NORMS)
        raise UserError(f"norm_cfg={norm} is unsupported; nlnet has types {known}")
    check_eps("norm_cfg.eps", norm)
    return Output(norm="batch", bias=False, terms=terms)


def names_of(pools: bool = False) -> Table:
    """Our modules -> those of NonLocal1d, NonLocal2d and NonLocal3d."""
    return {
        "theta": "theta.conv",
        "phi": "phi.0.conv" if pools else "phi.conv",
        "g": "g.0.conv" if pools else "g.conv",
        "pairwise": "concat_project.conv",
        "out": "conv_out.conv",
        "norm": "conv_out.bn",
        "mask": "conv_mask",
    }


def build_context(channels: str, settings: Settings) -> PublishedBlock:
    """The ContextBlock of GCNet; `channels` is the keyword of the number of channels."""
    given = settings["fusion_types"]
    fusion = FUSIONS.get(tuple(sorted({given} if isinstance(given, str) else set(given))))
    if fusion is None:
        raise UserError(f"fusion_types={given} is unsupported; known are {sorted(FUSIONS)}")
    inner = int(settings[channels] * settings["ratio"])
    block = GlobalContextBlock(
        settings[channels],
        dims=2,
        fusion=fusion,
        pooling=POOLINGS[settings["pooling_type"]],
        inner=inner,
    )
    first = "channel_mul_conv" if fusion == "mul" else "channel_add_conv"
    parts = {"reduce": "0", "norm": "1", "expand": "3"}
    modules = {"mask": "conv_mask"} | {part: f"{first}.{i}" for part, i in parts.items()}
    modules |= {f"mul_{part}": f"channel_mul_conv.{i}" for part, i in parts.items()}
    return PublishedBlock(block, modules)


def context_preset(channels: str) -> Preset:
    """The preset of a ContextBlock; `channels` is the keyword of the number of channels."""
    return Preset(
        {
            channels: REQUIRED,
            "ratio": REQUIRED,
            "pooling_type": "att",
            "fusion_types": ("channel_add",),
        },
        partial(build_context, channels),
        choices={"pooling_type": POOLINGS},
    )


PRESETS = {
    f"NonLocal{dims}d": Preset(
        NON_LOCAL,
        partial(_build, dims),
        choices={"mode": MODES},
        without_effect=("std", "zeros_init"),
    )
    for dims in (1, 2, 3)
} | {"ContextBlock": context_preset("in_channels")}
