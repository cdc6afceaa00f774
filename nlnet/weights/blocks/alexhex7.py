"""AlexHex7/Non-local_pytorch: one file for each pairwise function, one class for each dimension."""

from functools import partial

from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Embedding, Logits, Output, Subsample
from nlnet.weights.blocks.preset import REQUIRED, Preset, PublishedBlock
from nlnet.weights.code_base import Settings

FILES = {
    "non_local_embedded_gaussian": "embedded_gaussian",
    "non_local_gaussian": "gaussian",
    "non_local_dot_product": "dot_product",
    "non_local_concatenation": "concatenation",
}


def _build(pairwise: str, dims: int, settings: Settings) -> PublishedBlock:
    channels, pools, norm = (settings[k] for k in ("in_channels", "sub_sample", "bn_layer"))
    block = NonLocalBlock(
        channels,
        dims=dims,
        pairwise=pairwise,
        logits=Logits(scale=False),
        embedding=Embedding(inner=settings["inter_channels"] or max(1, channels // 2)),
        subsample=Subsample("embedded" if pools else "none"),
        output=Output(norm="batch" if norm else "none"),
    )
    modules = {
        "theta": "theta",
        "phi": "phi.0" if pools else "phi",
        "g": "g.0" if pools else "g",
        "pairwise": "concat_project.0",
        "out": "W.0" if norm else "W",
        "norm": "W.1",
    }
    return PublishedBlock(block, modules)


PRESETS = {
    f"{file}.NONLocalBlock{dims}D": Preset(
        {"in_channels": REQUIRED, "inter_channels": None, "sub_sample": True, "bn_layer": True},
        partial(_build, pairwise, dims),
    )
    for file, pairwise in FILES.items()
    for dims in (1, 2, 3)
}
