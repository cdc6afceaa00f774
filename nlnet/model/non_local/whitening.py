"""Means and deviations that are taken away from theta and phi before the pairwise function."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Axes = tuple[int, ...]
BATCH, POSITIONS, CHANNELS = 0, 1, 2  # axes of tokens (B, N, d)


@dataclass(frozen=True)
class Whitening:
    """x minus its mean over some axes, divided by its deviation if `deviation`.

    The variance is unbiased and has `eps` added. Source: Yin et al. 2020, Disentangled Non-Local
    Neural Networks, section 3, takes the mean over the positions. Published implementations take
    it over other axes, too.
    """

    theta: Axes = (POSITIONS,)
    phi: Axes = (POSITIONS,)
    deviation: bool = False
    eps: float = 1e-5

    def of(self, x: Tensor, axes: Axes) -> tuple[Tensor, Tensor]:
        """The whitened tokens, and the mean that was taken away from them."""
        mean = x.mean(dim=axes, keepdim=True)
        if not self.deviation:
            return x - mean, mean
        return (x - mean) / (x.var(dim=axes, keepdim=True) + self.eps).sqrt(), mean


def whiten(
    steps: Sequence[Whitening], theta: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """theta, phi, and the mean of theta in the last step: (B, 1, d) with a mean over positions."""
    mean = None
    for step in steps:
        theta, mean = step.of(theta, step.theta)
        phi, _ = step.of(phi, step.phi)
    return theta, phi, mean
