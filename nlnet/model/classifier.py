"""Backbone, pooling, dropout and a linear map: clips to logits."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.errors import choose

Channels = tuple[float, float, float]

NORMALIZATIONS: dict[str, tuple[Channels, Channels]] = {  # mean and std of RGB in [0, 1]
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "kinetics": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),  # SlowFast, pytorchvideo, Caffe2
}
AVERAGES = {  # what is averaged over the windows of the head
    "probabilities": "activation, then mean",
    "logits": "mean, then activation",
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # logits (..., K) -> probabilities
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,  # for several labels a video
}


class Head(nn.Module):
    """Average pool, dropout, classifier: (B, C, T, H, W) -> logits of every window, (B, P, K).

    The average pool is over all frames and a `window` (h, w), or over all positions if `window` is
    None; then P = 1. On a map larger than the window the classifier is applied at each place of
    the window: the fully convolutional test of Wang et al. 2018, section 4.1.
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
    """A video network: clips (B, 3, T, H, W) -> logits (B, K), in training and in evaluation.

    Clips of uint8 are pixels, which are normalized here, on the device of the network. Clips of
    floats are used as they are. `head_average` is a name in AVERAGES, `activation` in ACTIVATIONS,
    `normalization` in NORMALIZATIONS; raises ArgumentError for other names.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        normalization: str = "imagenet",
        head_average: str = "probabilities",
        activation: str = "softmax",
    ) -> None:
        super().__init__()
        self.activation = choose("activation", activation, ACTIVATIONS)
        self.backbone = backbone
        self.head = head
        choose("head_average", head_average, AVERAGES)
        self.head_average = head_average
        mean, std = choose("normalization", normalization, NORMALIZATIONS)
        # For pixels from 0 to 255. They are constants of the network: not in its checkpoints.
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def normalize(self, video: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) of uint8 to normalized floats; floats are returned unchanged."""
        if video.dtype != torch.uint8:
            return video
        return (video.to(self.mean.dtype) - self.mean) / self.std

    def window_logits(self, video: Tensor) -> Tensor:
        """Logits of every window of the head, (B, P, K)."""
        return self.head(self.backbone(self.normalize(video)))

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, K), the mean over all spatial windows that the head classifies."""
        return self.window_logits(video).mean(dim=1)

    def scores(self, video: Tensor) -> Tensor:
        """Probabilities of the classes, (B, K), averaged over the windows of the head."""
        return self.average(self.window_logits(video))

    def average(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes, (B, K), from the logits of every window, (B, P, K)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.head_average == "logits":
            return self.activation(logits.mean(dim=1))
        return self.activation(logits).mean(dim=1)
