"""Compare convolutions, as a device computes them, with the definition in float64.

A kernel of a library can be wrong on one processor, for one shape and one precision. The check
computes a convolution and its gradients with the device's kernel on random numbers, and projects
the results on random vectors: y on u over the output channels, the gradients of x and w on v over
the input channels. A projection of the exact result needs a fraction 1 / C of the work, so float64
takes about as long as the kernel itself. A wrong result differs in its projection with probability
1 (Freivalds 1977 checks matrix products in this way).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nlnet.numerics.forms import Form, plain

Size = tuple[int, ...]
EVERY = (slice(None), slice(None))  # an index of two whole dimensions
CHUNK = 2**24  # numbers of a buffer, 128 MB


@dataclass(frozen=True)
class Convolution:
    """One call of a convolution without its numbers: what chooses the kernel."""

    x: Size  # (B, C_in, T, H, W)
    weight: Size  # (C_out, C_in / groups, t, h, w)
    stride: Size
    padding: Size
    dilation: Size
    groups: int
    input_gradient: bool  # whether training needs it; the first one of a network does not
    form: str = "plain"  # how the network computes it, a name of FORMS


def convolutions_of(
    build: Callable[[], nn.Module], x: Size, *, lean: Collection[str] = ()
) -> dict[Convolution, list[str]]:
    """Trace a network with fake tensors and return its convolutions, with the names of modules.

    Args:
        build: makes the network, before modules are replaced
        x: size of its input
        lean: names of the modules that are computed in the form `lean`
    """
    found: dict[Convolution, list[str]] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build().eval()
        for name, module in model.named_modules():
            if type(module) is nn.Conv3d:  # a subclass can compute something else
                form = "lean" if name in lean else "plain"
                module.register_forward_pre_hook(_recorder(found, name, form))
        model(torch.empty(x))
    return found


def _recorder(
    found: dict[Convolution, list[str]], name: str, form: str
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv3d)
        assert not isinstance(module.padding, str)
        convolution = Convolution(
            tuple(inputs[0].shape),
            tuple(module.weight.shape),
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            inputs[0].requires_grad,
            form,
        )
        found.setdefault(convolution, []).append(name)

    return record


def relative_error(
    conv: Convolution,
    form: Form = plain,
    *,
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
) -> float:
    """The largest relative error of a convolution and its two gradients; infinity if not finite.

    The error of a result is the root mean square of its difference from float64, over that of the
    result; single numbers count where they differ by more than 8 times as much.
    """
    generator = torch.Generator(device).manual_seed(0)
    memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    def place(tensor: Tensor) -> Tensor:
        return tensor.to(dtype, memory_format=memory_format)

    fan_in = prod(conv.weight[1:])
    x = place(normal(*conv.x)).requires_grad_(conv.input_gradient)
    weight = place(normal(*conv.weight) / fan_in**0.5).requires_grad_()
    y = form(x, weight, conv)
    dy = place(normal(*y.shape))
    dweight, *dx = torch.autograd.grad(y, (weight, x) if conv.input_gradient else (weight,), dy)
    u, v = (normal(size).double() for size in conv.weight[:2])
    groups = conv.groups
    results = [_matrix(y.detach(), groups), dweight.double().transpose(0, 1).flatten(1)[None]]
    results += [_matrix(gradient, groups) for gradient in dx]
    vectors = [u.view(groups, -1), v[None], v.expand(groups, -1)][: len(results)]
    exact = _exact_projections(x.detach(), weight.detach(), dy, u, v, conv)
    return max(map(_difference, results, vectors, exact))


def _matrix(x: Tensor, groups: int) -> Tensor:
    """A map (B, C, T, H, W) in float64 as a matrix for each group, (G, C / G, B T H W)."""
    return x.double().transpose(0, 1).reshape(groups, x.shape[1] // groups, -1)


def _exact_projections(
    x: Tensor, weight: Tensor, dy: Tensor, u: Tensor, v: Tensor, conv: Convolution
) -> list[Tensor]:
    """Projections in float64 of y (G, B T' H' W'), dw (1, C_out taps) and dx (G, B T H W).

    A convolution is a sum over the taps of its kernel; each tap is a product of channels. There is
    no dx if training does not need it.
    """
    groups, batch = conv.groups, dy.shape[0]
    w = weight.double().flatten(2).unflatten(0, (groups, -1))  # (G, C_out / G, C_in / G, taps)
    left = torch.einsum("gock,go->gkc", w, u.view(groups, -1))
    right = torch.einsum("gock,c->gko", w, v)
    border = F.pad(x, _border(conv.padding))
    padded, outputs = _matrix(border, groups), _matrix(dy, groups)
    projected = torch.einsum("c,gcn->gn", v, padded).view(groups, batch, *border.shape[2:])
    y = outputs.new_zeros(groups, batch, *dy.shape[2:])
    dx, dweight = torch.zeros_like(projected), torch.zeros_like(right)
    windows = _windows(conv, dy.shape[2:])
    step = max(1, CHUNK // projected.numel())
    for first in range(0, len(windows), step):
        taps = slice(first, first + step)
        products = (left[:, taps] @ padded).view(groups, -1, *projected.shape[1:])
        for k, window in enumerate(windows[taps]):
            y += products[:, k][window]
        inputs = torch.stack([projected[window] for window in windows[taps]], 1)
        dweight[:, taps] = inputs.flatten(2) @ outputs.mT
        if conv.input_gradient:
            products = (right[:, taps] @ outputs).view(groups, -1, *y.shape[1:])
            for k, window in enumerate(windows[taps]):
                dx[window] += products[:, k]
    found = [y.flatten(1), dweight.mT.flatten()[None]]
    inside = tuple(slice(p, p + n) for p, n in zip(conv.padding, conv.x[2:], strict=True))
    return [*found, dx[EVERY + inside].flatten(1)] if conv.input_gradient else found


def _border(padding: Size) -> list[int]:
    """The padding as F.pad takes it: the last dimension first."""
    return [side for pad in reversed(padding) for side in (pad, pad)]


def _windows(conv: Convolution, out: Sequence[int]) -> list[tuple[slice, ...]]:
    """The positions of the padded input (G, B, T, H, W) that each tap of the kernel multiplies."""
    return [
        EVERY
        + tuple(
            slice(k * dilation, k * dilation + stride * (size - 1) + 1, stride)
            for k, dilation, stride, size in zip(tap, conv.dilation, conv.stride, out, strict=True)
        )
        for tap in product(*(range(size) for size in conv.weight[2:]))
    ]


def _difference(result: Tensor, vectors: Tensor, exact: Tensor) -> float:
    """The relative error of a result (G, C, n), whose projections should be `exact` (G, n)."""
    difference = (torch.einsum("gcn,gc->gn", result, vectors) - exact).abs()
    # What a projection of random numbers of this size is on average.
    scale = result.square().mean().sqrt() * vectors.square().sum(1).mean().sqrt()
    error = max(difference.square().mean().sqrt(), difference.max() / 8) / scale
    return error.item() if error.isfinite() else float("inf")
