"""Weights into networks: from checkpoints, public files and inflated ImageNet ResNets."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from nlnet.checks import one_of
from nlnet.errors import UserError
from nlnet.model.resnet3d import STAGES
from nlnet.weights.files import STEM, WeightFile, read_weight_file
from nlnet.weights.public import locate
from nlnet.weights.rewrite import StateDict, fit, import_state, listed


@dataclass
class LoadReport:
    """What a load did, key by key."""

    source: str
    loaded: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)  # of those loaded: spread over time
    new: list[str] = field(default_factory=list)  # in the network alone: left at random
    ignored: list[str] = field(default_factory=list)  # in the file alone
    rewritten: list[str] = field(default_factory=list)  # what was done that keeps the answer
    config: str | None = None  # of the run that made the file, where it is known

    def summary(self) -> str:
        """One line of counts, and what became of the classifier."""
        text = (
            f"weights from {self.source}: {len(self.loaded)} tensors loaded "
            f"({len(self.inflated)} of them inflated), {len(self.new)} new, "
            f"{len(self.ignored)} ignored"
        )
        if any(key.startswith("head.") for key in self.new):
            text += "; the classifier is new, for other classes"
        return "; ".join([text, *self.rewritten])


def inflate_mean(kernel: Tensor, frames: int) -> Tensor:
    """(O, I, 1, h, w) -> (O, I, t, h, w), a t-th in every plane: a still clip answers as the image.

    Source: Wang et al. 2018, section 4, "Inflated 3D ConvNet".
    """
    return kernel.expand(-1, -1, frames, -1, -1) / frames


def inflate_center(kernel: Tensor, frames: int) -> Tensor:
    """(O, I, 1, h, w) -> (O, I, t, h, w), whole in the middle plane and 0 in the others."""
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[3:])
    inflated[:, :, frames // 2] = kernel[:, :, 0]
    return inflated


INFLATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": inflate_mean,
    "center": inflate_center,
}


def load_weights(
    model: nn.Module,
    source: str,
    *,
    inflation: str = "mean",
    class_names: Sequence[str] | None = None,
) -> LoadReport:
    """Start a network from a path, a URL or a public name, in any format that is known.

    New may be only the classifier, where the file's classes are not `class_names`, and non-local
    blocks; any other difference is another network. Raises UserError, naming the keys.
    """
    target = model.state_dict()
    weights = read_weight_file(locate(source))
    state, report = match(weights, target, source, inflation=inflation, class_names=class_names)
    model.load_state_dict({**target, **state})
    report.config = weights.config
    return report


def match(
    weights: WeightFile,
    target: Mapping[str, Tensor],
    source: str,
    *,
    inflation: str = "mean",
    class_names: Sequence[str] | None = None,
) -> tuple[StateDict, LoadReport]:
    """The tensors of a file for a network whose state dict is `target`, and what was done.

    Raises UserError, naming `source` and the keys, where the file is of another network.
    """
    spread = one_of("inflation", inflation, INFLATIONS)
    report = LoadReport(source)
    state = in_the_names_of(target, weights)
    names = weights.class_names
    if class_names is not None and (names is None or list(names) != list(class_names)):
        state = drop_head(state, target, report, keep=names is None)
    state, report.rewritten = fit(state, target)
    matched: StateDict = {}
    for key, value in target.items():
        if key not in state:
            report.new.append(key)
            continue
        tensor = state.pop(key)
        if tensor.shape != value.shape and inflatable(tensor, value):
            tensor = spread(tensor, value.shape[2])
            report.inflated.append(key)
        if tensor.shape != value.shape:
            raise UserError(
                f"{source}: {key} has shape {tuple(tensor.shape)}, the network wants "
                f"{tuple(value.shape)}: it is another network; use the experiment it came from"
            )
        matched[key] = tensor
        report.loaded.append(key)
    report.ignored += sorted(state)
    refuse_strangers(report)
    return matched, report


def require_whole(
    state: Mapping[str, Tensor], source: str, target: Mapping[str, Tensor] | None = None
) -> None:
    """Raise UserError unless a state holds all of a network, naming what it lacks.

    `target` is the network's state dict; None for one of our ResNets whose settings are unknown.
    """
    wanted = required_keys(state) if target is None else target.keys()
    missing = {key for key in wanted if not key.endswith("num_batches_tracked")} - state.keys()
    if missing:
        raise UserError(f"{source}: not a whole network: it lacks {listed(missing, 5)}")


def required_keys(state: Mapping[str, Tensor]) -> set[str]:
    """What a ResNet of ours must hold, by the last block of each stage that the state knows."""
    leaves = {"weight", "bias"}
    if "backbone.norm1.running_mean" in state:
        leaves |= {"running_mean", "running_var"}
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
    keys |= {f"{norm}.{leaf}" for norm in norms for leaf in leaves}
    return keys | {"head.fc.weight", "head.fc.bias"}


def in_the_names_of(target: Mapping[str, Tensor], weights: WeightFile) -> StateDict:
    """The tensors under the network's names: those of our ResNets, or a code base's own modules."""
    if weights.foreign is None or STEM in target:
        return dict(weights.state)
    return import_state(weights.foreign, "pytorchvideo_modules")


def inflatable(tensor: Tensor, value: Tensor) -> bool:
    """Whether a kernel without time can be spread over the time of the network's."""
    return (
        tensor.dim() == 5
        and tensor.shape[2] == 1
        and tensor.shape[:2] == value.shape[:2]
        and tensor.shape[3:] == value.shape[3:]
    )


def drop_head(
    state: StateDict, target: Mapping[str, Tensor], report: LoadReport, keep: bool
) -> StateDict:
    """Leave the classifier of other classes out; `keep` it if unnamed classes are as many."""
    head = {key for key in state if key.startswith("head.")}
    if keep and all(key in target and state[key].shape == target[key].shape for key in head):
        return state
    report.ignored += sorted(head)
    return {key: value for key, value in state.items() if key not in head}


def refuse_strangers(report: LoadReport) -> None:
    """Raise UserError unless what differs is the classifier, or non-local blocks that are new."""
    missing = [key for key in report.new if not key.startswith("head.") and ".nl" not in key]
    extra = [key for key in report.ignored if not key.startswith("head.")]
    if missing or extra:
        parts = [f"the file lacks {listed(missing, 5)}"] if missing else []
        parts += [f"the network lacks {listed(extra, 5)}"] if extra else []
        raise UserError(
            f"{report.source}: another network: {', '.join(parts)}; use the experiment it came from"
        )
