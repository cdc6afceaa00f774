"""How other code bases name the same tensors: key maps as data, read in both directions.

A format is a table of module names, ours beside theirs. Fields in braces stand for numbers: {s}
the stage (2 to 5), {l} = s - 1 and {p} pytorchvideo's number of a stage behind a pool; {i} the
block from 0; {k} the convolution (a, b, c) and {n} the same as 1, 2, 3. What follows a module's
name (weight, bias, running_mean, ...) is kept, or renamed by the format's leaves.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from nlnet.errors import UserError

FIELDS = {
    "s": r"[2-5]",
    "l": r"[1-4]",
    "p": r"[1345]",
    "i": r"\d+",
    "k": r"[abc]",
    "n": r"[123]",
    "r": r"[a-z_0-9.]+?",
}

Table = Mapping[str, str]  # our module -> their module

COUNTER = "num_batches_tracked"  # of a norm; the one leaf that a format may do without


BIASES = {
    "always": "theta, phi, g and out have one",
    "together": "all four have one or none has",
    "before_norm": "theta, phi and g have one; out has one where no norm follows it",
}


@dataclass(frozen=True)
class Blocks:
    """What the non-local blocks of a code base have, whatever its settings."""

    subsample: frozenset[str]  # where keys may be pooled: names in SUBSAMPLES
    bias: str  # a name in BIASES
    norm: bool = False  # a batch norm always follows W_z
    embedded: bool = True  # theta and phi are always there


@dataclass(frozen=True)
class Format:
    """One code base's names.

    Spaces of names that differ inside one code base (a block with or without a pool) are formats
    of their own, told apart by the keys.
    """

    code_base: str
    modules: Table
    separator: str = "."  # between a module and its leaf
    leaves: Mapping[str, str] = field(default_factory=dict)  # our leaf of a convolution -> theirs
    norm_leaves: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None  # key of the tensors in the envelope; None: the file is the tensors
    dropped: str | None = None  # pattern of keys that belong to a solver, not to a network
    images: bool = False  # its kernels are those of images, (O, I, h, w)
    affine: bool = False  # it knows norms without statistics, folded into scale and bias
    blocks: Blocks | None = None  # its non-local blocks; None: it has none
    pools: bool | None = None  # whether its networks halve time behind res2; None: either
    pool1_padding: int | None = 1  # of height and width; None: it depends on the network


CAFFE2 = Format(
    "caffe2",
    {
        "backbone.conv1": "conv1",
        "backbone.norm1": "res_conv1_bn",
        "backbone.res{s}.block{i}.conv_{k}": "res{s}_{i}_branch2{k}",
        "backbone.res{s}.block{i}.norm_{k}": "res{s}_{i}_branch2{k}_bn",
        "backbone.res{s}.block{i}.shortcut": "res{s}_{i}_branch1",
        "backbone.res{s}.block{i}.shortcut_norm": "res{s}_{i}_branch1_bn",
        "backbone.res{s}.nl{i}.theta": "nonlocal_conv{s}_{i}_theta",
        "backbone.res{s}.nl{i}.phi": "nonlocal_conv{s}_{i}_phi",
        "backbone.res{s}.nl{i}.g": "nonlocal_conv{s}_{i}_g",
        "backbone.res{s}.nl{i}.out": "nonlocal_conv{s}_{i}_out",
        "backbone.res{s}.nl{i}.norm": "nonlocal_conv{s}_{i}_bn",
        "head.fc": "pred",
    },
    separator="_",
    leaves={"weight": "w", "bias": "b"},
    # riv is the variance itself, not its inverse.
    norm_leaves={"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"},
    state="blobs",
    dropped=r"lr|model_iter|.*_momentum",
    affine=True,
    pool1_padding=0,
    blocks=Blocks(frozenset({"none", "input"}), bias="together"),
)
SLOWFAST = Format(
    "slowfast",
    {
        "backbone.conv1": "s1.pathway0_stem.conv",
        "backbone.norm1": "s1.pathway0_stem.bn",
        "backbone.res{s}.block{i}.conv_{k}": "s{s}.pathway0_res{i}.branch2.{k}",
        "backbone.res{s}.block{i}.norm_{k}": "s{s}.pathway0_res{i}.branch2.{k}_bn",
        "backbone.res{s}.block{i}.shortcut": "s{s}.pathway0_res{i}.branch1",
        "backbone.res{s}.block{i}.shortcut_norm": "s{s}.pathway0_res{i}.branch1_bn",
        "backbone.res{s}.nl{i}.theta": "s{s}.pathway0_nonlocal{i}.conv_theta",
        "backbone.res{s}.nl{i}.phi": "s{s}.pathway0_nonlocal{i}.conv_phi",
        "backbone.res{s}.nl{i}.g": "s{s}.pathway0_nonlocal{i}.conv_g",
        "backbone.res{s}.nl{i}.out": "s{s}.pathway0_nonlocal{i}.conv_out",
        "backbone.res{s}.nl{i}.norm": "s{s}.pathway0_nonlocal{i}.bn",
        "head.fc": "head.projection",
    },
    state="model_state",
    blocks=Blocks(frozenset({"none", "input"}), bias="always", norm=True),
)
MMACTION2 = Format(
    "mmaction2",
    {
        "backbone.conv1": "backbone.conv1.conv",
        "backbone.norm1": "backbone.conv1.bn",
        "backbone.res{s}.block{i}.conv_{k}": "backbone.layer{l}.{i}.conv{n}.conv",
        "backbone.res{s}.block{i}.norm_{k}": "backbone.layer{l}.{i}.conv{n}.bn",
        "backbone.res{s}.block{i}.shortcut": "backbone.layer{l}.{i}.downsample.conv",
        "backbone.res{s}.block{i}.shortcut_norm": "backbone.layer{l}.{i}.downsample.bn",
        "backbone.res{s}.nl{i}.theta": "backbone.layer{l}.{i}.non_local_block.theta.conv",
        "backbone.res{s}.nl{i}.phi": "backbone.layer{l}.{i}.non_local_block.phi.conv",
        "backbone.res{s}.nl{i}.g": "backbone.layer{l}.{i}.non_local_block.g.conv",
        "backbone.res{s}.nl{i}.out": "backbone.layer{l}.{i}.non_local_block.conv_out.conv",
        "backbone.res{s}.nl{i}.norm": "backbone.layer{l}.{i}.non_local_block.conv_out.bn",
        "backbone.res{s}.nl{i}.pairwise": (
            "backbone.layer{l}.{i}.non_local_block.concat_project.conv"
        ),
        "head.fc": "cls_head.fc_cls",
    },
    state="state_dict",
    blocks=Blocks(frozenset({"none"}), bias="before_norm", embedded=False),
    pool1_padding=None,
)
MMACTION2_POOLED = Format(  # phi and g are followed by their pool, in a sequence
    "mmaction2",
    {
        **MMACTION2.modules,
        "backbone.res{s}.nl{i}.phi": "backbone.layer{l}.{i}.non_local_block.phi.0.conv",
        "backbone.res{s}.nl{i}.g": "backbone.layer{l}.{i}.non_local_block.g.0.conv",
    },
    state="state_dict",
    blocks=Blocks(frozenset({"embedded"}), bias="before_norm", embedded=False),
    pool1_padding=None,
)
PYTORCHVIDEO = Format(  # C2D and I3D: the pool behind res2 is a block of its own
    "pytorchvideo",
    {
        "backbone.conv1": "blocks.0.conv",
        "backbone.norm1": "blocks.0.norm",
        "backbone.res{s}.block{i}.conv_{k}": "blocks.{p}.res_blocks.{i}.branch2.conv_{k}",
        "backbone.res{s}.block{i}.norm_{k}": "blocks.{p}.res_blocks.{i}.branch2.norm_{k}",
        "backbone.res{s}.block{i}.shortcut": "blocks.{p}.res_blocks.{i}.branch1_conv",
        "backbone.res{s}.block{i}.shortcut_norm": "blocks.{p}.res_blocks.{i}.branch1_norm",
        "head.fc": "blocks.6.proj",
    },
    state="model_state",
    pools=True,
)
PYTORCHVIDEO_SLOW = Format(
    "pytorchvideo",
    {
        **{ours: theirs.replace("{p}", "{l}") for ours, theirs in PYTORCHVIDEO.modules.items()},
        "head.fc": "blocks.5.proj",
    },
    state="model_state",
    pools=False,
)
TORCHVISION = Format(
    "torchvision",
    {
        "backbone.conv1": "conv1",
        "backbone.norm1": "bn1",
        "backbone.res{s}.block{i}.conv_{k}": "layer{l}.{i}.conv{n}",
        "backbone.res{s}.block{i}.norm_{k}": "layer{l}.{i}.bn{n}",
        "backbone.res{s}.block{i}.shortcut": "layer{l}.{i}.downsample.0",
        "backbone.res{s}.block{i}.shortcut_norm": "layer{l}.{i}.downsample.1",
        "head.fc": "fc",
    },
    images=True,
)
PYTORCHVIDEO_MODULES = Format(  # networks of its own modules: nlnet.model.pytorchvideo
    "pytorchvideo",
    {
        "backbone.conv1.{r}": "blocks.0.{r}",
        "backbone.res{s}.block{i}.{r}": "blocks.{l}.res_blocks.{i}.{r}",
        "head.pool.{r}": "blocks.5.pool.{r}",
        "head.fc": "blocks.5.proj",
    },
    state="model_state",
    pools=False,
)

FORMATS: dict[str, Format] = {
    "caffe2": CAFFE2,
    "slowfast": SLOWFAST,
    "mmaction2": MMACTION2,
    "mmaction2_pooled": MMACTION2_POOLED,
    "pytorchvideo": PYTORCHVIDEO,
    "pytorchvideo_slow": PYTORCHVIDEO_SLOW,
    "torchvision": TORCHVISION,
    "pytorchvideo_modules": PYTORCHVIDEO_MODULES,
}
CODE_BASES = tuple(dict.fromkeys(form.code_base for form in FORMATS.values()))


def to_nlnet(key: str, form: Format) -> str | None:
    """Our name of a tensor that the format calls `key`; None where it knows no such."""
    for ours, theirs in form.modules.items():
        leaves = {leaf: name for name, leaf in leaves_of(ours, form).items()}
        name = rename(key, (theirs, form.separator), (ours, "."), leaves)
        if name is not None:
            return name
    return None


def from_nlnet(key: str, form: Format) -> str | None:
    """The format's name of our tensor `key`; None where it knows no such."""
    for ours, theirs in form.modules.items():
        leaves = leaves_of(ours, form)
        name = rename(key, (ours, "."), (theirs, form.separator), leaves)
        if name is not None:
            return name
    return None


