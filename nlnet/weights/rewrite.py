"""Names and shapes of other code bases' tensors, and rewrites that keep a network's output.

All functions are pure: they take a state dict and return a new one. Our kernels are
(O, I, t, h, w); code bases of images, and of clips frame by frame, have (O, I, h, w).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from nlnet.errors import UserError
from nlnet.weights.keymap import COUNTER, Blocks, from_nlnet, to_nlnet, unknown_keys
from nlnet.weights.sources.all import FORMATS

StateDict = dict[str, Tensor]

EMBEDDINGS = ("theta", "phi", "g")
NORM_EPS = 1e-5  # of all batch norms in nlnet and in the code bases


def import_state(theirs: Mapping[str, Tensor], form: str) -> StateDict:
    """Convert tensors in a format of FORMATS to our names and shapes; solver state is left out.

    Raises UserError that lists the keys that the format does not know.
    """
    layout = FORMATS[form]
    unknown = unknown_keys(theirs, layout)
    if unknown:
        raise UserError(f"{listed(unknown)} unknown to the format {layout.code_base}")
    ours: StateDict = {}
    for key, tensor in theirs.items():
        name = to_nlnet(key, layout)
        if name is not None:
            ours[name] = _to_our_shape(name, tensor)
    return ours


def export_state(ours: Mapping[str, Tensor], form: str, *, frames: bool = True) -> StateDict:
    """Convert our tensors to the names and shapes of a format of FORMATS.

    `frames` False writes kernels without a time axis, (O, I, h, w). Raises UserError that lists
    the keys that the format cannot name and the kernels that it cannot hold.
    """
    layout = FORMATS[form]
    named = {key: from_nlnet(key, layout) for key in ours if not _is_left_out(key, form)}
    unknown = [key for key, name in named.items() if name is None]
    if unknown:
        raise UserError(f"{listed(unknown)} without a name in {layout.code_base}")
    long = [key for key in named if not frames and ours[key].dim() == 5 and ours[key].shape[2] > 1]
    if long:
        raise UserError(f"{listed(long)} too long in time for {layout.code_base}'s image kernels")
    return {
        name: _to_their_shape(key, ours[key], frames=frames)
        for key, name in named.items()
        if name is not None
    }


def listed(keys: Iterable[str], limit: int = 20) -> str:
    """Describe keys in an error: their number, and the first `limit` names."""
    names = sorted(keys)
    more = ", ..." if len(names) > limit else ""
    return f"{len(names)} keys ({', '.join(names[:limit])}{more})"


def norms_to_affine(
    state: Mapping[str, Tensor], modules: Collection[str] | None = None
) -> StateDict:
    """Convert batch norms, all or some `modules`, to fixed affine maps: a scale and a bias.

    s = gamma (var + eps)^-1/2, b = beta - mean s. The authors start long clips from such networks.
    """
    affine = dict(state)
    for module in _modules_with(state, "running_mean") if modules is None else modules:
        mean, variance = affine.pop(f"{module}.running_mean"), affine.pop(f"{module}.running_var")
        scale = state[f"{module}.weight"] * (variance + NORM_EPS).rsqrt()
        affine[f"{module}.weight"] = scale
        affine[f"{module}.bias"] = state[f"{module}.bias"] - mean * scale
        affine.pop(f"{module}.{COUNTER}", None)
    return affine


def affine_to_norms(
    state: Mapping[str, Tensor], modules: Collection[str] | None = None
) -> StateDict:
    """Convert affine maps, all or some `modules`, to batch norms of mean 0 and variance 1 - eps."""
    if modules is None:
        statistics = set(_modules_with(state, "running_mean"))
        affine = _modules_with(state, "bias", last="norm")
        modules = [name for name in affine if name not in statistics]
    norms = dict(state)
    for module in modules:
        bias = state[f"{module}.bias"]
        norms[f"{module}.running_mean"] = torch.zeros_like(bias)
        norms[f"{module}.running_var"] = torch.full_like(bias, 1 - NORM_EPS)
        norms[f"{module}.{COUNTER}"] = torch.tensor(0)
    return norms


def _add_norms(state: Mapping[str, Tensor]) -> StateDict:
    """Give blocks without a norm after W_z a norm that changes nothing."""
    added = dict(state)
    for module in _block_parts(state, "out", "weight"):
        norm = module.removesuffix("out") + "norm"
        if f"{norm}.weight" not in state:
            ones = state[f"{module}.weight"].new_ones(state[f"{module}.weight"].shape[0])
            added |= {f"{norm}.weight": ones, f"{norm}.bias": torch.zeros_like(ones)}
    return affine_to_norms(added)


def fold_out_bias(state: Mapping[str, Tensor], modules: Collection[str] | None = None) -> StateDict:
    """Move the bias b of W_z into the running mean of the norm after it: mean' = mean - b."""
    folded = dict(state)
    for module in _block_parts(state, "out", "bias") if modules is None else modules:
        mean = module.removesuffix("out") + "norm.running_mean"
        if mean not in state:
            raise UserError(f"{module}.bias: no batch norm after it can take it over")
        folded[mean] = state[mean] - folded.pop(f"{module}.bias")
    return folded


def _add_biases(state: Mapping[str, Tensor], parts: Collection[str] = EMBEDDINGS) -> StateDict:
    """Give the block parts of these names a bias of 0 if they have none."""
    added = dict(state)
    for part in parts:
        for module in _block_parts(state, part, "weight"):
            weight = state[f"{module}.weight"]
            added.setdefault(f"{module}.bias", weight.new_zeros(weight.shape[0]))
    return added


