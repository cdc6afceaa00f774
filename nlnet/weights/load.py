"""Load weights into networks: from checkpoints, public files and inflated ImageNet ResNets."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from nlnet.checks import one_of
from nlnet.errors import UserError
from nlnet.model.resnet3d import STAGES
from nlnet.weights.envelope import STEM
from nlnet.weights.files import WeightFile, read_weight_file
from nlnet.weights.public import locate, split_word
from nlnet.weights.rewrite import StateDict, adapt, import_state, listed


@dataclass
class _LoadReport:
    """What loading did with each key."""

    source: str
    loaded: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)  # loaded and expanded over time
    new: list[str] = field(default_factory=list)  # only in the network: left as initialized
    ignored: list[str] = field(default_factory=list)  # only in the file
    rewritten: list[str] = field(default_factory=list)  # changes that keep the output
    config: str | None = None  # YAML text of the run that wrote the file, if it is known
    unnamed: int | None = None  # outputs of a classifier that was taken without class names
    remarks: list[str] = field(default_factory=list)  # of reading the file

    def summary(self) -> str:
        """Describe the counts and the classifier in one line."""
        text = (
            f"weights from {self.source}: {len(self.loaded)} tensors loaded "
            f"({len(self.inflated)} of them inflated), {len(self.new)} new, "
            f"{len(self.ignored)} ignored"
        )
        if any(key.startswith("head.") for key in self.new):
            text += "; the classifier is new, for other classes"
        if self.unnamed is not None:
            text += (
                f"; the file names no classes: its {self.unnamed} outputs are taken in the order of"
                " the data set's classes"
            )
        return "; ".join([text, *self.rewritten])


def _inflate_mean(kernel: Tensor, frames: int) -> Tensor:
    """Inflate (O, I, 1, h, w) to (O, I, t, h, w): each plane is the kernel divided by t.

    A clip of equal frames then has the output of the image.
    Source: Wang et al. 2018, section 4, "Inflated 3D ConvNet".
    """
    return kernel.expand(-1, -1, frames, -1, -1) / frames


def _inflate_center(kernel: Tensor, frames: int) -> Tensor:
    """Inflate (O, I, 1, h, w) to (O, I, t, h, w): the middle plane is the kernel, the others 0."""
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[3:])
    inflated[:, :, frames // 2] = kernel[:, :, 0]
    return inflated


INFLATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": _inflate_mean,
    "center": _inflate_center,
}


def read_weights(source: str, code_base: str | None = None) -> WeightFile:
    """Read weights from a path, a URL or a public name, in any known format.

    `FILE#WORD` takes the tensors that the file holds under WORD. Raises UserError if the weights
    are not found, damaged or of an unknown format, as `read_weight_file` does.
    """
    return read_weight_file(locate(source), code_base, split_word(source)[1])


def load_weights(
    model: nn.Module,
    source: str,
    *,
    inflation: str = "mean",
    class_names: Sequence[str] | None = None,
) -> _LoadReport:
    """Read weights as `read_weights` does, and apply them as `_apply_weights` does."""
    weights = read_weights(source)
    return _apply_weights(model, weights, source, inflation=inflation, class_names=class_names)


def _apply_weights(
    model: nn.Module,
    weights: WeightFile,
    source: str,
    *,
    inflation: str = "mean",
    class_names: Sequence[str] | None = None,
) -> _LoadReport:
    """Copy weights that were read from `source` into a network.

    Two parts of the network may keep their initial values: the classifier, if the file has other
    classes than `class_names`, and non-local blocks.

    Raises:
        UserError: another part differs; the message names the keys.
    """
    target = model.state_dict()
    state, report = match(weights, target, source, inflation=inflation, class_names=class_names)
    model.load_state_dict({**target, **state})
    report.config = weights.config
    report.remarks = list(weights.remarks)
    return report


def match(
    weights: WeightFile,
    target: Mapping[str, Tensor],
    source: str,
    *,
    inflation: str = "mean",
    class_names: Sequence[str] | None = None,
) -> tuple[StateDict, _LoadReport]:
    """Return the tensors of a file for a network, and a report.

    Args:
        weights: the content of the file
        target: the network's state dict
        source: the file's name in errors and in the report
        inflation: a name in INFLATIONS, for kernels without time
        class_names: the classes of the network; None: those of the file

    Raises:
        UserError: the file belongs to another network; the message names the keys.
    """
    inflate = one_of("inflation", inflation, INFLATIONS)
    report = _LoadReport(source)
    state = _with_names_of(target, weights)
    names = weights.class_names
    if class_names is not None and (names is None or list(names) != list(class_names)):
        state = _without_head(state, target, report, keep=names is None)
    state, report.rewritten = adapt(state, target)
    matched: StateDict = {}
    for key, value in target.items():
        if key not in state:
            report.new.append(key)
            continue
        tensor = state.pop(key)
        if tensor.shape != value.shape and _can_inflate(tensor, value):
            tensor = inflate(tensor, value.shape[2])
            report.inflated.append(key)
        if tensor.shape != value.shape:
            raise UserError(
                f"{source}: {key} has shape {tuple(tensor.shape)}, the network has "
                f"{tuple(value.shape)}: it is another network; use the experiment it came from"
            )
        matched[key] = tensor
        report.loaded.append(key)
    report.ignored += sorted(state)
    _check_same_network(report)
    return matched, report


def require_complete(
    state: Mapping[str, Tensor], source: str, target: Mapping[str, Tensor] | None = None
) -> None:
    """Raise UserError if a state lacks tensors of its network; the message names them.

    `target` is the network's state dict; None for one of our ResNets with unknown settings.
    """
    wanted = _required_keys(state) if target is None else target.keys()
    missing = {key for key in wanted if not key.endswith("num_batches_tracked")} - state.keys()
    if missing:
        raise UserError(f"{source}: not a whole network: it lacks {listed(missing, 5)}")


def _required_keys(state: Mapping[str, Tensor]) -> set[str]:
    """Return the keys of a ResNet that has the blocks which occur in the state."""
    tensors = {"weight", "bias"}
    if "backbone.norm1.running_mean" in state:
        tensors |= {"running_mean", "running_var"}
    convs, norms = {"backbone.conv1"}, {"backbone.norm1"}
    for stage in STAGES:
        found = re.findall(rf"^backbone\.{stage}\.block(\d+)\.", "\n".join(state), re.MULTILINE)
        for i in range(max(map(int, found), default=0) + 1):
            block = f"backbone.{stage}.block{i}"
            convs |= {f"{block}.conv_{part}" for part in "abc"}
            norms |= {f"{block}.norm_{part}" for part in "abc"}
        convs.add(f"backbone.{stage}.block0.shortcut")
        norms.add(f"backbone.{stage}.block0.shortcut_norm")
    keys = {f"{conv}.weight" for conv in convs}
    keys |= {f"{norm}.{tensor}" for norm in norms for tensor in tensors}
    return keys | {"head.fc.weight", "head.fc.bias"}


def _with_names_of(target: Mapping[str, Tensor], weights: WeightFile) -> StateDict:
    """Return the tensors with the names of our ResNets, or of networks of pytorchvideo."""
    if weights.foreign is None or STEM in target:
        return dict(weights.state)
    return import_state(weights.foreign, "pytorchvideo_modules")


def _can_inflate(tensor: Tensor, value: Tensor) -> bool:
    """Whether a kernel without time differs from the network's kernel in time only."""
    return (
        tensor.dim() == 5
        and tensor.shape[2] == 1
        and tensor.shape[:2] == value.shape[:2]
        and tensor.shape[3:] == value.shape[3:]
    )


def _without_head(
    state: StateDict, target: Mapping[str, Tensor], report: _LoadReport, keep: bool
) -> StateDict:
    """Remove the classifier; `keep` it if the file's unnamed classes have the same number."""
    head = {key for key in state if key.startswith("head.")}
    if keep and all(key in target and state[key].shape == target[key].shape for key in head):
        report.unnamed = len(target["head.fc.weight"]) if head else None
        return state
    report.ignored += sorted(head)
    return {key: value for key, value in state.items() if key not in head}


def _check_same_network(report: _LoadReport) -> None:
    """Raise UserError unless the only differences are the classifier and new non-local blocks."""
    missing = [key for key in report.new if not key.startswith("head.") and ".nl" not in key]
    extra = [key for key in report.ignored if not key.startswith("head.")]
    if missing or extra:
        parts = [f"the file lacks {listed(missing, 5)}"] if missing else []
        parts += [f"the network lacks {listed(extra, 5)}"] if extra else []
        raise UserError(
            f"{report.source}: another network: {', '.join(parts)}; use the experiment it came from"
        )
