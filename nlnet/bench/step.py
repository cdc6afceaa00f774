"""bench=step: a whole training step, and an evaluation, against pytorchvideo's network.

Every contender lives in a process of its own, so that neither memory nor an allocator's settings
leak, and computes when it is its turn: a busy machine slows all of a group alike. The peer is
pytorchvideo's `create_resnet` of the same layout, in its default form (float32, contiguous, eager)
on clips that are normalised already; ours takes the uint8 clips that a loader gives.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.bench.measure import Report
from nlnet.bench.peer import build_peer
from nlnet.cli.sweep import markdown
from nlnet.config import BenchmarkConfig, TrainerConfig
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.transforms import JitterCrop, TrainTransform
from nlnet.distributed.ranks import pick_device
from nlnet.model.build import build_model
from nlnet.model.cost import describe
from nlnet.model.resnet3d import STAGES
from nlnet.model.speed.checkpointing import save_memory
from nlnet.model.speed.folding import fold_norms
from nlnet.trainer.allocator import set_allocator
from nlnet.trainer.build import build_network, build_optimizer, build_precision
from nlnet.trainer.step import autocast

NUM_CLASSES = 400
PLAIN = {"lean": False, "allocator": "system", "fold_norms": False, "channels_last": False}
LEVERS: dict[str, dict[str, Any]] = {  # each adds to the one above
    "contiguous": PLAIN,
    "channels_last": PLAIN | {"channels_last": True},
    "lean": PLAIN | {"channels_last": True, "lean": True},
    "allocator reuse": PLAIN | {"channels_last": True, "lean": True, "allocator": "reuse"},
}
PHASES = ("forward", "backward", "optimiser")


@dataclass(frozen=True)
class Contender:
    """A network in one form; `trainer` None is the peer."""

    name: str
    training: bool
    precision: str
    trainer: TrainerConfig | None


def measure(run: BenchmarkConfig) -> Report:
    """Time and memory of the run's network and the peer's, in training and in evaluation."""
    device = pick_device(run.dist.device)
    build_peer(run, NUM_CLASSES)  # a layout that it lacks ends here
    batch = run.batch or (2 if device.type == "cpu" else 32)
    repeats = 2 if run.quick else 5
    groups = contenders(run, device)
    rows = [row for group in groups for row in compete(group, run, batch, repeats)]
    costs = cost(run)
    ceilings = {p: matmul_ceiling(device, p) for p in {row["precision"] for row in rows}}
    for row in rows:
        flops = costs["training" if row["training"] else "evaluation"] * batch
        row["clips_per_s"] = batch / row["seconds"]
        row["utilisation"] = flops / row["seconds"] / ceilings[row["precision"]]
    inputs = input_seconds(run)
    text = [
        f"{run.name}: batch {batch} of {run.data.clip.num_frames} x {run.data.clip.crop_size}^2, "
        f"{costs['training'] / 1e9:.0f} GFLOP a clip in training, "
        f"{costs['evaluation'] / 1e9:.0f} in evaluation; measured ceiling "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {p}" for p, rate in ceilings.items())
        + ". Ratios are against the peer's median in the same group.\n",
        step_table(rows),
        f"\nOne clip in a loader's process: decoding {1e3 * inputs['decode']:.1f} ms, transform "
        f"{1e3 * inputs['transform']:.1f} ms; of the work on a clip in training as configured:\n",
        share_table(next(r for r in rows if r["configured"]), inputs, batch),
    ]
    if not low_precision(device):
        text.append("\nThis processor has no bf16 arithmetic: bf16 autocast is left out.")
    numbers = {"rows": rows, "cost": costs, "ceilings": ceilings, "inputs": inputs}
    return Report("\n".join(text), numbers)


def contenders(run: BenchmarkConfig, device: torch.device) -> list[list[Contender]]:
    """Groups that compute in turn; the first of each is the peer."""
    cfg, full = run.trainer, run.trainer.precision

    def peer(training: bool, precision: str = "fp32") -> Contender:
        return Contender(f"pytorchvideo {precision}", training, precision, None)

    def ours(name: str, training: bool, precision: str = full, **levers: Any) -> Contender:
        return Contender(name, training, precision, replace(cfg, **levers))

    main = [peer(True), ours("nlnet", True)]
    evaluation = [
        peer(False),
        ours("nlnet, norms not folded", False, fold_norms=False),
        ours("nlnet", False),
    ]
    if low_precision(device):
        main += [peer(True, "bf16"), ours("nlnet bf16", True, "bf16")]
        evaluation += [peer(False, "bf16"), ours("nlnet bf16", False, "bf16")]
    main += [ours(f"nlnet, allocator {a}", True, allocator=a) for a in ("keep", "return")]
    least: dict[str, Any] = {"checkpoint_stages": list(STAGES), "allocator": "return"}
    main.append(ours("nlnet, allocator return, stages checkpointed", True, **least))
    if run.quick:
        return [main, evaluation]
    levers = [ours(f"nlnet, + {name}", True, **set_to) for name, set_to in LEVERS.items()]
    return [main, [peer(True), *levers], evaluation]


def low_precision(device: torch.device) -> bool:
    """Whether the device computes in bf16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def compete(
    group: list[Contender], run: BenchmarkConfig, batch: int, repeats: int
) -> list[dict[str, Any]]:
    """Rows of a group: median seconds of each phase, peak memory, ratios against the first."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for contender in group:
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, contender, run, batch), daemon=True)
        process.start()
        workers.append((process, here))
    times: list[list[dict[str, float]]] = [[] for _ in group]
    peaks = [0.0 for _ in group]
    for i in range(repeats + 2):
        for k, (_, connection) in enumerate(workers):
            connection.send(True)
            phases, peaks[k] = connection.recv()
            if i >= 2:
                times[k].append(phases)
    for process, connection in workers:
        connection.send(False)
        process.join()
    return [
        row_of(contender, run, taken, peak, times[0], peaks[0])
        for contender, taken, peak in zip(group, times, peaks, strict=True)
    ]


def row_of(
    contender: Contender,
    run: BenchmarkConfig,
    times: list[dict[str, float]],
    peak: float,
    peer_times: list[dict[str, float]],
    peer_peak: float,
) -> dict[str, Any]:
    seconds = statistics.median(sum(phases.values()) for phases in times)
    against = statistics.median(sum(phases.values()) for phases in peer_times)
    medians = {name: statistics.median(t[name] for t in times) for name in times[0]}
    return {
        "name": contender.name,
        "training": contender.training,
        "precision": contender.precision,
        "configured": contender.training and contender.trainer == run.trainer,
        "seconds": seconds,
        "phases": medians,
        "speed": against / seconds,
        "peak_mb": peak,
        "memory": peak / peer_peak,
        "repeats": len(times),
    }


def serve(connection: Connection, contender: Contender, run: BenchmarkConfig, batch: int) -> None:
    """The life of a contender: one call whenever it is asked for."""
    device = pick_device(run.dist.device)
    if contender.trainer is not None:
        set_allocator(contender.trainer.allocator)
    start = peak_memory(device, fresh=True)
    call = build_call(contender, run, batch, device)
    while connection.recv():
        phases = call()
        connection.send((phases, peak_memory(device) - start))


def peak_memory(device: torch.device, *, fresh: bool = False) -> float:
    """The most memory that was in use since the last fresh start, MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


