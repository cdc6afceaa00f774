"""The published blocks of all code bases."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from nlnet.errors import UserError
from nlnet.weights.blocks import (
    a2,
    alexhex7,
    ccnet,
    cgnl,
    csnln,
    dnl_detection,
    dnl_segmentation,
    gcnet,
    mmcv,
    mmsegmentation,
    sagan,
    timm,
)
from nlnet.weights.blocks.preset import Preset, PublishedBlock
from nlnet.weights.code_base import Settings

# Repository -> the classes of its blocks. If files of a repository have classes of the same name,
# the name of the file is before that of the class.
PUBLISHED_BLOCKS: dict[str, Mapping[str, Preset]] = {
    "AlexHex7/Non-local_pytorch": alexhex7.PRESETS,
    "open-mmlab/mmcv": mmcv.PRESETS
    | {"CrissCrossAttention": ccnet.criss_cross_preset("in_channels", "gamma.scale")},
    "open-mmlab/mmsegmentation": mmsegmentation.PRESETS,
    "xvjiarui/GCNet": gcnet.PRESETS,
    "Howal/DNL-Object-Detection": dnl_detection.PRESETS,
    "yinmh17/DNL-Semantic-Segmentation": dnl_segmentation.PRESETS,
    "speedinghzl/CCNet": ccnet.PRESETS,
    "KaiyuYue/cgnl-network.pytorch": cgnl.PRESETS,
    "huggingface/pytorch-image-models": timm.PRESETS,
    "heykeetae/Self-Attention-GAN": sagan.PRESETS,
    "nguyenvo09/Double-Attention-Network": a2.PRESETS,
    "SHI-Labs/Cross-Scale-Non-Local-Attention": csnln.PRESETS,
}


def published_block(source: str, name: str, settings: Settings) -> PublishedBlock:
    """The block of a class in a code base, with random parameters.

    Args:
        source: owner/repository@commit:path; the commit and the path may be absent
        name: the class
        settings: keywords of its constructor; what is not named has the default value there

    Raises:
        UserError: the code base, the class or a setting is unknown.
    """
    address, _, path = source.partition(":")
    repository = address.partition("@")[0]
    if repository not in PUBLISHED_BLOCKS:
        known = ", ".join(PUBLISHED_BLOCKS)
        raise UserError(f"source={repository} is unknown; choose one of: {known}")
    presets = PUBLISHED_BLOCKS[repository]
    preset = presets.get(f"{PurePosixPath(path).stem}.{name}") or presets.get(name)
    if preset is None:
        raise UserError(f"class={name} is unknown; {repository} has: {', '.join(presets)}")
    return preset.read(settings)
