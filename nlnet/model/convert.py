"""Tensors of other code bases under our names and back, and the rewritings that keep the answer.

All functions are pure: a state dict goes in, a new one comes out. Shapes of kernels here are
(O, I, t, h, w); code bases of images, and of clips frame by frame, have (O, I, h, w).
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from nlnet.errors import UserError
from nlnet.model.formats import FORMATS, from_nlnet, strangers, to_nlnet

StateDict = dict[str, Tensor]

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
    return key.endswith("num_batches_tracked") and bool(FORMATS[form].norm_leaves)


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


def fold_norms(state: Mapping[str, Tensor]) -> StateDict:
    """Every batch norm of known statistics as a fixed affine map: scale and bias alone.

    s = gamma (var + eps)^-1/2, b = beta - mean s: what the authors start long clips from.
    """
    folded = dict(state)
    for module in with_leaf(state, "running_mean"):
        mean, variance = folded.pop(f"{module}.running_mean"), folded.pop(f"{module}.running_var")
        scale = state[f"{module}.weight"] * (variance + NORM_EPS).rsqrt()
        folded[f"{module}.weight"] = scale
        folded[f"{module}.bias"] = state[f"{module}.bias"] - mean * scale
        folded.pop(f"{module}.num_batches_tracked", None)
    return folded


def unfold_norms(state: Mapping[str, Tensor]) -> StateDict:
    """Every fixed affine map as a batch norm of mean 0 and variance 1 - eps."""
    unfolded: StateDict = {}
    maps = set(with_leaf(state, "bias", last="norm")) - set(with_leaf(state, "running_mean"))
    for key, tensor in state.items():
        unfolded[key] = tensor
        module, leaf = key.rsplit(".", 1)
        if module in maps and leaf == "bias":
            unfolded[f"{module}.running_mean"] = torch.zeros_like(tensor)
            unfolded[f"{module}.running_var"] = torch.full_like(tensor, 1 - NORM_EPS)
            unfolded[f"{module}.num_batches_tracked"] = torch.tensor(0)
    return unfolded


def fold_out_bias(state: Mapping[str, Tensor]) -> StateDict:
    """Blocks without the bias b of W_z, whose norm takes it over: mean' = mean - b."""
    folded = dict(state)
    for module in with_leaf(state, "bias", last="out"):
        mean = module.removesuffix("out") + "norm.running_mean"
        if mean not in state:
            raise UserError(f"{module}.bias: no batch norm behind it that could take it over")
        folded[mean] = state[mean] - folded.pop(f"{module}.bias")
    return folded


def unfold_out_bias(state: Mapping[str, Tensor]) -> StateDict:
    """Blocks with a bias of W_z, 0 where there was none."""
    unfolded: StateDict = {}
    for key, tensor in state.items():
        unfolded[key] = tensor
        if key.endswith(".out.weight") and key.removesuffix("weight") + "bias" not in state:
            unfolded[key.removesuffix("weight") + "bias"] = tensor.new_zeros(tensor.shape[0])
    return unfolded


def fold_scale(state: Mapping[str, Tensor], *, scaled: bool) -> StateDict:
    """theta for blocks whose softmax is scaled by d^-1/2 if it was not, or the reverse.

    `scaled` says whether the new blocks scale: theta is multiplied by d^1/2, or by d^-1/2.
    """
    folded = dict(state)
    for module in with_leaf(state, "weight", last="theta"):
        inner = state[f"{module}.weight"].shape[0]
        factor = inner**0.5 if scaled else inner**-0.5
        for key in (f"{module}.weight", f"{module}.bias"):
            if key in state:
                folded[key] = state[key] * factor
    return folded


def with_leaf(state: Mapping[str, Tensor], leaf: str, last: str = "") -> list[str]:
    """Modules of a state dict that hold `leaf` and whose last name contains `last`."""
    modules = [key.removesuffix(f".{leaf}") for key in state if key.endswith(f".{leaf}")]
    return [module for module in modules if last in module.rsplit(".", 1)[-1]]
