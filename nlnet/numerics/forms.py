"""Other ways to compute a convolution, for kernels that are wrong on a device."""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.numerics.gradients import convolution_gradients, weight_gradient


class Geometry(Protocol):
    """How a kernel moves over its input: an nn.Conv3d or the description of one."""

    @property
    def stride(self) -> tuple[int, ...]: ...
    @property
    def padding(self) -> str | tuple[int, ...]: ...
    @property
    def dilation(self) -> tuple[int, ...]: ...
    @property
    def groups(self) -> int: ...


class Form(Protocol):
    """Computes y (B, C_out, T', H', W') from x (B, C_in, T, H, W) and a weight, without a bias."""

    def __call__(self, x: Tensor, weight: Tensor, conv: Geometry) -> Tensor: ...


def plain(x: Tensor, weight: Tensor, conv: Geometry) -> Tensor:
    """torch's own convolution."""
    return F.conv3d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)


def sliced(x: Tensor, weight: Tensor, conv: Geometry) -> Tensor:
    """A 1x1x1 kernel with a stride: drop the positions that it skips, then use stride 1."""
    t, h, w = conv.stride
    return F.conv3d(x[:, :, ::t, ::h, ::w], weight, None, groups=conv.groups)


def in_float32(x: Tensor, weight: Tensor, conv: Geometry) -> Tensor:
    """torch's own convolution in float32; the output has the precision that it would have had."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    with torch.autocast(kind, enabled=False):
        return plain(x.float(), weight.float(), conv).to(dtype)


class _Lean(torch.autograd.Function):
    """torch's convolution, whose gradients are those of `nlnet/numerics/gradients.py`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        return F.conv3d(x, weight, None, conv.stride, conv.padding)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            dx = convolution_gradients(dy, x, weight, ctx.conv, (True, False, False))[0]
        return dx, weight_gradient(dy, x, weight, ctx.conv), None


def lean(x: Tensor, weight: Tensor, conv: Geometry) -> Tensor:
    """As nlnet/model/speed/lean_functions.py computes it: one group, no dilation."""
    return _Lean.apply(x, weight, conv)


FORMS: dict[str, Form] = {"plain": plain, "lean": lean, "sliced": sliced, "float32": in_float32}


def forms_for(weight: tuple[int, ...], conv: Geometry) -> list[str]:
    """The names of the forms that can compute a convolution, the fastest first."""
    pads = isinstance(conv.padding, str) or any(conv.padding)
    pointwise = set(weight[2:]) == {1} and not pads and set(conv.stride) != {1}
    return ["plain", "sliced", "float32"] if pointwise else ["plain", "float32"]


class ReplacedConv3d(nn.Conv3d):
    """A convolution in another form; it has the parameters of the one that it replaces."""

    def __init__(self, conv: nn.Conv3d, form: str) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            _three(conv.kernel_size),
            _three(conv.stride),
            conv.padding if isinstance(conv.padding, str) else _three(conv.padding),
            _three(conv.dilation),
            conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias, self.training = conv.weight, conv.bias, conv.training
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        y = FORMS[self.form](x, self.weight, self)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, 1, 1, 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, form={self.form}"


def _three(sizes: tuple[int, ...]) -> tuple[int, int, int]:
    t, h, w = sizes
    return t, h, w
