"""The formulas of published blocks in NumPy, with all affinities in memory: the oracle of presets.

A formula asks for its parameters by the names of its code base. `Parameters` makes each one by the
rule of the golden files when it is asked for, and keeps it. Maps are (B, C, positions...).
"""

from collections.abc import Callable
from math import factorial, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
Settings = dict[str, Any]


class Parameters:
    def __init__(self, value: Callable[[str, list[int], str], Any]) -> None:
        self.value = value
        self.kept: dict[str, Any] = {}

    def get(self, name: str, shape: tuple[int, ...], kind: str) -> Map:
        if name not in self.kept:
            self.kept[name] = self.value(name, list(shape), kind)
        array: Map = self.kept[name].numpy()
        return array

    def conv(self, name: str, x: Map, out: int, *, bias: bool = True, groups: int = 1) -> Map:
        inner = x.shape[1] // groups
        weight = self.get(f"{name}.weight", (out, inner, *[1] * (x.ndim - 2)), "weight")
        rows = np.split(weight.reshape(out, inner), groups)
        parts = zip(rows, np.split(x, groups, axis=1), strict=True)
        y = np.concatenate([np.einsum("oc,bc...->bo...", w, part) for w, part in parts], axis=1)
        return y + column(self.get(f"{name}.bias", (out,), "bias"), y) if bias else y

    def batch_norm(self, name: str, x: Map, *, affine: bool = True) -> Map:
        size = (x.shape[1],)
        mean = self.get(f"{name}.running_mean", size, "running_mean")
        var = self.get(f"{name}.running_var", size, "running_var")
        self.get(f"{name}.num_batches_tracked", (), "count")
        y = (x - column(mean, x)) / column(np.sqrt(var + 1e-5), x)
        return self.affine(name, y) if affine else y

    def affine(self, name: str, x: Map) -> Map:
        weight = self.get(f"{name}.weight", (x.shape[1],), "norm_scale")
        return x * column(weight, x) + column(self.get(f"{name}.bias", (x.shape[1],), "bias"), x)

    def scalar(self, name: str, shape: tuple[int, ...] = (1,)) -> float:
        return float(self.get(name, shape, "scalar").reshape(()))


def column(vector: Map, x: Map) -> Map:
    return vector.reshape(1, -1, *[1] * (x.ndim - 2))


def flat(x: Map) -> Map:  # (B, C, N)
    return x.reshape(*x.shape[:2], -1)


def softmax(x: Map, axis: int = -1) -> Map:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def pooled(x: Map) -> Map:
    """Maxima of windows of 2 positions along height and width, or along a sequence."""
    for axis in range(x.ndim - 1, 1 if x.ndim < 5 else 2, -1):
        count = x.shape[axis] // 2
        pairs = x.take(range(2 * count), axis=axis)
        shape = (*x.shape[:axis], count, 2, *x.shape[axis + 1 :])
        x = pairs.reshape(shape).max(axis=axis + 1)
    return x


def products(theta: Map, phi: Map) -> Map:  # (B, N, M)
    return np.einsum("bcn,bcm->bnm", flat(theta), flat(phi))


def summed(weights: Map, g: Map, like: Map) -> Map:
    y = np.einsum("bnm,bcm->bcn", weights, flat(g))
    return y.reshape(*y.shape[:2], *like.shape[2:])


def concatenated(p: Parameters, name: str, theta: Map, phi: Map) -> Map:
    inner = theta.shape[1]
    w = p.get(f"{name}.weight", (1, 2 * inner, 1, 1), "weight").reshape(2, inner)
    a, b = (np.einsum("c,bcn->bn", v, flat(x)) for v, x in zip(w, (theta, phi), strict=True))
    return np.maximum(a[:, :, None] + b[:, None, :], 0)


def weights_of(
    mode: str, theta: Map, phi: Map, scale: float, p: Parameters, projection: str
) -> Map:
    """f / C(x), (B, N, M); `scale` multiplies the logits of a softmax."""
    if mode == "concatenation":
        f = concatenated(p, projection, theta, phi)
        return f / f.shape[2]
    f = products(theta, phi)
    return f / f.shape[2] if mode == "dot_product" else softmax(scale * f)


