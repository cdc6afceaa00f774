"""Key maps: how other code bases name the tensors of a network, read in both directions.

A format is a table of module names: ours -> theirs. Names contain fields in braces:

    {s}  the stage, 2 to 5            {l}  the same stage as s - 1
    {p}  the same stage as pytorchvideo counts it after a pooling block: 1, 3, 4, 5
    {i}  the residual block of the stage, from 0
    {k}  the convolution: a, b, c     {n}  the same convolution as 1, 2, 3
    {r}  any rest of a name

The last part of a key (weight, bias, running_mean, ...) is the name of a tensor of the module. It
is kept, or renamed by the format's tables `conv_tensors` and `norm_tensors`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

FIELDS = {
    "s": r"[2-5]",
    "l": r"[1-4]",
    "p": r"[1345]",
    "i": r"\d+",
    "k": r"[abc]",
    "n": r"[123]",
    "r": r"[a-z_0-9.]+?",
}

Table = Mapping[str, str]  # our name -> their name

COUNTER = "num_batches_tracked"  # a tensor of batch norms that a format may lack


@dataclass(frozen=True)
class Blocks:
    """Properties that all non-local blocks of a code base have, whatever the settings."""

    subsample: tuple[str, ...]  # possible values of model.non_local.subsample, the usual one first
    # Which of theta, phi, g and W_z have a bias. "always": all of them. "together": all or none.
    # "before_norm": theta, phi and g; W_z only if no norm follows it.
    bias: str
    norm: bool = False  # a batch norm always follows W_z
    embedded: bool = True  # theta and phi always exist


@dataclass(frozen=True)
class Format:
    """The names of one code base, and the properties of its networks that its files do not show.

    A code base that names the same tensor in two ways, for instance with and without a pooling
    layer before it, has two formats. The keys of a file tell them apart.
    """

    code_base: str
    modules: Table
    separator: str = "."  # between a module and its tensor
    conv_tensors: Table = field(default_factory=dict)  # tensors of other modules than norms
    norm_tensors: Table = field(default_factory=dict)
    state: str | None = None  # key of the tensors in the file; None: the file is the tensors
    dropped: str | None = None  # regular expression of keys that belong to a solver
    images: bool = False  # kernels are (O, I, h, w)
    affine: bool = False  # norms may be fixed affine maps: scale and bias without statistics
    blocks: Blocks | None = None  # None: the code base has no non-local blocks
    pools: bool | None = None  # time is halved after res2; None: in some networks
    pool1_padding: int | None = 1  # of height and width; None: depends on the network


def to_nlnet(key: str, form: Format) -> str | None:
    """Return our name of the tensor that the format calls `key`; None if it is unknown."""
    for ours, theirs in form.modules.items():
        tensors = {name: our_name for our_name, name in _tensors_of(ours, form).items()}
        name = _rename(key, (theirs, form.separator), (ours, "."), tensors)
        if name is not None:
            return name
    return None


def from_nlnet(key: str, form: Format) -> str | None:
    """Return the format's name of our tensor `key`; None if the format has no name for it."""
    for ours, theirs in form.modules.items():
        name = _rename(key, (ours, "."), (theirs, form.separator), _tensors_of(ours, form))
        if name is not None:
            return name
    return None


def unknown_keys(keys: Iterable[str], form: Format) -> list[str]:
    """Return the keys that are neither tensors of a network nor of a solver."""
    dropped = re.compile(form.dropped or r"(?!)")
    return [key for key in keys if not dropped.fullmatch(key) and to_nlnet(key, form) is None]


def keys_without_name(keys: Iterable[str], form: Format) -> list[str]:
    """Return those of our keys that a format cannot name; counters of batches are optional."""
    return [key for key in keys if not key.endswith(COUNTER) and from_nlnet(key, form) is None]


def _tensors_of(module: str, form: Format) -> Table:
    """Return the names of the tensors of one of our modules; empty if they are equal to ours."""
    return form.norm_tensors if "norm" in module.rsplit(".", 1)[-1] else form.conv_tensors


def _rename(
    key: str, source: tuple[str, str], target: tuple[str, str], tensors: Table
) -> str | None:
    """Translate `key` from one (template, separator) to another; None if it does not match."""
    match = re.fullmatch(_pattern(source[0]) + re.escape(source[1]) + r"(?P<tensor>[a-z_]+)", key)
    if match is None or (tensors and match["tensor"] not in tensors):
        return None
    module = target[0].format(**_all_fields(match.groupdict()))
    return module + target[1] + (tensors[match["tensor"]] if tensors else match["tensor"])


@cache
def _pattern(template: str) -> str:
    """Return the regular expression of a template with fields."""
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.sub(r"\{(\w)\}", lambda m: f"(?P<{m[1]}>{FIELDS[m[1]]})", escaped)


def _all_fields(found: dict[str, str]) -> dict[str, str]:
    """Add the other notations of the stage and of the convolution to the fields of a name."""
    full = dict(found)
    if "l" in found:
        full["s"] = str(int(found["l"]) + 1)
    if "p" in found:
        full["s"] = "2" if found["p"] == "1" else found["p"]
    if "s" in full:
        full["l"] = str(int(full["s"]) - 1)
        full["p"] = "1" if full["s"] == "2" else full["s"]
    if "k" in found:
        full["n"] = str("abc".index(found["k"]) + 1)
    if "n" in found:
        full["k"] = "abc"[int(found["n"]) - 1]
    return full