def recognise(keys: Collection[str]) -> str | None:
    """The name in FORMATS of the first format that knows all these keys.

    Where none does, the first whose stem is among them: an error can then name the strangers.
    """
    stems = {name: from_nlnet("backbone.conv1.weight", form) for name, form in FORMATS.items()}
    fitting = [name for name, form in FORMATS.items() if keys and not strangers(keys, form)]
    return next(iter(fitting + [name for name, stem in stems.items() if stem in keys]), None)


def format_for(
    code_base: str, keys: Collection[str], subsample: str | None, pools: bool | None
) -> str:
    """The name in FORMATS of a code base's format that holds a network of ours with these keys.

    `subsample` is where its non-local blocks pool their keys and `pools` whether it halves time
    behind res2, None where that is not known. Raises UserError where no format has such a network.
    """
    forms = {name: form for name, form in FORMATS.items() if form.code_base == code_base}
    for name, form in forms.items():
        if misfit(form, keys, subsample, pools) is None:
            return name
    nearest = min(forms.values(), key=lambda form: len(nameless(form, keys)))
    raise UserError(
        f"{code_base} cannot hold this network: {misfit(nearest, keys, subsample, pools)}; where "
        "the file does not say what network it is of, name that with --experiment"
    )


def nameless(form: Format, keys: Collection[str]) -> list[str]:
    """The keys of ours that a format has no name for; it may do without counts of batches."""
    return [key for key in keys if not key.endswith(COUNTER) and from_nlnet(key, form) is None]


