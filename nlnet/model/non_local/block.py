"""The non-local block: z = x + W_z y, with y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j).

Shapes: maps (B, C, T, H, W), (B, C, H, W) or (B, C, L), tokens (B, T, H, W, C), d = ratio C
inner channels of all heads. The submodules have the names of checkpoints: theta, phi, g, out,
norm, mask, pairwise, gamma.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from nlnet.errors import ArgumentError, choose
from nlnet.model.non_local.axes import Pass, passes_of
from nlnet.model.non_local.layers import (
    SUBSAMPLES,
    Embedding,
    Logits,
    Output,
    Subsample,
    check_heads,
    embedding_norms,
    initialize,
    inner_channels,
    output_layers,
)
from nlnet.model.non_local.pairwise import PAIRWISE, Maps, unary_sum
from nlnet.model.non_local.terms import check_terms
from nlnet.model.non_local.tokens import (
    Pointwise,
    merge_heads,
    pointwise,
    split_heads,
    to_map,
    to_tokens,
)
from nlnet.model.non_local.whitening import whiten


class NonLocalBlock(nn.Module):
    """z = x + norm(W_z y) with any pairwise function, axes, pooling and output layers.

    A map of `dims` dimensions -> the same, in the same memory format: videos (B, C, T, H, W),
    images (B, C, H, W) or sequences (B, C, L). The parameters have the shapes of these dimensions,
    so those of a Conv2d in images. `pairwise` is a name in PAIRWISE, `axes` in AXES_OF; None is
    all positions. `group_frames` consecutive frames, or positions of a sequence, attend to each
    other; None is all, and with axes=space it is always one frame. Keys are not pooled where
    attention runs over time, rows or columns. axes=row_column has one softmax (or mean) over the
    row and the column of a position, which is itself counted once. With axes=criss_cross (time,
    then space) the values of the second round are the outputs of the first one, pooled. A pooling
    kernel that is larger than the map is reduced to the map. `heads` divide the channels of theta,
    phi and g: each head has its own sum over the keys, and its own mask if there is one. Means that
    `Logits.whiten` takes over channels, and norms of theta and phi, are those of all heads.

    Raises ArgumentError for unknown names and heads that do not divide d; the forward pass raises
    it if the map has other dimensions, if `group_frames` does not divide T, or if the pooling mixes
    groups. Source: Wang et al. 2018, section 3; published implementations differ in the values of
    the arguments.
    """

    def __init__(
        self,
        channels: int,
        *,
        dims: int = 3,
        pairwise: str = "embedded_gaussian",
        axes: str | None = None,
        group_frames: int | None = None,
        heads: int = 1,
        logits: Logits = Logits(),
        embedding: Embedding = Embedding(),
        subsample: Subsample = Subsample(),
        output: Output = Output(),
        recurrence: int = 1,
    ) -> None:
        super().__init__()
        self.dims, self.heads = dims, heads
        self.passes = passes_of(axes, dims, group_frames)
        self.group_frames, self.recurrence = group_frames, recurrence
        choose("subsample", subsample.where, SUBSAMPLES)
        self.subsample = subsample
        self.kernel = subsample.lifted(dims)
        inner = inner_channels(channels, embedding.ratio, embedding.inner)
        make = choose("pairwise", pairwise, PAIRWISE)
        check_heads(heads, inner, inner if make.embedded and output.project else channels)
        scale, temperature = logits.scale, logits.temperature
        self.pairwise = make(inner, scale=scale, temperature=temperature, heads=heads)
        self.whiten, self.unary = logits.whiten, logits.unary
        self.terms, self.residual = output.terms, output.residual
        check_terms(self.pairwise, self.passes, logits, embedding, output)
        embed = partial(pointwise, channels, dims=dims, prelu=embedding.prelu)
        self.theta: Pointwise | None = None
        self.phi: Pointwise | None = None  # None if theta is used as phi
        if self.pairwise.embedded:
            self.theta = embed(inner, bias=embedding.bias)
        if self.pairwise.embedded and not embedding.shared:
            self.phi = embed(inner, bias=embedding.bias)
        value_bias = embedding.bias if embedding.value_bias is None else embedding.value_bias
        self.g = embed(inner if output.project else channels, bias=value_bias)
        has_mask = self.pairwise.unary or "mask" in self.unary
        self.mask = pointwise(channels, heads, dims=dims) if has_mask else None
        self.out: nn.Module = nn.Identity()
        if output.project:
            self.out = pointwise(inner, channels, bias=output.bias, dims=dims)
        initialize(self, embedding.init)
        last = self.out if isinstance(self.out, Pointwise) else self.g
        self.norm, self.gamma = output_layers(last, output, dims)
        self.theta_norm, self.phi_norm = embedding_norms(embedding.norm, inner)
        for conv in (self.theta, self.phi):
            if embedding.weight_norm and conv is not None:
                weight_norm(conv)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            z = self.change(self.attend(to_tokens(x, self.dims)))
            x = x + z if self.residual else z
        return x

    def change(self, y: Tensor) -> Tensor:
        """W_z and the layers after it, on tokens with the terms of y: a map."""
        if self.terms == "joint":
            return self._weighted(self._projected(y))
        y, *unary = y.chunk(2 if self.unary else 1, dim=4)
        if self.terms == "weighted":
            return self._projected(sum(unary, start=self._weighted(y)))
        return sum(map(self._projected, unary), start=self._weighted(self._projected(y)))

    def _projected(self, y: Tensor) -> Tensor:
        return self.norm(to_map(self.out(y), self.dims))

    def _weighted(self, y: Tensor) -> Tensor:
        return y if self.gamma is None else self.gamma * y

    def attend(self, tokens: Tensor) -> Tensor:
        """y, (B, T, H, W, d): one round of attention for each pass of the axes."""
        theta = self.queries(tokens)
        first, *rest = self.passes
        y = self.attend_along(first, theta, tokens)
        for axes in rest:
            y = self.attend_along(axes, theta, tokens, values=y)
        return y

    def queries(self, tokens: Tensor) -> Tensor:
        """theta of all positions, (B, T, H, W, d)."""
        if self.theta is None:
            return tokens
        return _embed(self.theta, tokens, then=self.pairwise.after_theta())

    def attend_along(
        self, axes: Pass, theta: Tensor, tokens: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """Attention along some axes over `values`, (B, T, H, W, d), or over g if they are None."""
        phi, g, *mask = self.keys_along(axes, tokens, values)
        width = theta.shape[3] if axes.row_column else None
        sum_over_keys = partial(self.sum_over_keys, width=width)
        return axes.attend(sum_over_keys, self.group_frames, theta, phi, g, *mask)

    def keys_along(
        self, axes: Pass, tokens: Tensor, values: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """phi, g and, if the function is unary, the mask: (B, T', H', W', any), pooled."""
        where = self.subsample.where if axes.subsamples else "none"
        before = self.pool if where == "input" else identity
        after = self.pool if where == "embedded" else identity
        keys = before(tokens)
        key_embedding = self.theta if self.phi is None else self.phi
        phi = after(keys)
        if key_embedding is not None:
            phi = _embed(key_embedding, keys, pool=after, then=self.pairwise.after_phi())
        g = after(before(values)) if values is not None else _embed(self.g, keys, pool=after)
        mask = () if self.mask is None else (_embed(self.mask, keys, pool=after),)
        if phi.shape[1] % axes.groups(tokens.shape[1], self.group_frames) != 0:
            raise ArgumentError(
                f"subsample_kernel={list(self.kernel)} pools frames of different groups "
                "together; pool time by 1"
            )
        return phi, g, *mask

    def sum_over_keys(
        self, theta: Tensor, phi: Tensor, g: Tensor, *mask: Tensor, width: int | None
    ) -> Tensor:
        """The pairwise function on folded tokens: theta (B, N, d), the rest (B, M, any).

        With a `width` the tokens are the positions of a frame, and a query attends to its row and
        its column.
        """
        maps = Maps(theta, phi, g, mask[0] if mask else None, width)
        maps, mean = self.by_head(maps)
        y = self.pairwise(maps)
        if not self.unary:
            return merge_heads(y, self.heads)
        terms = [unary_sum(maps, logits) for logits in self.unary_logits(maps, mean)]
        unary = sum(terms[1:], start=terms[0]).expand_as(y)
        if self.terms == "joint":
            return merge_heads(y + unary, self.heads)
        return torch.cat([merge_heads(x, self.heads) for x in (y, unary)], dim=2)

    def by_head(self, maps: Maps) -> tuple[Maps, Tensor | None]:
        """The maps of each head, whitened, and the last mean taken away from theta.

        Maps (B, N, d) and the logits of a mask (B, M, heads) become (B heads, N, d / heads) and
        (B heads, M).
        """
        theta, phi, mean = whiten(self.whiten, maps.theta, maps.phi)
        if self.theta_norm is not None and self.phi_norm is not None:
            theta, phi = self.theta_norm(theta.mT).mT, self.phi_norm(phi.mT).mT
        split = partial(split_heads, heads=self.heads)
        mask = maps.mask
        if mask is not None:
            mask = split(mask.reshape(*phi.shape[:2], self.heads)).squeeze(2)
        if mean is not None and self.heads > 1:
            mean = split(mean.expand(len(theta), -1, theta.shape[2]))
        return Maps(split(theta), split(phi), split(maps.g), mask, maps.width), mean

    def unary_logits(self, maps: Maps, mean: Tensor | None) -> list[Tensor]:
        """The logits (B, M) of each unary term besides the pairwise function's."""
        logits = []
        for name in self.unary:
            found = maps.mask if mean is None or name == "mask" else (mean * maps.phi).sum(dim=2)
            assert found is not None
            logits.append(found)
        return logits

    def pool(self, tokens: Tensor) -> Tensor:
        """Max pooling, (B, T, H, W, C) -> (B, T', H', W', C); an incomplete window is dropped."""
        kernel = self.pooling_kernel(tokens)
        return to_tokens(F.max_pool3d(to_map(tokens), kernel))

    def pooling_kernel(self, tokens: Tensor) -> list[int]:
        """The kernel (t, h, w), reduced to the sizes of a map of tokens (B, T, H, W, C)."""
        sizes = tokens.shape[1:4]
        return [min(k, size) for k, size in zip(self.kernel, sizes, strict=True)]


def identity(tokens: Tensor) -> Tensor:
    return tokens


def _embed(
    conv: Pointwise,
    tokens: Tensor,
    *,
    pool: Callable[[Tensor], Tensor] = identity,
    then: Tensor | None = None,
) -> Tensor:
    """A 1x1x1 convolution, a pool, and a linear map `then` (d', d).

    Without a pool between them, the convolution and the linear map are one matrix product.
    """
    if then is None or pool is identity:
        return pool(conv(tokens, then))
    return F.linear(pool(conv(tokens)), then)
