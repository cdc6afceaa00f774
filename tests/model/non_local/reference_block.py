"""The equations of whole blocks, computed with loops from the weights of a block.

Maps are (B, C, T, H, W). A map of fewer dimensions is given as a video: an image has one frame, a
sequence has one row and one column.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.model.non_local import reference

Region = tuple[slice, slice, slice]  # of frames, rows, columns
ALL = slice(None)


def regions(shape: torch.Size, axes: str, group_frames: int | None) -> Iterator[Region]:
    """The parts of a map (B, C, T, H, W) whose positions attend to each other."""
    _, _, frames, height, width = shape
    size = 1 if axes in ("space", "row_column") else group_frames or frames
    for start in range(0, frames, size):
        if axes == "row":
            for i in range(height):
                yield slice(start, start + size), slice(i, i + 1), ALL
        elif axes == "column":
            for j in range(width):
                yield slice(start, start + size), ALL, slice(j, j + 1)
        elif axes == "time":
            for i in range(height):
                for j in range(width):
                    yield slice(start, start + size), slice(i, i + 1), slice(j, j + 1)
        else:
            yield slice(start, start + size), ALL, ALL


def part(x: Tensor, region: Region) -> Tensor:  # a map (B, C, T, H, W) -> tokens (B, N, C)
    return x[:, :, region[0], region[1], region[2]].flatten(2).mT


def place(y: Tensor, region: Region, tokens: Tensor) -> None:
    target = y[:, :, region[0], region[1], region[2]]
    target.copy_(tokens.mT.reshape(target.shape))


def conv(block: nn.Module, name: str, x: Tensor) -> Tensor:
    parameters = dict(block.get_submodule(name).named_parameters())
    weight = as_video(parameters["weight"])
    return F.conv3d(x, weight, parameters.get("bias"), groups=x.shape[1] // weight.shape[1])


def as_video(x: Tensor) -> Tensor:
    """A tensor of a block for images or sequences, as that of a block for videos."""
    return x.unsqueeze(2) if x.dim() == 4 else x.reshape(*x.shape, *[1] * (5 - x.dim()))


def norm(block: nn.Module, x: Tensor) -> Tensor:
    """The block's own norm, on maps of its dimensions."""
    dims = parameter_dims(block)
    natural = x.flatten(2) if dims == 1 else x.squeeze(2) if dims == 2 else x
    return as_video(block.get_submodule("norm")(natural))


def parameter_dims(block: nn.Module) -> int:
    return block.get_parameter("out.weight").dim() - 2


def pairwise_sum(
    name: str, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None, options: dict
) -> Tensor:
    scale = theta.shape[2] ** -0.5 if options["scale"] else 1.0
    whitened = scale / options["temperature"]
    if name == "gaussian":
        return reference.softmax_attention(theta, phi, g, 1.0)
    if name == "embedded_gaussian":
        return reference.softmax_attention(theta, phi, g, scale)
    if name == "dot_product":
        return reference.dot_product(theta, phi, g)
    if name == "concatenation":
        return reference.concatenated_embeddings(theta, phi, g, options["weight"])
    if name == "whitened":
        return reference.whitened_pairwise(theta, phi, g, whitened)
    assert mask is not None
    if name == "unary":
        return reference.unary_context(mask, g).expand(-1, theta.shape[1], -1)
    assert name == "disentangled"
    return reference.disentangled(theta, phi, g, mask, whitened)


def group_sum(
    name: str, theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor | None, options: dict
) -> Tensor:
    """The sum of a group. With a width, the keys of a query are its row and its column.

    Then it computes one query at a time, and the whole frame gives the mean of theta.
    """
    width = options.get("width")
    if width is None:
        return pairwise_sum(name, theta, phi, g, mask, options)
    if name in ("whitened", "disentangled"):
        theta = theta - theta.mean(dim=1, keepdim=True)
    sums = []
    for i in range(theta.shape[1]):
        keys = [
            j for j in range(theta.shape[1]) if j // width == i // width or j % width == i % width
        ]
        query, logits = theta[:, i : i + 1], None if mask is None else mask[:, keys]
        # A mean over one query would take the query away; the mean is away already.
        first = {"whitened": "embedded_gaussian", "disentangled": "embedded_gaussian"}
        maps = (query if name not in first else query / options["temperature"], phi[:, keys])
        y = pairwise_sum(first.get(name, name), *maps, g[:, keys], logits, options)
        if name == "disentangled":
            assert logits is not None
            y = y + reference.unary_context(logits, g[:, keys])
        sums.append(y)
    return torch.cat(sums, dim=1)


def sum_of_heads(
    heads: int,
    name: str,
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    mask: Tensor | None,
    options: dict,
) -> Tensor:
    """The sums of the heads, one after the other; mask (B, M, heads)."""
    sums = []
    for k in range(heads):
        own = [tokens.chunk(heads, dim=2)[k] for tokens in (theta, phi, g)]
        logits = None if mask is None else mask[:, :, k]
        chosen = dict(options)
        if "weight" in options:
            chosen["weight"] = torch.cat([w.chunk(heads)[k] for w in options["weight"].chunk(2)])
        sums.append(group_sum(name, *own, logits, chosen))
    return torch.cat(sums, dim=2)


