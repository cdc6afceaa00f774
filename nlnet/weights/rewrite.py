"""Tensors of other code bases under our names and back, and the rewritings that keep the answer.

All functions are pure: a state dict goes in, a new one comes out. Shapes of kernels here are
(O, I, t, h, w); code bases of images, and of clips frame by frame, have (O, I, h, w).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from nlnet.errors import UserError
from nlnet.weights.formats import COUNTER, FORMATS, Blocks, from_nlnet, strangers, to_nlnet

StateDict = dict[str, Tensor]

EMBEDDINGS = ("theta", "phi", "g")
NORM_EPS = 1e-5  # of every batch norm here and in the code bases


def import_state(theirs: Mapping[str, Tensor], form: str) -> StateDict:
    """The tensors of a file in a format of FORMATS under our names; solver state stays behind.

    Raises UserError listing the keys that the format does not know.
    """
    layout = FORMATS[form]
    unknown = strangers(theirs, layout)
    if unknown:
        raise UserError(f"{listed(unknown)} unknown to the format {layout.code_base}")
    ours: StateDict = {}
    for key, tensor in theirs.items():
        name = to_nlnet(key, layout)
        if name is not None:
            ours[name] = lift(name, tensor)
    return ours


def export_state(ours: Mapping[str, Tensor], form: str, *, frames: bool = True) -> StateDict:
    """Our tensors under the names of a format of FORMATS.

    `frames` False writes the kernels of images, (O, I, h, w). Raises UserError listing the keys
    that the format cannot name and the kernels that it cannot hold.
    """
    layout = FORMATS[form]
    named = {key: from_nlnet(key, layout) for key in ours if not is_counter(key, form)}
    unknown = [key for key, name in named.items() if name is None]
    if unknown:
        raise UserError(f"{listed(unknown)} without a name in {layout.code_base}")
    long = [key for key in named if not frames and ours[key].dim() == 5 and ours[key].shape[2] > 1]
    if long:
        raise UserError(f"{listed(long)} too long in time for {layout.code_base}'s image kernels")
    return {
        name: lower(key, ours[key], frames=frames)
        for key, name in named.items()
        if name is not None
    }


def is_counter(key: str, form: str) -> bool:
    """Whether this is a norm's count of batches and the format has none."""
    return key.endswith(COUNTER) and bool(FORMATS[form].norm_leaves)


def lift(key: str, tensor: Tensor) -> Tensor:
    """A tensor in our shape: kernels with time, the classifier and w_f without spare axes."""
    if key == "head.fc.weight":
        return tensor.flatten(1)
    if key.endswith(".pairwise.weight"):
        return tensor.flatten()
    return tensor.unsqueeze(2) if tensor.dim() == 4 else tensor


def lower(key: str, tensor: Tensor, *, frames: bool) -> Tensor:
    """The inverse of `lift`, for kernels with time or without."""
    if key.endswith(".pairwise.weight"):
        return tensor.view(1, -1, 1, 1)
    return tensor.squeeze(2) if tensor.dim() == 5 and not frames else tensor


def listed(keys: Iterable[str], limit: int = 20) -> str:
    """Keys for an error: how many, and their names as far as they fit a line."""
    names = sorted(keys)
    more = ", ..." if len(names) > limit else ""
    return f"{len(names)} keys ({', '.join(names[:limit])}{more})"


def fold_norms(state: Mapping[str, Tensor], modules: Collection[str] | None = None) -> StateDict:
    """Batch norms, all or those of some `modules`, as fixed affine maps: scale and bias alone.

    s = gamma (var + eps)^-1/2, b = beta - mean s: what the authors start long clips from.
    """
    folded = dict(state)
    for module in with_leaf(state, "running_mean") if modules is None else modules:
        mean, variance = folded.pop(f"{module}.running_mean"), folded.pop(f"{module}.running_var")
        scale = state[f"{module}.weight"] * (variance + NORM_EPS).rsqrt()
        folded[f"{module}.weight"] = scale
        folded[f"{module}.bias"] = state[f"{module}.bias"] - mean * scale
        folded.pop(f"{module}.{COUNTER}", None)
    return folded


def unfold_norms(state: Mapping[str, Tensor], modules: Collection[str] | None = None) -> StateDict:
    """Fixed affine maps, all or those of some `modules`, as norms of mean 0, variance 1 - eps."""
    if modules is None:
        statistics = set(with_leaf(state, "running_mean"))
        modules = [name for name in with_leaf(state, "bias", last="norm") if name not in statistics]
    unfolded = dict(state)
    for module in modules:
        bias = state[f"{module}.bias"]
        unfolded[f"{module}.running_mean"] = torch.zeros_like(bias)
        unfolded[f"{module}.running_var"] = torch.full_like(bias, 1 - NORM_EPS)
        unfolded[f"{module}.{COUNTER}"] = torch.tensor(0)
    return unfolded


def add_norms(state: Mapping[str, Tensor]) -> StateDict:
    """Blocks without a norm behind W_z with one that changes nothing."""
    added = dict(state)
    for module in block_parts(state, "out", "weight"):
        norm = module.removesuffix("out") + "norm"
        if f"{norm}.weight" not in state:
            ones = state[f"{module}.weight"].new_ones(state[f"{module}.weight"].shape[0])
            added |= {f"{norm}.weight": ones, f"{norm}.bias": torch.zeros_like(ones)}
    return unfold_norms(added)