def build_call(
    contender: Contender, run: BenchmarkConfig, batch: int, device: torch.device
) -> Callable[[], dict[str, float]]:
    """One step, or one evaluation, of a contender: a function that tells the time of each phase."""
    torch.manual_seed(0)
    clip = run.data.clip
    size = (batch, 3, clip.num_frames, clip.crop_size, clip.crop_size)
    video = torch.randint(0, 256, size, dtype=torch.uint8).to(device)
    label = torch.randint(0, NUM_CLASSES, (batch,)).to(device)
    ours, cfg = build_model(run.model, NUM_CLASSES), contender.trainer
    model: nn.Module = ours
    if cfg is None:
        model = build_peer(run, NUM_CLASSES)
        assert count(model) == count(ours), "the peer's network is another one"
        video = video.float().sub_(128).div_(64)
        cfg = replace(run.trainer, channels_last=False, compile=False)
    elif contender.training:
        save_memory(ours, lean=cfg.lean, checkpoint_stages=cfg.checkpoint_stages)
    elif cfg.fold_norms:
        model = fold_norms(ours)
    del ours
    model.to(device)
    network = build_network(cfg, model, device)
    if cfg.channels_last:
        video = video.contiguous(memory_format=torch.channels_last_3d)
    precision = build_precision(replace(cfg, precision=contender.precision), device)
    if not contender.training:
        return lambda: evaluation(model.eval(), video, precision)
    optimizer = build_optimizer(run.optim, model)
    return lambda: training_step(network, optimizer, video, label, precision)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    video: Tensor,
    label: Tensor,
    precision: torch.dtype | None,
) -> dict[str, float]:
    times = [now()]
    optimizer.zero_grad(set_to_none=True)
    with autocast(video.device, precision):
        logits = network(video)
    loss = F.cross_entropy(logits.float(), label)
    times.append(now())
    loss.backward()
    times.append(now())
    optimizer.step()
    times.append(now())
    return {name: times[i + 1] - times[i] for i, name in enumerate(PHASES)}


