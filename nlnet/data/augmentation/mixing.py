"""Mix pairs of clips and their labels: mixup and CutMix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import Dataset

from nlnet.clip import Clip, Sample


class _Box(NamedTuple):
    """A rectangle of a view, from the first row and column to those after the last ones."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Mixing:
    """How pairs are mixed: mixup (Zhang et al.) or CutMix (Yun et al.).

    `mixup` and `cutmix` are the two parameters of Beta distributions, from which the share of a
    clip is drawn; 0 switches one of the two off. If both are on, each has probability 1/2. A pair
    is mixed with `probability`.
    """

    mixup: float
    cutmix: float
    probability: float

    def __call__(
        self, first: Clip, second: Clip, rng: np.random.Generator
    ) -> tuple[tuple[Tensor, Tensor], float]:
        """The videos of the two mixed clips, and the share that each clip keeps of itself."""
        a, b = first.video, second.video
        if rng.random() >= self.probability:
            return (a, b), 1.0
        is_mixup = self.cutmix == 0 or (self.mixup > 0 and rng.random() < 0.5)
        alpha = self.mixup if is_mixup else self.cutmix
        share = float(rng.beta(alpha, alpha))
        if is_mixup:
            return (blended(a, b, share), blended(b, a, share)), share
        height, width = a.shape[2:]
        box = _cut_box(height, width, share, rng)
        area = (box.bottom - box.top) * (box.right - box.left)
        return (_pasted(a, b, box), _pasted(b, a, box)), 1 - area / (height * width)


def blended(a: Tensor, b: Tensor, share: float) -> Tensor:
    """share a + (1 - share) b of uint8 videos, rounded."""
    return torch.lerp(b.float(), a.float(), share).round_().to(torch.uint8)


def _cut_box(height: int, width: int, share: float, rng: np.random.Generator) -> _Box:
    """A box with 1 - share of the area, centered anywhere; what is outside the view is cut off."""
    side = np.sqrt(1 - share)
    h, w = round(height * side), round(width * side)
    top, left = int(rng.integers(height)) - h // 2, int(rng.integers(width)) - w // 2
    return _Box(max(top, 0), max(left, 0), min(top + h, height), min(left + w, width))


def _pasted(under: Tensor, over: Tensor, box: _Box) -> Tensor:
    video = under.clone()
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    video[:, :, rows, columns] = over[:, :, rows, columns]
    return video


class MixedPairs(Dataset[Sample]):
    """The samples of a data set, of which those at places 2i and 2i + 1 of a batch are mixed.

    All randomness comes from the seed and the keys of a pair. A pair is at two neighboring places
    of the global batch. The mixed clips therefore depend neither on the number of workers nor,
    if each micro-batch has an even number of videos, on the number of ranks and accumulation
    steps. All labels become soft labels, (K,) float32: the shares of the classes in a clip.
    """

    def __init__(
        self, dataset: Dataset[Sample], mixing: Mixing, *, num_classes: int, seed: int
    ) -> None:
        self._dataset = dataset
        self._mixing = mixing
        self._num_classes = num_classes
        self._seed = seed

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        """A sample that is not mixed, with soft labels."""
        sample = self._dataset[key]
        clips = tuple(clip._replace(label=self._soft(clip.label)) for clip in sample.clips)
        return sample._replace(clips=clips)

    def __getitems__(self, keys: Sequence[tuple[int, ...]]) -> list[Sample]:
        """The samples of a batch; torch's loader calls this function with the keys."""
        samples = [self[key] for key in keys]
        for i in range(0, len(keys) - 1, 2):
            entropy = [self._seed, *keys[i], *keys[i + 1]]
            samples[i : i + 2] = self._mix(samples[i], samples[i + 1], entropy)
        return samples

    def _soft(self, label: Tensor) -> Tensor:
        return one_hot(label, self._num_classes).float() if label.ndim == 0 else label

    def _mix(self, first: Sample, second: Sample, entropy: list[int]) -> list[Sample]:
        """Mix clip i of one video with clip i of the other one."""
        rng = np.random.default_rng(entropy)
        mixed: list[tuple[Clip, Clip]] = []
        for a, b in zip(first.clips, second.clips, strict=False):  # an unreadable video has none
            (video_a, video_b), share = self._mixing(a, b, rng)
            labels = (torch.lerp(y, x, share) for x, y in ((a.label, b.label), (b.label, a.label)))
            mixed.append(
                (
                    a._replace(video=video_a, label=next(labels)),
                    b._replace(video=video_b, label=next(labels)),
                )
            )
        if not mixed:
            return [first, second]
        clips_a, clips_b = zip(*mixed, strict=True)
        return [first._replace(clips=clips_a), second._replace(clips=clips_b)]
