"""Weights from files into networks: nlnet checkpoints and inflated ImageNet ResNets.

Reading is safe: `weights_only=True` admits tensors and plain containers, never code.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from nlnet.errors import UserError, choose
from nlnet.model.formats import TORCHVISION, to_nlnet

StateDict = dict[str, Tensor]


@dataclass
class LoadReport:
    """What a load did, key by key."""

    source: str
    loaded: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)  # of those loaded: spread over time
    new: list[str] = field(default_factory=list)  # in the network alone: left at random
    ignored: list[str] = field(default_factory=list)  # in the file alone

    def summary(self) -> str:
        """One line of counts, and what became of the classifier."""
        text = (
            f"weights from {self.source}: {len(self.loaded)} tensors loaded "
            f"({len(self.inflated)} of them inflated), {len(self.new)} new, "
            f"{len(self.ignored)} ignored"
        )
        if "head.fc.weight" in self.new:
            text += "; the classifier is new, for other classes"
        return text


def inflate_mean(kernel: Tensor, frames: int) -> Tensor:
    """(O, I, 1, h, w) -> (O, I, t, h, w), a t-th in every plane: a still clip answers as the image.

    Source: Wang et al. 2018, section 4, "Inflated 3D ConvNet".
    """
    return kernel.expand(-1, -1, frames, -1, -1) / frames


def inflate_centre(kernel: Tensor, frames: int) -> Tensor:
    """(O, I, 1, h, w) -> (O, I, t, h, w), whole in the middle plane and 0 in the others."""
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[3:])
    inflated[:, :, frames // 2] = kernel[:, :, 0]
    return inflated


INFLATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": inflate_mean,
    "centre": inflate_centre,
}


def load_weights(
    model: nn.Module,
    source: str,
    *,
    inflation: str = "mean",
    class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Start a network from a file, or from torchvision's name of a ResNet's weights.

    New may be only the classifier, where the file's classes are not `class_names`, and non-local
    blocks; any other difference is another network. Raises UserError, naming the keys.
    """
    state, names = read_weights(source)
    spread = choose("inflation", inflation, INFLATIONS)
    report = LoadReport(source)
    target = model.state_dict()
    if class_names is not None and (names is None or list(names) != list(class_names)):
        state = drop_head(state, target, report, keep=names is None)
    for key, value in target.items():
        if key not in state:
            report.new.append(key)
            continue
        tensor = state.pop(key)
        if tensor.dim() == 4 and value.dim() == 5:
            tensor = tensor.unsqueeze(2)
        if tensor.shape != value.shape and inflatable(tensor, value):
            tensor = spread(tensor, value.shape[2])
            report.inflated.append(key)
        if tensor.shape != value.shape:
            raise UserError(
                f"{source}: {key} has shape {tuple(tensor.shape)}, the network wants "
                f"{tuple(value.shape)}: it is another network; use the experiment it came from"
            )
        target[key] = tensor
        report.loaded.append(key)
    report.ignored += sorted(state)
    refuse_strangers(report)
    model.load_state_dict(target)
    return report


def inflatable(tensor: Tensor, value: Tensor) -> bool:
    """Whether a kernel without time can be spread over the time of the network's."""
    return (
        tensor.dim() == 5
        and tensor.shape[2] == 1
        and tensor.shape[:2] == value.shape[:2]
        and tensor.shape[3:] == value.shape[3:]
    )


def drop_head(state: StateDict, target: StateDict, report: LoadReport, keep: bool) -> StateDict:
    """Leave the classifier of other classes out; `keep` it if unnamed classes are as many."""
    head = {key for key in state if key.startswith("head.")}
    if keep and all(key in target and state[key].shape == target[key].shape for key in head):
        return state
    report.ignored += sorted(head)
    return {key: value for key, value in state.items() if key not in head}


def refuse_strangers(report: LoadReport) -> None:
    """Raise UserError unless what differs is the classifier, or non-local blocks that are new."""
    missing = [key for key in report.new if not key.startswith("head.") and ".nl" not in key]
    extra = [key for key in report.ignored if not key.startswith(("head.", "fc."))]
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which the network lacks"
        count = len(missing) + len(extra)
        raise UserError(
            f"{report.source}: another network: the file {what} ({count} such keys); "
            "use the experiment it came from, or convert it with tools/convert.py"
        )


def read_weights(source: str) -> tuple[StateDict, list[str] | None]:
    """Tensors under our names, and the class names where the file knows them.

    `source` is a path or a torchvision name such as ResNet50_Weights.IMAGENET1K_V1. Raises
    UserError for a file that is missing, unsafe, damaged or of an unknown format.
    """
    path = Path(source)
    if not path.exists() and "_Weights." in source:
        return rename_torchvision(source, download_torchvision(source)), None
    saved = read_file(path)
    if "model" in saved and isinstance(saved["model"], dict):
        names = saved.get("class_names")
        return dict(saved["model"]), names
    if "conv1.weight" in saved and "layer1.0.conv1.weight" in saved:
        return rename_torchvision(source, saved), None
    raise UserError(
        f"{source}: neither an nlnet checkpoint nor a torchvision ResNet; "
        "convert it first with tools/convert.py"
    )


def read_file(path: Path) -> dict:
    """A file of torch.save, read without running anything that it holds."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give weights= a path or a torchvision weight name")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise UserError(f"{path}: not a safe or whole PyTorch file ({cause})") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path}: holds a {type(saved).__name__}, not a checkpoint")
    return saved


def rename_torchvision(source: str, state: StateDict) -> StateDict:
    """torchvision's ResNet under our names; its classifier knows ImageNet and is left behind."""
    renamed: StateDict = {}
    for key, value in state.items():
        if key.startswith("fc."):
            continue
        name = to_nlnet(key, TORCHVISION)
        if name is None:
            raise UserError(f"{source}: {key} is not a key of a bottleneck ResNet")
        renamed[name] = value
    return renamed


def download_torchvision(name: str) -> StateDict:
    """ImageNet weights by torchvision's own name, through its cache, checked by their hash."""
    from torchvision.models import get_weight  # seconds to import, and rarely wanted

    try:
        return dict(get_weight(name).get_state_dict(progress=True, check_hash=True))
    except (ValueError, AttributeError) as error:
        raise UserError(f"weights={name}: torchvision knows no such weights") from error
    except (OSError, RuntimeError) as error:
        raise UserError(f"weights={name}: the download failed ({error}); give a file") from error
