"""Convolutions and max pools with a norm before them, which keep one map for the backward pass.

y = norm_out(w * relu(norm_in(x))), or a max pool instead of the convolution. Autograd alone keeps
x, the input of the convolution and its output, or the indices of the pool. Here x is kept, and the
rest is computed from x again: an affine map, the pool and, with a norm_out, one convolution. In
channels_last_3d the gradient of the weights is a matrix product, or is computed in the contiguous
format: oneDNN's own gradient takes 1.1 to 5 times as long in channels_last_3d.
Shapes: maps (B, C, T, H, W), weights (C_out, C_in, t, h, w).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nlnet.numerics.gradients import convolution_gradients, weight_gradient

aten = torch.ops.aten


def plain_convolution(
    x: Tensor,
    conv: nn.Conv3d,
    *,
    norm_in: nn.Module | None = None,
    norm_out: nn.Module | None = None,
) -> Tensor:
    """norm_out(conv(relu(norm_in(x)))); without norm_in there is no ReLU."""
    if norm_in is not None:
        x = F.relu(norm_in(x), inplace=True)
    y = conv(x)
    return y if norm_out is None else norm_out(y)


def lean_convolution(
    x: Tensor,
    conv: nn.Conv3d,
    *,
    norm_in: nn.Module | None = None,
    norm_out: nn.Module | None = None,
) -> Tensor:
    """`plain_convolution` whose backward pass needs only x; the results are the same.

    It is for training on a CPU with batch norms in training mode; under autocast, the maps have
    its precision. Everything else falls back to plain_convolution. So do compiled networks, where
    the compiler decides what to compute again, and convolutions in another form.
    """
    norms = [norm for norm in (norm_in, norm_out) if norm is not None]
    cast = _autocast(x)
    learns = conv.weight.requires_grad and type(conv) is nn.Conv3d and _fits(cast, conv.weight)
    if not (learns and _trains_on_cpu(x) and all(_follows_batch(norm) for norm in norms)):
        return plain_convolution(x, conv, norm_in=norm_in, norm_out=norm_out)
    return _LeanConvolution.apply(
        cast,
        conv.weight,
        *_affine(norm_in),
        *_affine(norm_out),
        (conv, norm_in, norm_out),
    )


def plain_pool(x: Tensor, pool: nn.Module, *, norm_in: nn.Module | None = None) -> Tensor:
    """pool(relu(norm_in(x))); without norm_in there is no ReLU."""
    return pool(x if norm_in is None else F.relu(norm_in(x), inplace=True))


def lean_pool(x: Tensor, pool: nn.Module, *, norm_in: nn.Module | None = None) -> Tensor:
    """`plain_pool` whose backward pass needs only x; it falls back as lean_convolution does."""
    follows = norm_in is None or _follows_batch(norm_in)
    if not (isinstance(pool, nn.MaxPool3d) and x.requires_grad and _trains_on_cpu(x) and follows):
        return plain_pool(x, pool, norm_in=norm_in)
    return _LeanPool.apply(x, *_affine(norm_in), (pool, norm_in))


def _affine(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    if norm is None:
        return None, None
    return norm.get_parameter("weight"), norm.get_parameter("bias")


def _trains_on_cpu(x: Tensor) -> bool:
    compiled = torch.compiler.is_compiling()
    return x.device.type == "cpu" and torch.is_grad_enabled() and not compiled


def _autocast(x: Tensor) -> Tensor:
    """x in the precision that autocast gives to the input of a convolution."""
    if x.dtype != torch.float32 or not torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether both have one precision, or x has that of autocast."""
    cast = torch.is_autocast_enabled(x.device.type) and weight.dtype == torch.float32
    return x.dtype == (torch.get_autocast_dtype(x.device.type) if cast else weight.dtype)


def _follows_batch(norm: nn.Module) -> bool:
    return type(norm) is nn.BatchNorm3d and norm.training and norm.momentum is not None


