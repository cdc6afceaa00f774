"""bench=step: a whole training step and an evaluation, compared with pytorchvideo's network.

The peer is pytorchvideo's `create_resnet` of the same layout in its default form: float32,
contiguous, eager, on normalized clips. The network of nlnet takes the uint8 clips that a loader
gives.
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch

from nlnet.bench.peer import build_peer
from nlnet.bench.report import Report
from nlnet.bench.steps.arithmetic import NUM_CLASSES, check_contender
from nlnet.bench.steps.compete import compete, kind
from nlnet.bench.steps.contenders import Contender, computes_bf16, groups
from nlnet.bench.steps.costs import clip_operations, measured_ceiling
from nlnet.bench.steps.inputs import input_seconds
from nlnet.bench.steps.tables import share_table, step_table
from nlnet.config import BenchmarkConfig
from nlnet.distributed.build import build_device
from nlnet.numerics.denormals import flushed_denormals


@flushed_denormals()
def measure_steps(run: BenchmarkConfig) -> Report:
    """Measure the run's network and the peer's in training and in evaluation.

    Raises UserError if pytorchvideo has no network of the run's layout.
    """
    device = build_device(run.dist)
    build_peer(run, NUM_CLASSES)  # raises the error before anything is measured
    contenders = groups(run.trainer, device, quick=run.quick)
    return measure_groups(run, contenders, device, repeats=2 if run.quick else 5)


def measure_groups(
    run: BenchmarkConfig,
    contenders: Sequence[Sequence[Contender]],
    device: torch.device,
    *,
    repeats: int,
) -> Report:
    """Measure groups of contenders, one of which is the run's training step as configured."""
    batch = run.batch or (2 if device.type == "cpu" else 32)
    for contender in (contender for group in contenders for contender in group):
        # The answers are kept: the processes of the contenders need no memory for the checks.
        check_contender(contender, run, batch, device)
    results = [result for group in contenders for result in compete(group, run, batch, repeats)]
    operations = clip_operations(run)
    ceilings = {p: measured_ceiling(device, p) for p in {r.precision for r in results}}
    clips_per_s = [batch / result.seconds for result in results]
    utilization = [
        rate * operations[kind(result)] / ceilings[result.precision]
        for result, rate in zip(results, clips_per_s, strict=True)
    ]
    clip = run.data.clip
    inputs = input_seconds(clip, 2 * repeats - 1)
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {p}" for p, rate in ceilings.items())
    text = [
        f"{run.name}: batch {batch} of {clip.num_frames} x {clip.crop_size}^2, "
        f"{operations['training'] / 1e9:.0f} GFLOP a clip in training, "
        f"{operations['evaluation'] / 1e9:.0f} in evaluation; measured ceiling {rates}. "
        "Ratios are against the peer's median in the same group.\n",
        step_table(results, clips_per_s, utilization),
        f"\nOne clip in a loader's process: decoding {1e3 * inputs['decode']:.1f} ms, transform "
        f"{1e3 * inputs['transform']:.1f} ms. Shares of the work on a clip in training as"
        " configured:\n",
        share_table(next(r for r in results if r.configured), inputs, batch),
    ]
    if not computes_bf16(device):
        text.append("\nThis processor has no bf16 arithmetic, so bf16 autocast is left out.")
    rows = [
        {**asdict(result), "clips_per_s": rate, "utilization": share}
        for result, rate, share in zip(results, clips_per_s, utilization, strict=True)
    ]
    numbers = {"rows": rows, "cost": operations, "ceilings": ceilings, "inputs": inputs}
    return Report("\n".join(text), numbers)