def mask_of(p: Parameters, x: Map) -> Map:  # (B, 1, M)
    return softmax(flat(p.conv("conv_mask", x, 1)))


def alexhex7(p: Parameters, x: Map, s: Settings, mode: str) -> Map:
    inner = s.get("inter_channels") or x.shape[1] // 2
    pools, norm = s.get("sub_sample", True), s.get("bn_layer", True)
    pool, inside = (pooled, ".0") if pools else (lambda y: y, "")
    theta, phi = x, pool(x)
    if mode != "gaussian":
        theta, phi = p.conv("theta", x, inner), pool(p.conv(f"phi{inside}", x, inner))
    g = pool(p.conv(f"g{inside}", x, inner))
    y = summed(weights_of(mode, theta, phi, 1.0, p, "concat_project.0"), g, x)
    if not norm:
        return p.conv("W", y, x.shape[1]) + x
    return p.batch_norm("W.1", p.conv("W.0", y, x.shape[1])) + x


def openmmlab(
    p: Parameters, x: Map, s: Settings, power: float = -0.5, centered: bool = False
) -> Map:
    """NonLocalNd of mmcv and GCNet, and the disentangled block (`centered`), whose terms pass
    conv_out one after the other."""
    mode = s.get("mode", "embedded_gaussian")
    inner = max(1, x.shape[1] // s.get("reduction", 2))
    pools = s.get("sub_sample", False)
    pool, inside = (pooled, ".0") if pools else (lambda y: y, "")
    theta, phi = x, pool(x)
    if mode != "gaussian":
        theta = p.conv("theta.conv", x, inner)
        phi = pool(p.conv(f"phi{inside}.conv", x, inner))
    if centered:
        theta, phi = (y - y.mean(axis=(2, 3), keepdims=True) for y in (theta, phi))
    g = pool(p.conv(f"g{inside}.conv", x, inner))
    scaled = s.get("use_scale", True) and mode == "embedded_gaussian"
    scale = (inner**power if scaled else 1.0) / s.get("temperature", 1.0)
    y = summed(weights_of(mode, theta, phi, scale, p, "concat_project.conv"), g, x)
    z = x + conv_out(p, y, x.shape[1], s)
    if not centered:
        return z
    unary = np.einsum("bkm,bcm->bc", mask_of(p, x), flat(g))[:, :, None, None]
    return z + conv_out(p, unary, x.shape[1], s)


def conv_out(p: Parameters, y: Map, out: int, s: Settings) -> Map:
    norm = s.get("norm_cfg")
    y = p.conv("conv_out.conv", y, out, bias=norm is None)
    return p.batch_norm("conv_out.bn", y) if norm else y


def context_block(p: Parameters, x: Map, s: Settings, prefix: str = "") -> Map:
    channels = x.shape[1]
    weights = np.full((x.shape[0], 1, prod(x.shape[2:])), 1 / prod(x.shape[2:]))
    if s.get("pooling_type", "att") == "att":
        weights = softmax(flat(p.conv(f"{prefix}conv_mask", x, 1)))
    c = np.einsum("bkm,bcm->bc", weights, flat(x))[:, :, None, None]

    def transformed(name: str) -> Map:
        hidden = p.conv(f"{name}.0", c, int(channels * s["ratio"]))
        shape = (hidden.shape[1], 1, 1)
        hidden = (hidden - hidden.mean(axis=1, keepdims=True)) / np.sqrt(
            hidden.var(axis=1, keepdims=True) + 1e-5
        )
        hidden = hidden * p.get(f"{name}.1.weight", shape, "norm_scale")
        hidden = np.maximum(hidden + p.get(f"{name}.1.bias", shape, "bias"), 0)
        return p.conv(f"{name}.3", hidden, channels)

    kinds = s.get("fusion_types", ("channel_add",))
    z = x
    if "channel_mul" in kinds:
        z = z / (1 + np.exp(-transformed(f"{prefix}channel_mul_conv")))
    if "channel_add" in kinds:
        z = z + transformed(f"{prefix}channel_add_conv")
    return z


def dnl_detection(p: Parameters, x: Map, s: Settings) -> Map:
    mode = s.get("mode", "embedded_gaussian")
    inner = x.shape[1] // s.get("reduction", 2)
    keys = pooled(x) if s.get("downsample") else x
    theta, phi, g = x, keys, p.conv("g.conv", keys, inner)
    if mode != "gaussian":
        theta, phi = p.conv("theta.conv", x, inner), p.conv("phi.conv", keys, inner)
    if s.get("whiten_type") == "channel":
        theta = theta - theta.mean(axis=1, keepdims=True)
        phi = phi - phi.mean(axis=(2, 3), keepdims=True)
    elif s.get("whiten_type") == "bn-like":
        theta = theta - theta.mean(axis=(0, 1), keepdims=True)
        phi = phi - phi.mean(axis=(0, 2, 3), keepdims=True)
    power = -0.5 if s.get("fixbug") else 0.5
    scale = (theta.shape[1] ** power if s.get("use_scale", True) else 1.0) / s.get("temp", 1.0)
    y = summed(weights_of(mode, theta, phi, scale, p, ""), g, x)
    z = context_block(p, x, s["gcb"], "gc_block.") if s.get("gcb") else x
    return z + conv_out(p, y, x.shape[1], s)


NOWD_AXES = {
    "in_nostd": (2, 3),
    "in": (2, 3),
    "ln_nostd": (1, 2, 3),
    "ln": (1, 2, 3),
    "fln_nostd": (0, 1, 2, 3),
    "fln": (0, 1, 2, 3),
}


def nowd_whitened(x: Map, kind: str) -> Map:
    axes = NOWD_AXES[kind]
    x = x - x.mean(axis=axes, keepdims=True)
    if kind.endswith("nostd"):
        return x
    return x / np.sqrt(x.var(axis=axes, ddof=1, keepdims=True) + 1e-5)


def dnl_segmentation(p: Parameters, x: Map, s: Settings, nowd: bool) -> Map:
    channels, planes = x.shape[1], s["planes"]
    keys = pooled(x) if s.get("downsample", True) else x
    projects = s.get("use_out", False)
    value = p.conv("conv_value", keys, planes if projects else channels, bias=projects)
    out = np.zeros(1)
    if s.get("with_nl", True):
        query, key = p.conv("conv_query", x, planes), p.conv("conv_key", keys, planes)
        kinds = s.get("whiten_type", ["in_nostd"] if nowd else ["channel"])
        mean = np.zeros((1, planes, 1, 1))
        if nowd:
            for kind in [k for k in NOWD_AXES if k in kinds][:1]:
                query, key = nowd_whitened(query, kind), nowd_whitened(key, kind)
        else:
            for kind, axes in {"channel": (2, 3), "spatial": (1,)}.items():
                if kind in kinds:
                    mean = query.mean(axis=axes, keepdims=True)
                    query, key = query - mean, key - key.mean(axis=axes, keepdims=True)
            for kind in ("bn_affine", "bn"):
                if kind in kinds:
                    affine = kind == "bn_affine"
                    query = p.batch_norm(f"query_{kind}", query, affine=affine)
                    key = p.batch_norm(f"key_{kind}", key, affine=affine)
            if "ln_nostd" in kinds:
                mean = query.mean(axis=(1, 2, 3), keepdims=True)
                query, key = query - mean, key - key.mean(axis=(1, 2, 3), keepdims=True)
        f = products(query, key)
        if not (nowd and "nl" in s.get("nowd", ["nl"])):
            f = f / np.sqrt(planes) / s.get("temperature", 1.0)
        out = p.scalar("gamma") * summed(softmax(f), value, x)
        if s.get("with_unary"):
            weights = softmax(
                np.einsum("bc,bcm->bm", mean[:, :, 0, 0] + 0 * key[:, :, 0, 0], flat(key))
            )
            out = out + np.einsum("bm,bcm->bc", weights, flat(value))[:, :, None, None]
    else:
        p.scalar("gamma")
    if s.get("with_gc"):
        unary = np.einsum("bkm,bcm->bc", mask_of(p, keys), flat(value))
        out = out + unary[:, :, None, None]
    if projects:
        out = p.conv("conv_out", out, channels, bias=False)
    return (p.batch_norm("out_bn", out) if s.get("out_bn") else out) + x


def criss_cross(p: Parameters, x: Map, s: Settings, gamma: str, shape: tuple[int, ...]) -> Map:
    channels, (height, width) = x.shape[1], x.shape[2:]
    for _ in range(s.get("recurrence", 1)):
        query, key = (p.conv(f"{k}_conv", x, channels // 8) for k in ("query", "key"))
        value, y = p.conv("value_conv", x, channels), np.zeros_like(x)
        for i in range(height):
            for j in range(width):
                seen = [(i, k) for k in range(width)]
                seen += [(k, j) for k in range(height) if k != i]
                rows, columns = zip(*seen, strict=True)
                f = np.einsum("bc,bcm->bm", query[:, :, i, j], key[:, :, rows, columns])
                y[:, :, i, j] = np.einsum("bm,bcm->bc", softmax(f), value[:, :, rows, columns])
        x = p.scalar(gamma, shape) * y + x
    return x


def sagan(p: Parameters, x: Map, s: Settings) -> Map:
    query, key = (p.conv(f"{k}_conv", x, x.shape[1] // 8) for k in ("query", "key"))
    y = summed(softmax(products(query, key)), p.conv("value_conv", x, x.shape[1]), x)
    return p.scalar("gamma") * y + x


def compact(p: Parameters, x: Map, s: Settings) -> Map:
    groups, orders = s["groups"], range(s.get("order", 2) + 1) if "order" in s else (1,)
    t, phi, g = (p.conv(name, x, s["planes"], bias=False) for name in ("t", "p", "g"))
    parts = []
    for tk, pk, gk in zip(*(np.split(m, groups, axis=1) for m in (t, phi, g)), strict=True):
        y = np.zeros_like(tk)
        for o in orders:
            alpha = 1.0 if "order" not in s else 2e-4**o / factorial(o) * np.exp(-2e-4)
            a = (pk**o * gk).sum(axis=(1, 2, 3), keepdims=True)
            y = y + alpha * a * tk**o
        parts.append(y / np.sqrt(tk[0].size) if s.get("use_scale") else y)
    z = p.conv("z", np.concatenate(parts, axis=1), x.shape[1], bias=False, groups=groups)
    split = z.reshape(z.shape[0], groups, -1)
    split = split - split.mean(axis=2, keepdims=True)
    split = split / np.sqrt(split.var(axis=2, keepdims=True) + 1e-5)
    return p.affine("gn", split.reshape(z.shape)) + x


def spatial(p: Parameters, x: Map, inner: int, scale: float, bias: bool, norm: str) -> Map:
    t, phi, g = (p.conv(name, x, inner, bias=bias) for name in ("t", "p", "g"))
    y = summed(softmax(scale * products(t, phi)), g, x)
    return p.batch_norm(norm, p.conv("z", y, x.shape[1], bias=bias)) + x


def double_attention(p: Parameters, x: Map, s: Settings) -> Map:
    a, b, v = (
        flat(p.conv(name, x, s[count]))
        for name, count in (("convA", "c_m"), ("convB", "c_n"), ("convV", "c_n"))
    )
    gathered = np.einsum("bmi,bni->bmn", a, softmax(b, axis=2))
    z = np.einsum("bmn,bni->bmi", gathered, softmax(v, axis=1))
    z = z.reshape(*z.shape[:2], *x.shape[2:])
    return p.conv("conv_reconstruct", z, x.shape[1]) if s.get("reconstruct") else z


def in_scale(p: Parameters, x: Map, s: Settings) -> Map:
    def embedded(name: str, out: int) -> Map:
        y = p.conv(f"{name}.0", x, out)
        return np.where(y > 0, y, p.scalar(f"{name}.1.weight") * y)

    inner = x.shape[1] // s.get("reduction", 2)
    theta, phi = embedded("conv_match1", inner), embedded("conv_match2", inner)
    return summed(softmax(products(theta, phi)), embedded("conv_assembly", x.shape[1]), x)