class _LeanConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        weight_in: Tensor | None,
        bias_in: Tensor | None,
        weight_out: Tensor | None,
        bias_out: Tensor | None,
        modules: tuple[nn.Conv3d, nn.BatchNorm3d | None, nn.BatchNorm3d | None],
    ) -> Tensor:
        conv, norm_in, norm_out = modules
        z, mean_in, rstd_in = (x, None, None) if norm_in is None else normalize(x, norm_in)
        if norm_in is not None:
            z.relu_()
        w = weight.to(x.dtype)
        y, mean_out, rstd_out = F.conv3d(z, w, None, conv.stride, conv.padding), None, None
        if norm_out is not None:
            y, mean_out, rstd_out = normalize(y, norm_out, out=y)
        ctx.save_for_backward(
            x, weight, weight_in, bias_in, weight_out, mean_in, rstd_in, mean_out, rstd_out
        )
        ctx.modules = modules
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, weight_in, bias_in, weight_out, mean_in, rstd_in, mean_out, rstd_out = (
            ctx.saved_tensors
        )
        conv, norm_in, norm_out = ctx.modules
        z = x if norm_in is None else _renormalize(x, weight_in, bias_in, mean_in, rstd_in).relu_()
        dweight_in = dbias_in = dweight_out = dbias_out = dx = None
        w = weight.to(x.dtype)
        if norm_out is not None:
            y = F.conv3d(z, w, None, conv.stride, conv.padding)
            moments = mean_out, rstd_out, norm_out.eps
            dy, dweight_out, dbias_out = _normalize_backward(dy, y, weight_out, *moments)
            del y
        dweight = weight_gradient(dy, z, w, conv).to(weight.dtype)
        if ctx.needs_input_grad[0] or norm_in is not None:
            dx = convolution_gradients(dy, z, w, conv, (True, False, False))[0]
        if norm_in is not None:
            dx = aten.threshold_backward.grad_input(dx, z, 0, grad_input=dx)
            del z
            moments = mean_in, rstd_in, norm_in.eps
            dx, dweight_in, dbias_in = _normalize_backward(dx, x, weight_in, *moments)
        return dx, dweight, dweight_in, dbias_in, dweight_out, dbias_out, None


class _LeanPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        modules: tuple[nn.MaxPool3d, nn.BatchNorm3d | None],
    ) -> Tensor:
        pool, norm = modules
        z, mean, rstd = (x, None, None) if norm is None else normalize(x, norm)
        if norm is not None:
            z.relu_()
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.modules = modules
        with torch.autocast("cpu", enabled=False):  # it would pool, and keep, float32
            return pool(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        pool, norm = ctx.modules
        z = x if norm is None else _renormalize(x, weight, bias, mean, rstd).relu_()
        window = pool.kernel_size, pool.stride, pool.padding, (1, 1, 1)
        indices = aten.max_pool3d_with_indices(z, *window)[1]
        dx = aten.max_pool3d_with_indices_backward(dy, z, *window, False, indices)
        if norm is None:
            return dx, None, None, None
        dx = aten.threshold_backward.grad_input(dx, z, 0, grad_input=dx)
        return *_normalize_backward(dx, x, weight, mean, rstd, norm.eps), None


def normalize(
    x: Tensor, norm: nn.BatchNorm3d, *, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The output of a batch norm in training mode; its running statistics are updated.

    The output is written into `out` if that is given; it may be x itself. Returns the output, and
    the mean (C,) and the reciprocal standard deviation (C,) of the batch.
    """
    norm.get_buffer("num_batches_tracked").add_(1)
    y = torch.empty_like(x) if out is None else out
    moments = norm.weight.new_empty(2, x.shape[1])
    results = {"save_mean": moments[0], "save_invstd": moments[1]}
    running = norm.running_mean, norm.running_var
    return aten.native_batch_norm.out(
        x, norm.weight, norm.bias, *running, True, norm.momentum, norm.eps, out=y, **results
    )


def _renormalize(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """The output of `normalize`, from its input and its moments."""
    if x.dtype != weight.dtype:  # rounded once, as the norm itself does
        variance = rstd.double().pow(-2).to(rstd.dtype)
        return aten.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, 0.0)[0]
    scale = weight * rstd
    shape = (1, -1, 1, 1, 1)
    return torch.addcmul((bias - mean * scale).view(shape), x, scale.view(shape))


def _normalize_backward(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias of `normalize`."""
    every = [True, True, True]
    return aten.native_batch_norm_backward(dy, x, weight, None, None, mean, rstd, True, eps, every)
