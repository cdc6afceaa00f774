"""Backbone, pooling, dropout, linear map: clips in, logits out."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.checks import one_of

Channels = tuple[float, float, float]

NORMALIZATIONS: dict[str, tuple[Channels, Channels]] = {  # mean and std of RGB in [0, 1]
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "kinetics": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),  # SlowFast, pytorchvideo, Caffe2
}
AVERAGES = ("probabilities", "logits")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # logits (..., K) -> probabilities
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,  # a video bears several labels
}


class Head(nn.Module):
    """Average pool, dropout, classifier: (B, C, T, H, W) -> logits of every window, (B, P, K).

    `window` is the (h, w) of the average pool, over all frames; None pools everything, P = 1. On
    a map larger than the window the classifier slides over it: the fully convolutional test of
    Wang et al. 2018, section 4.1.
    """

    def __init__(
        self, channels: int, num_classes: int, dropout: float, window: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.window = window
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=2)  # (B, C, H, W)
        if self.window is None:
            pooled = pooled.mean(dim=(2, 3), keepdim=True)
        else:
            pooled = F.avg_pool2d(pooled, self.window, stride=1)
        return self.fc(self.dropout(pooled.flatten(2).mT))


class VideoClassifier(nn.Module):
    """A video network: `forward` gives logits in training and in evaluation alike.

    Input (B, 3, T, H, W): uint8 pixels are normalised here, on the device; floats are taken as
    normalised already.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        normalization: str = "imagenet",
        average: str = "probabilities",
        activation: str = "softmax",
    ) -> None:
        super().__init__()
        self.activation = one_of("model.activation", activation, ACTIVATIONS)
        self.backbone = backbone
        self.head = head
        self.average = one_of("model.head_average", average, {name: name for name in AVERAGES})
        mean, std = one_of("model.normalization", normalization, NORMALIZATIONS)
        # On the scale of pixels, 0 to 255; constants of the network, so not in its checkpoints.
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def normalize(self, video: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) uint8 to the network's floats; floats pass unchanged."""
        if video.dtype != torch.uint8:
            return video
        return (video.to(self.mean.dtype) - self.mean) / self.std

    def window_logits(self, video: Tensor) -> Tensor:
        """Logits at every window of the head, (B, P, K)."""
        return self.head(self.backbone(self.normalize(video)))

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, K), the mean over the windows of the head."""
        return self.window_logits(video).mean(dim=1)

    def scores(self, video: Tensor) -> Tensor:
        """Probabilities of the classes, (B, K), averaged over the windows of the head."""
        logits = at_least_float32(self.window_logits(video))
        if self.average == "logits":
            return self.activation(logits.mean(dim=1))
        return self.activation(logits).mean(dim=1)


def at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
