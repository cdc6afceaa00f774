"""Every setting of the published blocks against an independent formula, in every dimension.

The formulas of published_formulas.py ask for their parameters by the names of the code bases, so a
wrong name or shape in a preset fails, too.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from nlnet.errors import UserError
from nlnet.weights.blocks.all import PUBLISHED_BLOCKS, published_block
from tests.weights import published_formulas as formulas
from tests.weights.published_formulas import Map, Parameters
from tests.weights.test_blocks import value

Settings = dict[str, Any]
Formula = Callable[[Parameters, Map, Settings], Map]
Case = tuple[str, str, Settings, Formula, int]  # source, class, settings, formula, dimensions

SHAPES = {1: (2, 16, 9), 2: (2, 16, 6, 7), 3: (2, 16, 3, 5, 4)}
ALEXHEX7 = "AlexHex7/Non-local_pytorch@0:lib/non_local_{}.py"
BN = {"type": "BN", "requires_grad": True}
MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
BOTH = (False, True)


def chosen(**words: Any) -> Iterator[Settings]:
    """Every combination of values, one of each keyword."""
    for values in product(*words.values()):
        yield dict(zip(words, values, strict=True))


def alexhex7() -> Iterator[Case]:
    for mode, dims in product(MODES, SHAPES):
        formula = partial(formulas.alexhex7, mode=mode)
        for words in chosen(sub_sample=BOTH, bn_layer=BOTH):
            yield ALEXHEX7.format(mode), f"NONLocalBlock{dims}D", words, formula, dims
        yield ALEXHEX7.format(mode), f"NONLocalBlock{dims}D", {"inter_channels": 3}, formula, dims


def mmcv() -> Iterator[Case]:
    for dims in SHAPES:
        for words in chosen(
            mode=MODES, sub_sample=BOTH, use_scale=BOTH, norm_cfg=(None, BN), reduction=(2, 3)
        ):
            yield "open-mmlab/mmcv", f"NonLocal{dims}d", words, formulas.openmmlab, dims
    for words in contexts():
        yield "open-mmlab/mmcv", "ContextBlock", words, formulas.context_block, 2
    formula = partial(formulas.criss_cross, gamma="gamma.scale", shape=())
    yield "open-mmlab/mmcv", "CrissCrossAttention", {}, formula, 2


def contexts() -> Iterator[Settings]:
    fusions = (["channel_add"], ["channel_mul"], ["channel_mul", "channel_add"])
    yield from chosen(ratio=(0.25, 0.5), pooling_type=("att", "avg"), fusion_types=fusions)
    yield {"ratio": 1 / 16}


def mmsegmentation() -> Iterator[Case]:
    formula = partial(formulas.openmmlab, centered=True)
    for words in chosen(
        mode=MODES[1:], use_scale=BOTH, norm_cfg=(None, BN), temperature=(0.05, 1), reduction=(2, 4)
    ):
        yield "open-mmlab/mmsegmentation", "DisentangledNonLocal2d", words, formula, 2


def gcnet() -> Iterator[Case]:
    for words in contexts():
        yield "xvjiarui/GCNet", "ContextBlock", words, formulas.context_block, 2
    formula = partial(formulas.openmmlab, power=0.5)
    modes = ("embedded_gaussian", "dot_product")
    for words in chosen(mode=modes, use_scale=BOTH, norm_cfg=(None, BN), reduction=(2, 4)):
        yield "xvjiarui/GCNet", "NonLocal2D", words, formula, 2


def dnl_detection() -> Iterator[Case]:
    gcb = {"ratio": 0.25, "pooling_type": "avg", "fusion_types": ["channel_mul", "channel_add"]}
    for words in chosen(
        mode=("embedded_gaussian", "dot_product"),
        whiten_type=(None, "channel", "bn-like"),
        downsample=BOTH,
        fixbug=BOTH,
        gcb=(None, {"ratio": 0.5}, gcb),
    ):
        words["temp"] = 0.3
        yield "Howal/DNL-Object-Detection", "NonLocal2D", words, formulas.dnl_detection, 2
    for words in chosen(mode=["gaussian"], use_scale=BOTH, fixbug=BOTH, norm_cfg=(None, BN)):
        words["temp"] = 4.0
        yield "Howal/DNL-Object-Detection", "NonLocal2D", words, formulas.dnl_detection, 2


def dnl_segmentation() -> Iterator[Case]:
    source = "yinmh17/DNL-Semantic-Segmentation"
    whitenings = ([], ["channel"], ["spatial"], ["channel", "spatial"], ["ln_nostd"], ["bn"])
    formula = partial(formulas.dnl_segmentation, nowd=False)
    for words in chosen(
        whiten_type=(*whitenings, ["channel", "bn_affine"]),
        downsample=BOTH,
        use_out=BOTH,
        out_bn=BOTH,
        with_gc=BOTH,
        with_unary=BOTH,
    ):
        if not words["with_unary"] or words["whiten_type"] in (["channel"], ["ln_nostd"]):
            settings = {"planes": 8, "temperature": 0.5, **words}
            yield source, "NonLocal2d_bn", settings, formula, 2
    formula = partial(formulas.dnl_segmentation, nowd=True)
    kinds = ([], ["channel"], *([kind] for kind in formulas.NOWD_AXES))
    for words in chosen(
        whiten_type=kinds, downsample=BOTH, use_out=BOTH, with_gc=BOTH, nowd=([], ["nl"])
    ):
        yield source, "NonLocal2d_nowd", {"planes": 4, **words}, formula, 2
    for words in chosen(downsample=BOTH, use_out=BOTH, out_bn=BOTH):
        settings = {"planes": 4, "with_nl": False, "with_gc": True, **words}
        yield source, "NonLocal2d_nowd", settings, formula, 2
    for name, formula in (("bn", formulas.dnl_segmentation), ("nowd", formulas.dnl_segmentation)):
        defaults = partial(formula, nowd=name == "nowd")
        yield source, f"NonLocal2d_{name}", {"planes": 8}, defaults, 2


def others() -> Iterator[Case]:
    formula = partial(formulas.criss_cross, gamma="gamma", shape=(1,))
    for words in chosen(recurrence=(1, 2, 3)):
        yield "speedinghzl/CCNet", "CrissCrossAttention", words, formula, 2
    yield "heykeetae/Self-Attention-GAN", "Self_Attn", {"activation": "relu"}, formulas.sagan, 2
    cgnl = "KaiyuYue/cgnl-network.pytorch"
    for words in chosen(planes=(8, 16), use_scale=BOTH, groups=(1, 2, 4, 8)):
        yield cgnl, "SpatialCGNL", words, formulas.compact, 2
        yield cgnl, "SpatialCGNLx", {**words, "order": 3}, formulas.compact, 2
    for words in chosen(planes=(8, 5), use_scale=BOTH):
        inner = words["planes"]
        formula = partial(
            lambda p, x, s, inner, scale: formulas.spatial(p, x, inner, scale, False, "bn"),
            inner=inner,
            scale=inner**-0.5 if words["use_scale"] else 1.0,
        )
        yield cgnl, "SpatialNL", words, formula, 2
    timm = "huggingface/pytorch-image-models"
    for words, inner in (({}, 8), ({"rd_ratio": 1.0}, 16), ({"rd_channels": 3}, 3)):
        for use_scale in BOTH:
            formula = partial(
                lambda p, x, s, inner, scale: formulas.spatial(p, x, inner, scale, True, "norm"),
                inner=inner,
                scale=0.25 if use_scale else 1.0,
            )
            yield timm, "NonLocalAttn", {**words, "use_scale": use_scale}, formula, 2
    for words in chosen(c_m=(8, 6), c_n=(4, 8), reconstruct=BOTH):
        yield (
            "nguyenvo09/Double-Attention-Network",
            "DoubleAttentionLayer",
            words,
            formulas.double_attention,
            2,
        )
    for words in chosen(reduction=(2, 4), ksize=[3], softmax_scale=[10]):
        source = "SHI-Labs/Cross-Scale-Non-Local-Attention"
        yield source, "NonLocalAttention", words, formulas.in_scale, 2


SOURCES = {
    function.__name__: list(function())
    for function in (alexhex7, mmcv, mmsegmentation, gcnet, dnl_detection, dnl_segmentation, others)
}


def channels_of(source: str, name: str) -> str:
    """The keyword of the number of channels."""
    presets = PUBLISHED_BLOCKS[source.split("@")[0]]
    stem = source.rsplit("/", 1)[-1].removesuffix(".py")
    preset = presets.get(f"{stem}.{name}") or presets[name]
    (keyword,) = {"in_channels", "inplanes", "in_dim", "channel"} & preset.defaults.keys()
    return keyword


def difference(case: Case) -> float:
    """The largest difference between our block and the formula, divided by the largest output."""
    source, name, settings, formula, dims = case
    x = np.random.RandomState(0).standard_normal(SHAPES[dims])
    parameters = Parameters(value)
    wanted = formula(parameters, x, settings)
    published = published_block(source, name, {channels_of(source, name): 16, **settings})
    block = published.block.double().eval()
    block.load_state_dict(published.import_state(parameters.kept), strict=True)
    with torch.no_grad():
        got = block(torch.from_numpy(x)).numpy()
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def far_from_their_formulas(cases: list[Case]) -> dict[str, float]:
    assert cases
    differences = {str(case[1:3]): difference(case) for case in cases}
    return {case: found for case, found in differences.items() if not found <= 1e-9}


@pytest.mark.parametrize("source", SOURCES)
def test_some_settings_of_a_source_equal_their_formulas(source: str):
    assert far_from_their_formulas(SOURCES[source][::11]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_every_combination_of_settings_of_a_source_equals_its_formula(source: str):
    assert far_from_their_formulas(SOURCES[source]) == {}


def test_every_preset_is_compared():
    compared = {
        (case[0].split("@")[0], case[1]) for cases in SOURCES.values() for case in cases
    } | {("Howal/DNL-Object-Detection", "ContextBlock")}
    known = {
        (repository, name.rsplit(".", 1)[-1])
        for repository, presets in PUBLISHED_BLOCKS.items()
        for name in presets
    }
    assert compared == known


MMCV, SEGMENTATION = "open-mmlab/mmcv", "yinmh17/DNL-Semantic-Segmentation"
REFUSALS: dict[str, tuple[str, str, Settings, str]] = {
    "source": ("nobody/nothing@1:a.py", "NonLocal2d", {}, "source=nobody/nothing is unknown"),
    "class": (MMCV, "NonLocal4d", {}, "class=NonLocal4d is unknown; open-mmlab/mmcv has: NonLo"),
    "keyword": (MMCV, "NonLocal2d", {"in_channels": 8, "heads": 2}, "unsupported settings: ['hea"),
    "channels": (MMCV, "NonLocal2d", {}, "in_channels is missing"),
    "mode": (MMCV, "NonLocal2d", {"in_channels": 8, "mode": "max"}, "mode=max is unsupported; k"),
    "norm": (
        MMCV,
        "NonLocal2d",
        {"in_channels": 8, "norm_cfg": {"type": "GN"}},
        "norm_cfg={'type': 'GN'} is unsupported; nlnet has types BN",
    ),
    "dimensions": (
        MMCV,
        "NonLocal2d",
        {"in_channels": 8, "conv_cfg": {"type": "Conv3d"}},
        "conv_cfg={'type': 'Conv3d'} is unsupported; nlnet has Conv2d",
    ),
    "fusion": (
        MMCV,
        "ContextBlock",
        {"in_channels": 8, "ratio": 0.5, "fusion_types": []},
        "fusion_types=[] is unsupported",
    ),
    "a failing reference": (
        "open-mmlab/mmsegmentation",
        "DisentangledNonLocal2d",
        {"in_channels": 8, "temperature": 1.0, "sub_sample": True},
        "sub_sample=True is unsupported",
    ),
    "an input that changes": (
        "open-mmlab/mmsegmentation",
        "DisentangledNonLocal2d",
        {"in_channels": 8, "temperature": 1.0, "mode": "gaussian"},
        "mode=gaussian is unsupported",
    ),
    "learned temperature": (
        "Howal/DNL-Object-Detection",
        "NonLocal2D",
        {"in_channels": 8, "learn_t": True},
        "learn_t=True is unsupported",
    ),
    "no term": (
        SEGMENTATION,
        "NonLocal2d_nowd",
        {"inplanes": 8, "planes": 4, "with_nl": False},
        "with_nl=False needs with_gc=True",
    ),
    "no mean": (
        SEGMENTATION,
        "NonLocal2d_bn",
        {"inplanes": 8, "planes": 4, "whiten_type": [], "with_unary": True},
        "with_unary needs a mean over positions",
    ),
    "groups": (
        "KaiyuYue/cgnl-network.pytorch",
        "SpatialCGNL",
        {"inplanes": 8, "planes": 4},
        "groups=None is unsupported",
    ),
    "across scales": (
        "SHI-Labs/Cross-Scale-Non-Local-Attention",
        "CrossScaleAttention",
        {},
        "class=CrossScaleAttention is unknown",
    ),
}


@pytest.mark.parametrize("mistake", REFUSALS)
def test_what_is_not_supported_is_named_in_one_line(mistake: str):
    source, name, settings, message = REFUSALS[mistake]
    with pytest.raises(UserError) as caught:
        published_block(source, name, settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_parameter_of_another_name_or_shape_is_refused():
    published = published_block(MMCV, "NonLocal2d", {"in_channels": 8})
    with pytest.raises(UserError, match=r"^query\.weight: the block has no such parameter"):
        published.import_state({"query.weight": torch.zeros(4, 8, 1, 1)})
    with pytest.raises(
        UserError, match=r"^theta\.conv\.weight is \(5, 8, 1, 1\), not \(4, 8, 1, 1"
    ):
        published.import_state({"theta.conv.weight": torch.zeros(5, 8, 1, 1)})