def fold_out_bias(state: Mapping[str, Tensor], modules: Collection[str] | None = None) -> StateDict:
    """Blocks without the bias b of W_z, whose norm takes it over: mean' = mean - b."""
    folded = dict(state)
    for module in block_parts(state, "out", "bias") if modules is None else modules:
        mean = module.removesuffix("out") + "norm.running_mean"
        if mean not in state:
            raise UserError(f"{module}.bias: no batch norm behind it that could take it over")
        folded[mean] = state[mean] - folded.pop(f"{module}.bias")
    return folded


def add_biases(state: Mapping[str, Tensor], parts: Collection[str] = EMBEDDINGS) -> StateDict:
    """Blocks whose maps of these names have a bias, 0 where none was."""
    added = dict(state)
    for part in parts:
        for module in block_parts(state, part, "weight"):
            weight = state[f"{module}.weight"]
            added.setdefault(f"{module}.bias", weight.new_zeros(weight.shape[0]))
    return added


def fold_scale(state: Mapping[str, Tensor], *, scaled: bool) -> StateDict:
    """theta for blocks whose softmax is scaled by d^-1/2 if it was not, or the reverse.

    `scaled` says whether the new blocks scale: theta is multiplied by d^1/2, or by d^-1/2.
    """
    folded = dict(state)
    for module in block_parts(state, "theta", "weight"):
        inner = state[f"{module}.weight"].shape[0]
        factor = inner**0.5 if scaled else inner**-0.5
        for key in (f"{module}.weight", f"{module}.bias"):
            if key in state:
                folded[key] = state[key] * factor
    return folded


REWRITES: dict[str, Callable[[Mapping[str, Tensor]], StateDict]] = {
    "fold_norms": fold_norms,  # batch norm -> a fixed affine map
    "unfold_norms": unfold_norms,
    "fold_out_bias": fold_out_bias,  # the bias of W_z -> the running mean behind it
    "add_out_bias": partial(add_biases, parts=("out",)),
    "scale_theta": partial(fold_scale, scaled=True),  # for blocks that scale their softmax
    "unscale_theta": partial(fold_scale, scaled=False),  # for blocks that do not
}


def fit(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
    """The state in the terms of a network, as far as its answer stays; and what was done.

    `target` is the network's state dict. A bias of W_z goes into the norm behind it or comes as
    0, a norm is folded into an affine map or unfolded, counts of batches that no file holds
    start at 0. All else is left to whoever compares the keys.
    """
    fitted, done = dict(state), []
    surplus = [
        module
        for module in block_parts(state, "out", "bias")
        if f"{module}.weight" in target
        and f"{module}.bias" not in target
        and module.removesuffix("out") + "norm.running_mean" in state
    ]
    if surplus:
        fitted = fold_out_bias(fitted, surplus)
        done.append("biases of W_z folded into running means")
    for part in (*EMBEDDINGS, "out"):
        wanted = {*block_parts(target, part, "bias")} - {*block_parts(state, part, "bias")}
        if wanted & {*block_parts(state, part, "weight")}:
            fitted = add_biases(fitted, [part])
            done.append(f"biases of 0 given to {part}")
    ours, theirs = (set(with_leaf(keys, "running_mean")) for keys in (fitted, target))
    affine = [name for name in sorted(ours - theirs) if f"{name}.bias" in target]
    if affine:
        fitted = fold_norms(fitted, affine)
        done.append("batch norms folded into affine maps")
    plain = [name for name in sorted(theirs - ours) if f"{name}.bias" in fitted]
    if plain:
        fitted = unfold_norms(fitted, plain)
        done.append("affine maps unfolded into batch norms")
    return with_counters(fitted), done


def express(state: Mapping[str, Tensor], form: str) -> StateDict:
    """The state as the networks of a format of FORMATS have it; the answer stays.

    Raises UserError for blocks that the format does not have.
    """
    layout = FORMATS[form]
    expressed = dict(state) if layout.affine else with_counters(unfold_norms(state))
    if layout.blocks is None or not block_parts(state, "out", "weight"):
        return expressed
    return with_counters(express_blocks(expressed, layout.blocks))


def express_blocks(state: StateDict, blocks: Blocks) -> StateDict:
    """Non-local blocks with the biases and norms that a code base always gives them."""
    if blocks.norm:
        state = add_norms(state)
    if blocks.bias == "together":
        parts = (*EMBEDDINGS, "out")
        has_bias = any(block_parts(state, part, "bias") for part in parts)
        return add_biases(state, parts) if has_bias else state
    state = add_biases(state)
    if blocks.bias == "always":
        return add_biases(state, ["out"])
    norms = set(with_leaf(state, "running_mean", last="norm"))
    below = [m for m in block_parts(state, "out", "weight") if m[:-3] + "norm" in norms]
    if not below:
        return add_biases(state, ["out"])
    return fold_out_bias(state, [module for module in below if f"{module}.bias" in state])


def with_counters(state: StateDict) -> StateDict:
    """Every batch norm with its count of batches, 0 where the file has none."""
    counters = [f"{name}.{COUNTER}" for name in with_leaf(state, "running_mean")]
    return state | {name: torch.tensor(0) for name in counters if name not in state}


def with_leaf(state: Mapping[str, Tensor], leaf: str, last: str = "") -> list[str]:
    """Modules of a state dict that hold `leaf` and whose last name contains `last`."""
    modules = [key.removesuffix(f".{leaf}") for key in state if key.endswith(f".{leaf}")]
    return [module for module in modules if last in module.rsplit(".", 1)[-1]]


def block_parts(state: Mapping[str, Tensor], part: str, leaf: str) -> list[str]:
    """Modules called `part` (theta, out, ...) of non-local blocks that hold `leaf`."""
    modules = with_leaf(state, leaf, last=part)
    return [m for m in modules if m.split(".")[-1] == part and m.split(".")[-2].startswith("nl")]