@torch.inference_mode()
def evaluation(model: nn.Module, video: Tensor, precision: torch.dtype | None) -> dict[str, float]:
    start = now()
    with autocast(video.device, precision):
        model(video)
    return {"forward": now() - start}


def now() -> float:
    """The time at which all work so far is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def cost(run: BenchmarkConfig) -> dict[str, float]:
    """Floating point operations of a clip: 2 for a multiply-add, 3 forward passes in training.

    The stem has no gradient of its input, so its share counts twice only.
    """
    clip = run.data.clip
    stages = describe(partial(build_model, run.model, NUM_CLASSES), clip.num_frames, clip.crop_size)
    forward = 2 * sum(stage.multiply_adds for stage in stages)
    stem = 2 * next(stage for stage in stages if stage.name == "conv1").multiply_adds
    return {"evaluation": forward, "training": 3 * forward - stem}


def matmul_ceiling(device: torch.device, precision: str) -> float:
    """Operations per second of a large matrix product, the best of several."""
    dtype = build_precision(TrainerConfig(precision=precision), device) or torch.float32
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(12):
        start = now()
        a @ b
        times.append(now() - start)
    return 2 * size**3 / min(times)


def input_seconds(run: BenchmarkConfig) -> dict[str, float]:
    """Seconds of decoding and of transforming one training clip of a 10 s file, 340 x 256."""
    clip, repeats = run.data.clip, 3 if run.quick else 9
    transform = TrainTransform(JitterCrop(clip.crop_size, 256, 320), clip.crop_size, True, 0.0)
    rng = np.random.default_rng(0)
    decode, change = [], []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "moving.mp4"
        write_video(path, num_frames=300)
        for _ in range(repeats):
            span = clip.num_frames * clip.frame_stride
            first = int(rng.integers(max(300 - span, 1)))
            start = time.perf_counter()
            with PyAVReader(path) as reader:
                frames = reader.read(first + clip.frame_stride * np.arange(clip.num_frames))
            middle = time.perf_counter()
            transform(frames, rng)
            decode.append(middle - start)
            change.append(time.perf_counter() - middle)
    return {"decode": statistics.median(decode), "transform": statistics.median(change)}


def write_video(path: Path, num_frames: int) -> None:
    """A smooth pattern that moves, H.264, 340 x 256, 30 frames a second."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, 64, 64))).float()
    picture = F.interpolate(coarse, (600, 700), mode="bilinear")[0].permute(1, 2, 0).byte().numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        stream.options = {"x264-params": "cpu-independent=1"}  # the same file on every processor
        for i in range(num_frames):
            pixels = np.ascontiguousarray(picture[i : i + 256, i : i + 340])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def step_table(rows: list[dict[str, Any]]) -> str:
    header = ["", "ms", "clips/s", "x peer", "utilisation", "peak MB", "of peer's"]
    cells = []
    for row in rows:
        kind = "training" if row["training"] else "evaluation"
        cells.append(
            [
                f"{kind}: {row['name']}",
                f"{1e3 * row['seconds']:,.0f}",
                f"{row['clips_per_s']:.3g}",
                f"{row['speed']:.2f}",
                f"{100 * row['utilisation']:.0f} %",
                f"{row['peak_mb']:,.0f}",
                f"{row['memory']:.2f}",
            ]
        )
    return markdown(header, cells)


def share_table(row: dict[str, Any], inputs: dict[str, float], batch: int) -> str:
    """Shares of the seconds of one clip, in loaders and in the step, if none overlapped."""
    parts = inputs | {name: seconds / batch for name, seconds in row["phases"].items()}
    total = sum(parts.values())
    return markdown(list(parts), [[f"{100 * part / total:.1f} %" for part in parts.values()]])
