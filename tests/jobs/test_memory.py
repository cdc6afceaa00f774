"""Sizes of a step that fit in memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nlnet.config import NonLocalConfig, ResNetConfig, RunConfig, SGDConfig, StepConfig
from nlnet.errors import UsageError
from nlnet.jobs.memory import (
    describe_cpu_memory,
    free_memory,
    largest_fitting,
    named_out_of_memory,
    step_bytes,
)

CPU = torch.device("cpu")
PEAK_OF_STEPS = """
import sys
import torch
from nlnet.checkpoint import Provenance
from nlnet.clip import ClipBatch
from nlnet.model.build import build_model
from nlnet.model.speed.checkpointing import save_memory
from nlnet.trainer.allocator import set_allocator
from nlnet.trainer.build import build_settings
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import train_step
from tests.jobs.test_memory import small_run

def kilobytes(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

run, clips = small_run(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
set_allocator("reuse")
device = torch.device("cpu")
model = build_model(run.model, 400)
save_memory(model, lean=True, checkpoint_stages=[])
model.to(memory_format=torch.channels_last_3d)
state = TrainState(model, torch.optim.SGD(model.parameters(), 0.01, 0.9), Provenance())
size = run.data.clip.crop_size
video = torch.zeros(clips, 3, run.data.clip.num_frames, size, size, dtype=torch.uint8)
batch = ClipBatch(video, torch.zeros(clips, dtype=torch.int64), torch.arange(clips), ())
before = kilobytes("VmRSS")
model.train()
for _ in range(3):
    train_step(state, model, build_settings(run, 9, device), [batch], lr=0.0, stop=StopRequest())
print(1024 * (kilobytes("VmHWM") - before))
"""


def small_run(name: str = "blocks") -> RunConfig:
    if name == "blocks":
        blocks = NonLocalConfig(res3=[0], res4=[0])
        model, frames, size = ResNetConfig(depth=14, width=32, non_local=blocks), 8, 112
    else:
        model, frames, size = ResNetConfig(depth=26, width=16), 16, 96
    run = RunConfig(name="x", model=model, optim=SGDConfig(), schedule=StepConfig())
    run.data.root, run.data.batch_size, run.trainer.epochs = ".", 12, 10
    run.data.clip.num_frames, run.data.clip.crop_size = frames, size
    return run


@pytest.mark.parametrize(("limit", "parts"), [(12, 2), (6, 2), (5, 3), (3, 4), (1, 12), (0, None)])
def test_the_largest_part_that_fits_is_found(limit: int, parts: int | None):
    assert largest_fitting(12, lambda size: size <= limit) == parts


@pytest.mark.parametrize("available", [int(2e8), int(4e8), int(6e8)])
def test_a_cpu_that_is_too_small_is_named_with_a_size_that_fits(available: int):
    run = small_run()
    assert step_bytes(run, 12) > available
    (line,) = describe_cpu_memory(run, available)
    fitting = next(size for size in (6, 4, 3, 2, 1) if step_bytes(run, size) <= available)
    assert f"{fitting} fit: " in line
    assert f"trainer.accumulate={12 // fitting} keeps the batch of 12" in line
    assert f"data.batch_size={fitting}" in line


def test_nothing_is_said_where_the_memory_is_large_enough():
    assert list(describe_cpu_memory(small_run(), step_bytes(small_run(), 12))) == []
    assert list(describe_cpu_memory(small_run(), 10**15)) == []
    (line,) = describe_cpu_memory(small_run(), 1000)
    assert "not even one clip fits" in line
    assert 0 < free_memory() < 10**14


def failing_above(limit: int):
    """Make a network whose forward pass fails with more clips, as on a small GPU."""

    def check(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return lambda model: model.register_forward_pre_hook(check)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (4, r"^the memory of the GPU is too small for 12 clips .*tried on this GPU: 4 fit: .*"
            r"trainer\.accumulate=3 keeps the batch of 12, or data\.batch_size=4"),
        (0, "not even one clip fits"),
        (12, r"they fit in a trial: .*data\.val_views\.batch_size"),
    ],
)  # fmt: skip
def test_a_gpu_that_is_too_small_is_named_with_a_size_that_was_tried(limit: int, said: str):
    run = small_run()
    run.model, run.data.clip.num_frames, run.data.clip.crop_size = (
        ResNetConfig(depth=14, width=8),
        2,
        32,
    )
    with pytest.raises(UsageError, match=said), named_out_of_memory(run, CPU, failing_above(limit)):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.gpu
def test_a_real_gpu_names_a_size_that_fits():
    run = small_run()
    run.data.batch_size = 2**20
    torch.cuda.set_per_process_memory_fraction(0.05)
    with (
        pytest.raises(UsageError, match=r"tried on this GPU: [0-9]+ fit"),
        named_out_of_memory(run, torch.device("cuda"), lambda model: None),
    ):
        torch.empty(2**45, dtype=torch.uint8, device="cuda")
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "clips"), [("blocks", 8), ("deep", 8)])
def test_the_estimate_is_near_the_peak_of_resident_memory(name: str, clips: int):
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_STEPS, name, str(clips)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    measured, estimated = int(done.stdout), step_bytes(small_run(name), clips)
    print(f"{name}: measured {measured / 1e6:.0f} MB, estimated {estimated / 1e6:.0f} MB")
    assert estimated == pytest.approx(measured, rel=0.25)
