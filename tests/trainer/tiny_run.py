"""A complete run with a tiny network: a program for ranks that tests start, and its parts.

    python tiny_run.py OUT_DIR '{"settings": {"epochs": 2}, "at": {"3": "SIGKILL"}}'

Writes OUT_DIR/final.pt (weights) beside the usual files of a run.
"""

import atexit
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from nlnet.checkpoint import Provenance
from nlnet.clip import ClipBatch, Failure
from nlnet.distributed.ranks import is_main, pick_device, process_group, rank, world_size
from nlnet.errors import UserError
from nlnet.runs.ensembles import ENSEMBLES
from nlnet.runs.logger import RunLogger
from nlnet.trainer.averaging import average_weights
from nlnet.trainer.build import REMEDIES
from nlnet.trainer.loop import evaluate, fit
from nlnet.trainer.metrics import Metrics, VideoScores
from nlnet.trainer.precise_bn import precise_bn
from nlnet.trainer.prepare import wrap_for_training
from nlnet.trainer.schedule import cosine_schedule
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState, resume

CPU = torch.device("cpu")
PROVENANCE = Provenance("name: tiny\n", ["a", "b"], "0", str(torch.__version__), None)
NUM_CLASSES = 7
GLOBAL_BATCH = 12
STEPS_PER_EPOCH = 4
NUM_VIDEOS = 7  # of the validation split


class TinyNet(nn.Module):
    """The interface of a video classifier: uint8 views to logits or probabilities."""

    def __init__(self, norm: bool = True, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("conv1", nn.Conv3d(3, 4, 3, padding=1, bias=not norm))
        self.backbone.add_module("norm1", nn.BatchNorm3d(4) if norm else nn.Identity())
        self.backbone.add_module("relu1", nn.ReLU())
        self.backbone.add_module("conv2", nn.Conv3d(4, 6, 3, padding=1, bias=not norm))
        self.backbone.add_module("norm2", nn.BatchNorm3d(6) if norm else nn.Identity())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(6, NUM_CLASSES)
        self.fault: str | None = None  # in training: the loss or the gradient becomes not finite

    def forward(self, video: Tensor) -> Tensor:
        x = self.backbone(video.float() / 127.5 - 1)
        logits = self.head(self.dropout(x.mean((2, 3, 4))))
        if self.fault == "loss":
            return logits * float("nan")
        if self.fault == "gradient":
            logits.register_hook(lambda grad: grad * float("inf"))
        return logits

    def scores(self, video: Tensor) -> Tensor:
        return self(video).softmax(1)


def clips(seed: int, rows: list[int]) -> ClipBatch:
    """Make videos whose pixels and labels depend on (seed, row) only."""
    videos, labels = [], []
    for row in rows:
        generator = torch.Generator().manual_seed(seed * 1000 + row)
        size = (3, 2, 6, 6)
        videos.append(torch.randint(0, 256, size, generator=generator, dtype=torch.uint8))
        labels.append(int(torch.randint(NUM_CLASSES, (), generator=generator)))
    return ClipBatch(torch.stack(videos), torch.tensor(labels), torch.tensor(rows), ())


def loader_at(
    accumulate: int = 1, at_step: Callable[[int], None] = lambda step: None
) -> Callable[[int, int], Iterator[ClipBatch]]:
    """Divide the global batch of each step among ranks and micro-batches."""

    def batches(epoch: int, first: int) -> Iterator[ClipBatch]:
        for step in range(first, STEPS_PER_EPOCH):
            at_step(epoch * STEPS_PER_EPOCH + step)
            rows = [step * GLOBAL_BATCH + i for i in range(GLOBAL_BATCH)][rank() :: world_size()]
            size = len(rows) // accumulate
            for i in range(accumulate):
                yield clips(epoch + 1, rows[i * size : (i + 1) * size])

    return batches


def validation(num_views: int = 3, num_videos: int = NUM_VIDEOS) -> Iterator[ClipBatch]:
    """Yield this rank's videos, all views of a video in one batch."""
    for row in range(rank(), num_videos, world_size()):
        views = clips(99, [row * 100 + view for view in range(num_views)])
        yield views._replace(video_id=torch.full((num_views,), row))


def validation_labels() -> Tensor:
    return torch.arange(NUM_VIDEOS) % 3


def make_state(
    optimizer: str = "sgd",
    norm: bool = True,
    dropout: float = 0.5,
    seed: int = 0,
    ema: float | None = None,
) -> TrainState:
    torch.manual_seed(seed)
    model = TinyNet(norm, dropout)
    if optimizer == "adamw":
        update: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    else:
        update = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3
        )
    average = None if ema is None else average_weights(model, ema, channels_last=False)
    return TrainState(model, update, PROVENANCE, average=average)


def make_settings(epochs: int = 2, **changes: Any) -> LoopSettings:
    total = epochs * STEPS_PER_EPOCH
    return LoopSettings(
        **{
            "device": CPU,
            "seed": 3,
            "total_steps": total,
            "steps_per_epoch": STEPS_PER_EPOCH,
            "lr": 0.05,
            "schedule": cosine_schedule(total, 0.0),
            "remedies": REMEDIES,
            **changes,
        }
    )