def misfit(
    form: Format, keys: Collection[str], subsample: str | None, pools: bool | None
) -> str | None:
    """Why a format cannot hold a network with these keys; None if it can."""
    unknown = nameless(form, keys)
    if unknown:
        return f"it has no name for {len(unknown)} keys ({', '.join(unknown[:5])}, ...)"
    if form.pools not in (None, pools):
        return "its networks differ in the pool behind res2"
    blocks = {key.removesuffix(".out.weight") for key in keys if key.endswith(".out.weight")}
    if not blocks or form.blocks is None:
        return None
    if subsample not in form.blocks.subsample:
        known = " or ".join(sorted(form.blocks.subsample))
        return f"its blocks pool their keys elsewhere (model.non_local.subsample={known})"
    if form.blocks.embedded and any(f"{block}.phi.weight" not in keys for block in blocks):
        return "its blocks always have theta and phi"
    return None


def strangers(keys: Iterable[str], form: Format) -> list[str]:
    """The keys that are neither tensors of a network of ours nor of a solver."""
    dropped = re.compile(form.dropped or r"(?!)")
    return [key for key in keys if not dropped.fullmatch(key) and to_nlnet(key, form) is None]


def leaves_of(module: str, form: Format) -> Mapping[str, str]:
    """Our leaves of one of our modules -> the format's; empty: they are called as here."""
    return form.norm_leaves if "norm" in module.rsplit(".", 1)[-1] else form.leaves


def rename(
    key: str, source: tuple[str, str], target: tuple[str, str], leaves: Mapping[str, str]
) -> str | None:
    """`key` from one template and separator to another; None if it does not fit the first."""
    match = re.fullmatch(pattern(source[0]) + re.escape(source[1]) + r"(?P<leaf>[a-z_]+)", key)
    if match is None or (leaves and match["leaf"] not in leaves):
        return None
    module = target[0].format(**complete(match.groupdict()))
    return module + target[1] + (leaves[match["leaf"]] if leaves else match["leaf"])


@cache
def pattern(template: str) -> str:
    """A regular expression for a template with fields."""
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.sub(r"\{(\w)\}", lambda m: f"(?P<{m[1]}>{FIELDS[m[1]]})", escaped)


def complete(fields: dict[str, str]) -> dict[str, str]:
    """All spellings of the stage and of the convolution, from whichever the name bore."""
    full = dict(fields)
    if "l" in fields:
        full["s"] = str(int(fields["l"]) + 1)
    if "p" in fields:
        full["s"] = "2" if fields["p"] == "1" else fields["p"]
    if "s" in full:
        full["l"] = str(int(full["s"]) - 1)
        full["p"] = "1" if full["s"] == "2" else full["s"]
    if "k" in fields:
        full["n"] = str("abc".index(fields["k"]) + 1)
    if "n" in fields:
        full["k"] = "abc"[int(fields["n"]) - 1]
    return full
