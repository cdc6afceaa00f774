"""Whether the Triton kernels of `split_head` are right on the device at hand."""

import subprocess
import warnings
from functools import cache

import torch
from torch import Tensor

from nlnet.model.non_local.kernels.split_head import split_head

TOKENS = 150  # queries, and 1 key less: more than a block of both, and not a multiple of it
LARGEST_ERROR = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-3}


@cache
def split_head_works(device: torch.device, dtype: torch.dtype, d: int, e: int) -> bool:
    """Whether Triton is installed, compiles the kernels and computes what float64 computes.

    The first call for a device, dtype and size of heads compiles the kernels and compares their
    output and gradients with the equation. It warns in one line if the kernels cannot be used.
    """
    if not _supports_triton(device):
        return False
    try:
        from nlnet.model.non_local.kernels.split_head_kernels import TritonError
    except ImportError:
        return False
    try:
        error = _largest_error(device, dtype, d, e)
    except (OSError, RuntimeError, subprocess.SubprocessError, TritonError) as fault:
        lines = str(fault).strip().splitlines() or [type(fault).__name__]
        reason = lines[0]
    else:
        if error < LARGEST_ERROR[dtype]:
            return True
        reason = f"its relative error is {error:.1e}"
    warnings.warn(
        f"the Triton kernel for heads of {d} and {e} channels in {dtype} is not used on {device}: "
        f"{reason}; torch's memory-efficient kernel is used instead",
        stacklevel=2,
    )
    return False


def _supports_triton(device: torch.device) -> bool:
    """Triton's kernels need tensor cores of NVIDIA's Ampere or newer for bfloat16."""
    if device.type != "cuda":
        return True  # Triton's interpreter, in tests
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _largest_error(device: torch.device, dtype: torch.dtype, d: int, e: int) -> float:
    """The largest relative error of output and gradients; torch's random state stays as it is."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, TOKENS, d), (2, TOKENS - 1, d), (2, TOKENS - 1, e), (2, TOKENS, e)]
    with torch.inference_mode(False), torch.enable_grad():
        tokens = [torch.randn(s, generator=generator).to(device, dtype) for s in sizes]
        inputs = [x.requires_grad_() for x in tokens[:3]]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        scale = d**-0.5
        y = split_head(inputs[0], inputs[1], inputs[2], scale)
        wanted = torch.softmax(exact[0] @ exact[1].mT * scale, dim=2) @ exact[2]
        got = [y, *torch.autograd.grad(y, inputs, tokens[3])]
        truth = [wanted, *torch.autograd.grad(wanted, exact, tokens[3].double())]
    errors = [_relative(a.detach(), b.detach()) for a, b in zip(got, truth, strict=True)]
    return max(errors)


def _relative(got: Tensor, wanted: Tensor) -> float:
    error = float((got.double() - wanted).norm() / wanted.norm())
    return error if error == error else float("inf")  # not a number