def non_local(
    block: nn.Module,
    x: Tensor,
    *,
    pairwise: str,
    axes: str = "spacetime",
    group_frames: int | None = None,
    where: str = "input",
    kernel: tuple[int, int, int] = (1, 2, 2),
    scale: bool = True,
    temperature: float = 1.0,
    shared: bool = False,
    heads: int = 1,
) -> Tensor:
    """z of a NonLocalBlock in training mode; the block's own norm module is applied."""
    options = {"scale": scale, "temperature": temperature}
    if pairwise == "concatenation":
        options["weight"] = block.get_parameter("pairwise.weight")
    values = None
    for axis in ("time", "space") if axes == "criss_cross" else (axes,):
        pooled = axis not in ("time", "row", "column", "row_column")
        options["width"] = x.shape[4] if axis == "row_column" else None
        cut = [min(k, size) for k, size in zip(kernel, x.shape[2:], strict=True)]

        def pool(maps: Tensor, when: str, cut: list[int] = cut, pooled: bool = pooled) -> Tensor:
            return F.max_pool3d(maps, cut) if pooled and where == when else maps

        def embedding(name: str, pool: Callable[..., Tensor] = pool) -> Tensor:
            return pool(conv(block, name, pool(x, "input")), "embedded")

        embedded = pairwise not in ("gaussian", "unary")
        theta = conv(block, "theta", x) if embedded else x
        phi = pool(pool(x, "input"), "embedded")
        if embedded:
            phi = embedding("theta" if shared else "phi")
        g = embedding("g") if values is None else pool(pool(values, "input"), "embedded")
        mask = embedding("mask") if pairwise in ("disentangled", "unary") else None
        y = x.new_zeros(x.shape[0], g.shape[1], *x.shape[2:])
        for region in regions(x.shape, axis, group_frames):
            logits = None if mask is None else part(mask, region)
            maps = (part(theta, region), part(phi, region), part(g, region))
            place(y, region, sum_of_heads(heads, pairwise, *maps, logits, options))
        values = y
    z = norm(block, conv(block, "out", values))
    gamma = dict(block.named_parameters()).get("gamma")
    return x + z if gamma is None else x + gamma * z


def by_region(
    x: Tensor, axes: str, group_frames: int | None, change: Callable[[Tensor], Tensor]
) -> Tensor:
    """Apply `change` to the tokens (B, N, C) of each region, and return the map of results."""
    y = torch.zeros_like(x)
    for region in regions(x.shape, axes, group_frames):
        place(y, region, change(part(x, region)).expand(part(x, region).shape))
    return y


def linear(block: nn.Module, name: str, tokens: Tensor) -> Tensor:
    parameters = dict(block.get_submodule(name).named_parameters())
    return F.linear(tokens, parameters["weight"].flatten(1), parameters.get("bias"))


def context(block: nn.Module, tokens: Tensor) -> Tensor:
    return reference.unary_context(linear(block, "mask", tokens).squeeze(2), tokens)


def simplified(block: nn.Module, x: Tensor, axes: str, group_frames: int | None) -> Tensor:
    change = by_region(x, axes, group_frames, lambda t: linear(block, "out", context(block, t)))
    return x + change


def global_context(block: nn.Module, x: Tensor, axes: str, group_frames: int | None) -> Tensor:
    return x + by_region(x, axes, group_frames, lambda t: bottleneck(block, context(block, t)))


def global_context_mul(block: nn.Module, x: Tensor, axes: str, group_frames: int | None) -> Tensor:
    change = by_region(x, axes, group_frames, lambda t: bottleneck(block, context(block, t)))
    return x / (1 + torch.exp(-change))


def bottleneck(block: nn.Module, vector: Tensor) -> Tensor:
    hidden = linear(block, "reduce", vector)
    spread = hidden.var(dim=2, keepdim=True, unbiased=False) + 1e-5
    hidden = (hidden - hidden.mean(dim=2, keepdim=True)) / spread.sqrt()
    weight, bias = (block.get_parameter(f"norm.{name}").flatten() for name in ("weight", "bias"))
    return linear(block, "expand", torch.relu(hidden * weight + bias))


def double_attention(block: nn.Module, x: Tensor, axes: str, group_frames: int | None) -> Tensor:
    def attend(tokens: Tensor) -> Tensor:
        maps = (linear(block, name, tokens) for name in ("phi", "theta", "rho"))
        return linear(block, "out", reference.double_attention(*maps))

    return x + norm(block, by_region(x, axes, group_frames, attend))


def compact_generalized(block: nn.Module, x: Tensor, axes: str, group_frames: int | None) -> Tensor:
    theta, phi, g = (conv(block, name, x) for name in ("theta", "phi", "g"))
    y = torch.zeros_like(theta)
    for region in regions(x.shape, axes, group_frames):
        maps = (part(theta, region), part(phi, region), part(g, region))
        place(y, region, reference.compact_generalized(*maps, groups=8))
    return x + norm(block, conv(block, "out", y))


BLOCKS = {
    "simplified": simplified,
    "global_context": global_context,
    "global_context_mul": global_context_mul,
    "double_attention": double_attention,
    "compact_generalized": compact_generalized,
}
