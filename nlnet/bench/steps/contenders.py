"""The networks that bench=step compares, each in one form."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from nlnet.config import TrainerConfig
from nlnet.model.resnet3d import STAGES

PLAIN: dict[str, Any] = {
    "lean": False,
    "allocator": "system",
    "fold_norms": False,
    "channels_last": False,
}
# Each entry adds one setting to the entry above it.
LEVERS: dict[str, dict[str, Any]] = {
    "contiguous": PLAIN,
    "channels_last": PLAIN | {"channels_last": True},
    "lean": PLAIN | {"channels_last": True, "lean": True},
    "allocator reuse": PLAIN | {"channels_last": True, "lean": True, "allocator": "reuse"},
}


@dataclass(frozen=True)
class Contender:
    """A network in one form."""

    name: str
    training: bool  # a training step; False is an evaluation
    precision: str
    trainer: TrainerConfig | None  # the settings of nlnet's network; None is the peer
    compiled: bool = False  # the peer by torch.compile; nlnet's network has a setting for it


def groups(cfg: TrainerConfig, device: torch.device, *, quick: bool) -> list[list[Contender]]:
    """Return groups of contenders that compute in turn; the first one of each is the peer.

    The groups are training as configured, training with one more setting at a time (not where
    `quick`), and evaluation.
    """

    def peer(training: bool, precision: str = "fp32") -> Contender:
        return Contender(f"pytorchvideo {precision}", training, precision, None)

    def ours(
        name: str, training: bool, precision: str = cfg.precision, **settings: Any
    ) -> Contender:
        return Contender(name, training, precision, replace(cfg, **settings))

    main = [peer(True), ours("nlnet", True)]
    evaluation = [
        peer(False),
        ours("nlnet, norms not folded", False, fold_norms=False),
        ours("nlnet", False),
    ]
    if computes_bf16(device):
        main += [peer(True, "bf16"), ours("nlnet bf16", True, "bf16")]
        evaluation += [peer(False, "bf16"), ours("nlnet bf16", False, "bf16")]
    main += [ours(f"nlnet, allocator {a}", True, allocator=a) for a in ("keep", "return")]
    least: dict[str, Any] = {"checkpoint_stages": list(STAGES), "allocator": "return"}
    main.append(ours("nlnet, allocator return, stages checkpointed", True, **least))
    if quick:
        return [main, evaluation]
    levers = [ours(f"nlnet, + {name}", True, **settings) for name, settings in LEVERS.items()]
    return [main, [peer(True), *levers], evaluation]


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has arithmetic in bf16, which is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
