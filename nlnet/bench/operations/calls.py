"""Forward and backward passes of pairwise functions and whole blocks, as functions to time."""

from collections.abc import Callable

import torch
from torch import nn

from nlnet.bench.naive import NAIVE
from nlnet.bench.operations.shapes import Shape
from nlnet.bench.peer import INSTANTIATIONS, create_nonlocal
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.layers import Output, Subsample
from nlnet.model.non_local.pairwise import Maps, Pairwise


def pairwise_step(pairwise: Pairwise, shape: Shape, device: torch.device) -> Callable[[], object]:
    """Return a function that runs a pairwise function forward and backward on random maps."""
    n, m, e = shape.queries, shape.keys, shape.inner
    d = e if pairwise.embedded else shape.channels
    after = pairwise.after_theta()
    if after is not None:
        d = after.shape[0]
    sizes = {"theta": (1, n, d), "phi": (1, m, d), "g": (1, m, e), "mask": (1, m)}
    torch.manual_seed(0)
    tokens = {name: torch.randn(size, device=device) for name, size in sizes.items()}
    if not pairwise.unary:
        del tokens["mask"]
    for token in tokens.values():
        token.requires_grad_()
    maps = Maps(tokens["theta"], tokens["phi"], tokens["g"], tokens.get("mask"))
    cotangent = torch.randn(1, n, e, device=device)
    return lambda: torch.autograd.grad(pairwise(maps), list(tokens.values()), cotangent)


def block_step(block: nn.Module, shape: Shape, device: torch.device) -> Callable[[], object]:
    """Return a function that runs a block forward and backward on a random map.

    Blocks of nlnet get the map in channels_last_3d and pytorchvideo's in the contiguous format,
    because each is faster there.
    """
    torch.manual_seed(0)
    video = torch.randn(1, shape.channels, shape.frames, shape.side, shape.side, device=device)
    if isinstance(block, NonLocalBlock):
        video = video.contiguous(memory_format=torch.channels_last_3d)
    cotangent = torch.randn_like(video)
    inputs = [video.requires_grad_(), *block.to(device).parameters()]
    return lambda: torch.autograd.grad(block(video), inputs, cotangent)


def our_block(name: str, shape: Shape, heads: int = 1) -> nn.Module:
    return NonLocalBlock(
        shape.channels,
        pairwise=name,
        heads=heads,
        subsample=Subsample("input" if shape.pooled else "none"),
        output=Output(zero_init=False),
    )


def _naive_block(name: str, shape: Shape) -> nn.Module:
    block = our_block(name, shape)
    block.set_submodule("pairwise", NAIVE[name](shape.inner))
    return block


def _peer_block(name: str, shape: Shape) -> nn.Module:
    return create_nonlocal(
        dim_in=shape.channels,
        dim_inner=shape.inner,
        pool_size=(1, 2, 2) if shape.pooled else (1, 1, 1),
        instantiation=INSTANTIATIONS[name],
    )


FORMS: dict[str, Callable[[str, Shape], nn.Module]] = {
    "ours": our_block,
    "naive": _naive_block,
    "pytorchvideo": _peer_block,
}