def fold_scale(state: Mapping[str, Tensor], *, scaled: bool) -> StateDict:
    """Multiply theta by d^1/2 for blocks that scale their softmax by d^-1/2, or divide it.

    `scaled` says whether the new blocks scale. The old blocks do the opposite.
    """
    folded = dict(state)
    for module in _block_parts(state, "theta", "weight"):
        inner = state[f"{module}.weight"].shape[0]
        factor = inner**0.5 if scaled else inner**-0.5
        for key in (f"{module}.weight", f"{module}.bias"):
            if key in state:
                folded[key] = state[key] * factor
    return folded


REWRITES: dict[str, Callable[[Mapping[str, Tensor]], StateDict]] = {
    "norms_to_affine": norms_to_affine,
    "affine_to_norms": affine_to_norms,
    "fold_out_bias": fold_out_bias,
    "add_out_bias": partial(_add_biases, parts=("out",)),
    "scale_theta": partial(fold_scale, scaled=True),
    "unscale_theta": partial(fold_scale, scaled=False),
}


def adapt(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
    """Rewrite a state to the tensors that a network has, without changing the output.

    A bias of W_z moves into the norm after it, or is added as 0. A norm becomes an affine map, or
    the reverse. Missing counters of batches start at 0. Other differences are left to the caller.

    Args:
        state: tensors with our names
        target: the network's state dict

    Returns:
        the new state, and a description of each rewrite
    """
    adapted, done = dict(state), []
    surplus = [
        module
        for module in _block_parts(state, "out", "bias")
        if f"{module}.weight" in target
        and f"{module}.bias" not in target
        and module.removesuffix("out") + "norm.running_mean" in state
    ]
    if surplus:
        adapted = fold_out_bias(adapted, surplus)
        done.append("biases of W_z folded into running means")
    for part in (*EMBEDDINGS, "out"):
        wanted = {*_block_parts(target, part, "bias")} - {*_block_parts(state, part, "bias")}
        if wanted & {*_block_parts(state, part, "weight")}:
            adapted = _add_biases(adapted, [part])
            done.append(f"biases of 0 added to {part}")
    ours, theirs = (set(_modules_with(keys, "running_mean")) for keys in (adapted, target))
    affine = [name for name in sorted(ours - theirs) if f"{name}.bias" in target]
    if affine:
        adapted = norms_to_affine(adapted, affine)
        done.append("batch norms converted to affine maps")
    norms = [name for name in sorted(theirs - ours) if f"{name}.bias" in adapted]
    if norms:
        adapted = affine_to_norms(adapted, norms)
        done.append("affine maps converted to batch norms")
    return _with_counters(adapted), done


def adapt_to_format(state: Mapping[str, Tensor], form: str) -> StateDict:
    """Rewrite to the conventions of a format of FORMATS without changing the output.

    Raises UserError for blocks that the format does not have.
    """
    layout = FORMATS[form]
    adapted = dict(state) if layout.affine else _with_counters(affine_to_norms(state))
    if layout.blocks is None or not _block_parts(state, "out", "weight"):
        return adapted
    return _with_counters(_adapt_blocks(adapted, layout.blocks))


def _adapt_blocks(state: StateDict, blocks: Blocks) -> StateDict:
    """Give non-local blocks the biases and norms that all blocks of a code base have."""
    if blocks.norm:
        state = _add_norms(state)
    if blocks.bias == "together":
        parts = (*EMBEDDINGS, "out")
        has_bias = any(_block_parts(state, part, "bias") for part in parts)
        return _add_biases(state, parts) if has_bias else state
    state = _add_biases(state)
    if blocks.bias == "always":
        return _add_biases(state, ["out"])
    norms = set(_modules_with(state, "running_mean", last="norm"))
    normed = [m for m in _block_parts(state, "out", "weight") if m[:-3] + "norm" in norms]
    if not normed:
        return _add_biases(state, ["out"])
    return fold_out_bias(state, [module for module in normed if f"{module}.bias" in state])


def _modules_with(state: Mapping[str, Tensor], tensor: str, last: str = "") -> list[str]:
    """Return the modules that hold a `tensor` and whose last name contains `last`."""
    modules = [key.removesuffix(f".{tensor}") for key in state if key.endswith(f".{tensor}")]
    return [module for module in modules if last in module.rsplit(".", 1)[-1]]


def _block_parts(state: Mapping[str, Tensor], part: str, tensor: str) -> list[str]:
    """Return the modules `part` (theta, out, ...) of non-local blocks that hold a `tensor`."""
    modules = _modules_with(state, tensor, last=part)
    return [m for m in modules if m.split(".")[-1] == part and m.split(".")[-2].startswith("nl")]


def _is_left_out(key: str, form: str) -> bool:
    """Whether this is a norm's counter of batches and the format has none."""
    return key.endswith(COUNTER) and bool(FORMATS[form].norm_tensors)


def _to_our_shape(key: str, tensor: Tensor) -> Tensor:
    """Give kernels a time axis; remove axes of length 1 from the classifier and from w_f."""
    if key == "head.fc.weight":
        return tensor.flatten(1)
    if key.endswith(".pairwise.weight"):
        return tensor.flatten()
    return tensor.unsqueeze(2) if tensor.dim() == 4 else tensor


def _to_their_shape(key: str, tensor: Tensor, *, frames: bool) -> Tensor:
    """Invert `_to_our_shape`, for kernels with or without a time axis."""
    if key.endswith(".pairwise.weight"):
        return tensor.view(1, -1, 1, 1)
    return tensor.squeeze(2) if tensor.dim() == 5 and not frames else tensor


def _with_counters(state: StateDict) -> StateDict:
    """Give every batch norm a counter of batches: 0 if the file has none."""
    counters = [f"{name}.{COUNTER}" for name in _modules_with(state, "running_mean")]
    return state | {name: torch.tensor(0) for name in counters if name not in state}
