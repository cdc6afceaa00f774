"""Devices, one training step of a tiny network, and a pairwise kernel against float64."""

import math
from functools import partial

import torch

from nlnet.checkpoint import Provenance
from nlnet.cli.compose import compose_run
from nlnet.clip import ClipBatch
from nlnet.config import NonLocalConfig, ResNetConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.non_local.kernels.softmax import softmax_attention
from nlnet.numerics.trust import check_network
from nlnet.trainer.bad_steps import refuse_step
from nlnet.trainer.cuda_arithmetic import cuda_arithmetic
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import train_step

# Largest relative difference from float64. On a GPU, a product may use TF32 (10 bits).
TOLERANCES = {"cpu": 1e-5, "cuda": 2e-3}
# The precisions of convolutions on a GPU.
REDUCED = {"bfloat16": torch.bfloat16, "float16": torch.float16, "TF32": torch.float32}


def devices() -> dict[str, str]:
    """Threads and vector instructions that torch uses, and its GPUs."""
    found = {
        "threads": str(torch.get_num_threads()),
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }
    if not torch.cuda.is_available():
        return found | {"gpu": f"none (torch was built for CUDA {torch.version.cuda or 'none'})"}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        found[f"gpu {i}"] = (
            f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, compute capability "
            f"{properties.major}.{properties.minor}, {bf16}, CUDA {torch.version.cuda}"
        )
    return found


def training_step(device: str = "cpu") -> dict[str, str]:
    """Make two steps on the same random clips. The second loss shows the first update.

    Raises UserError if a loss is not finite, or if the loss does not change.
    """
    torch.manual_seed(0)
    place = torch.device(device)
    blocks = NonLocalConfig(res3=[0], res4=[0], zero_init=False)
    model = build_model(ResNetConfig(depth=14, width=8, dropout=0.0, non_local=blocks), 3)
    model.to(place)
    video = torch.randint(0, 256, (6, 3, 4, 32, 32), dtype=torch.uint8)
    batch = ClipBatch(video, torch.arange(6) % 3, torch.arange(6), ())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    state = TrainState(model, optimizer, Provenance())
    settings = LoopSettings(
        device=place, seed=0, total_steps=2, steps_per_epoch=2, lr=0.01, schedule=lambda step: 1.0
    )
    losses = []
    with StopRequest() as stop:
        for _ in range(2):
            sums, norm = train_step(state, model, settings, [batch], lr=settings.lr, stop=stop)
            if sums.faults:
                refuse_step(state.progress, sums, norm, "the device computes wrong numbers")
            losses.append(sums.loss / sums.clips)
    if not all(math.isfinite(loss) for loss in losses) or losses[0] == losses[1]:
        raise UserError(f"the losses of two steps are {losses}")
    return {"loss": f"{losses[0]:.4f}, then {losses[1]:.4f}"}


def kernel(device: str = "cpu") -> dict[str, str]:
    """Compare the embedded Gaussian, in every form, and its gradients with the equation in float64.

    Raises UserError if the largest relative difference is above TOLERANCES.
    """
    torch.manual_seed(0)
    found = {}
    for form, size in (("small", 48), ("large", 2176)):  # on a CPU: direct, and block by block
        q, k, v = (torch.randn(1, size, 16, device=device, requires_grad=True) for _ in range(3))
        tokens = [t.detach().double().cpu().requires_grad_() for t in (q, k, v)]
        y = softmax_attention(q, k, v, 0.25)
        exact = torch.softmax(0.25 * tokens[0] @ tokens[1].mT, -1) @ tokens[2]
        weight = torch.randn_like(exact)
        ours = torch.autograd.grad(y, (q, k, v), weight.float().to(device))
        theirs = torch.autograd.grad(exact, tokens, weight)
        worst = max(
            ((a.double().cpu() - b).abs().max() / b.abs().max()).item()
            for a, b in zip((y, *ours), (exact, *theirs), strict=True)
        )
        if not worst <= TOLERANCES[device]:
            raise UserError(f"the {form} kernel differs from float64 by {worst:.1e}")
        found[form] = f"differs from float64 by {worst:.0e}"
    return found


def convolutions(
    device: str = "cpu", dtype: torch.dtype = torch.bfloat16, name: str = "bfloat16"
) -> dict[str, str]:
    """Compare the convolutions of I3D-NL5 and their gradients in a precision with float64.

    Raises UserError if one of them is wrong in every form; training uses the right forms.
    """
    run = compose_run("i3d_nl5")
    clip = (1, 3, run.data.clip.num_frames, run.data.clip.crop_size, run.data.clip.crop_size)
    found, verdicts = check_network(
        partial(build_model, run.model, num_classes=2),
        clip,
        device=torch.device(device),
        dtype=dtype,
        channels_last=True,
    )
    wrong = []
    for conv, verdict in verdicts.items():
        names = ", ".join(found[conv])
        if verdict.form is None:
            raise UserError(f"{names}: wrong in {name} by {verdict.error:.1g}, in every form")
        if verdict.form != "plain":
            wrong.append(f"{names}: wrong by {verdict.error:.1g}, {verdict.form} is right")
    text = "; ".join(wrong) or f"all {len(found)} of I3D-NL5 agree with float64"
    return {"convolutions" if device == "cpu" else f"convolutions, {name}": text}


def gpu() -> dict[str, str]:
    """The training step and the kernels on the first GPU; nothing without a GPU."""
    if not torch.cuda.is_available():
        return {}
    found = training_step("cuda") | kernel("cuda")
    with cuda_arithmetic(cudnn_benchmark=False, tf32=True):
        for name, dtype in REDUCED.items():
            found |= convolutions("cuda", dtype, name)
    return found