def train(out_dir: Path, options: dict[str, Any]) -> TrainState:
    """Start or resume a run and train to its end; options are those of the functions above."""

    def misbehave(step: int) -> None:
        """Send a signal or change weights to NaN, once, when the data of a step are requested."""
        faults = options.get("faults", {}) if rank() == options.get("on_rank", rank()) else {}
        bare = state.model if state.sharding is None else state.sharding.network
        bare.fault = faults.get(str(step))
        mark = out_dir / f"done{rank()}"
        action = options.get("at", {}).get(str(step))
        if action is None or mark.exists() or rank() != options.get("on_rank", rank()):
            return
        mark.touch()
        if action == "nan":
            assert state.sharding is None
            state.model.head.weight.data.fill_(float("nan"))
            return
        os.kill(os.getpid(), signal.Signals[action])

    state = make_state(**options.get("state", {}))
    settings = make_settings(**options.get("settings", {}))
    for line in resume(state, out_dir):
        print(line, flush=True)
    network = wrap(state, options)
    loader = loader_at(settings.accumulate, misbehave)
    if "poison" in options:
        loader = poisoned(loader, options["poison"])

    def validate() -> Metrics:
        scores = VideoScores(validation_labels(), NUM_CLASSES)
        state.model.fault = None
        return evaluate(state.evaluated, validation(), scores, device=CPU, chunk=2)

    start_step = state.progress.global_step
    with RunLogger(out_dir, total_steps=settings.total_steps, start_step=start_step) as logger:
        fit(
            state,
            network,
            settings,
            loader_at=loader,
            validate=validate,
            logger=logger,
            out_dir=out_dir,
        )
    return state


def wrap(state: TrainState, options: dict[str, Any]) -> nn.Module:
    """Divide the parameters among the ranks with {"strategy": "fsdp"}; else each rank has all."""
    words = options.get("wrap", {})
    if options.get("strategy") != "fsdp":
        return wrap_for_training(state.model, device=CPU, **words)
    from nlnet.trainer.fsdp import shard_for_training

    return shard_for_training(state, [state.model.backbone], device=CPU, **words)


def poisoned(
    loader: Callable[[int, int], Iterator[ClipBatch]], poison: dict[str, Any]
) -> Callable[[int, int], Iterator[ClipBatch]]:
    """Make each batch of one rank report bad files."""

    def batches(epoch: int, first: int) -> Iterator[ClipBatch]:
        for batch in loader(epoch, first):
            failures = tuple(Failure(f"{i}.mp4", "broken") for i in range(poison["bad"]))
            yield batch._replace(failures=failures if rank() == poison["rank"] else ())

    return batches


def evaluate_only(out_dir: Path, ensemble: str, several_labels: bool) -> None:
    """Write the prediction for each validation video, floats with all bits."""
    labels = validation_labels()
    if several_labels:
        labels = one_hot(labels, NUM_CLASSES) + one_hot(labels + 2, NUM_CLASSES)
    scores = VideoScores(labels, NUM_CLASSES, ensemble)
    metrics = evaluate(make_state().model, validation(), scores, device=CPU, chunk=2)
    rows = [[*row[:3], row.score.hex(), *row[4:]] for row in scores.predictions()]
    said = {"summary": {name: value.hex() for name, value in metrics.values.items()}, "rows": rows}
    (out_dir / f"said{rank()}.json").write_text(json.dumps(said))


def evaluate_sizes(out_dir: Path) -> None:
    """Write the metrics and the scores of splits of 1 to 17 videos, floats with all bits."""
    model, said = make_state().model, []
    for size in range(1, 18):
        for ensemble in ENSEMBLES:
            for labels in (torch.arange(size) % 3, one_hot(torch.arange(size) % 5, NUM_CLASSES)):
                scores = VideoScores(labels, NUM_CLASSES, ensemble)
                metrics = evaluate(model, validation(2, size), scores, device=CPU, chunk=2)
                values = {name: value.hex() for name, value in metrics.values.items()}
                totals = [value.hex() for value in scores.totals.flatten().tolist()]
                said.append([size, ensemble, labels.ndim, values, totals])
    (out_dir / f"said{rank()}.json").write_text(json.dumps(said))


def precise_bn_only(out_dir: Path) -> None:
    """Write the buffers of a model after precise_bn on one epoch."""
    model = make_state().model
    precise_bn(model, loader_at()(0, 0))
    torch.save(dict(model.named_buffers()), out_dir / f"buffers{rank()}.pt")


def main(out_dir: Path, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    with process_group(pick_device("cpu")):
        if options.get("only") == "evaluate":
            return evaluate_only(out_dir, options["ensemble"], options["several_labels"])
        if options.get("only") == "evaluate_sizes":
            return evaluate_sizes(out_dir)
        if options.get("only") == "precise_bn":
            return precise_bn_only(out_dir)
        try:
            train_to_end(out_dir, options)
        except UserError as error:
            print(f"rank {rank()}: {error}", file=sys.stderr, flush=True)
            sys.exit(3)


def train_to_end(out_dir: Path, options: dict[str, Any]) -> None:
    """A function of its own, so that no network, and with it the group, is left at its end."""
    state = train(out_dir, options)
    with state.whole(state.model):
        if is_main():
            torch.save(state.model.state_dict(), out_dir / "final.pt")


def check_threads() -> None:
    """End with an error if a thread of gloo is left: it may abort the interpreter at its end."""
    tasks = Path("/proc/self/task").iterdir()
    left = [name for task in tasks if "gloo" in (name := (task / "comm").read_text())]
    if left:
        print(f"threads are left: {left}", file=sys.stderr, flush=True)
        os._exit(70)


if __name__ == "__main__":
    atexit.register(check_threads)
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
