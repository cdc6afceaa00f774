"""The classifier: normalization, logits in both modes, windows, scores."""

import pytest
import torch
from torch import nn

from nlnet.model.classifier import ACTIVATIONS, NORMALIZATIONS, Head, VideoClassifier


class Pixels(nn.Module):
    """A backbone that returns its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def classifier(**keywords) -> VideoClassifier:
    torch.manual_seed(0)
    head = Head(3, 5, dropout=0.5, window=keywords.pop("window", None))
    nn.init.normal_(head.fc.weight)
    return VideoClassifier(Pixels(), head, **keywords).double()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_pixels_are_normalized_and_floats_are_not(normalization: str):
    model = classifier(normalization=normalization)
    mean, std = NORMALIZATIONS[normalization]
    video = torch.randint(0, 256, (2, 3, 4, 6, 6), dtype=torch.uint8)
    expected = (video.double() / 255 - torch.tensor(mean).double().view(3, 1, 1, 1)) / torch.tensor(
        std
    ).double().view(3, 1, 1, 1)
    assert torch.allclose(model.normalize(video), expected, atol=1e-6)
    assert model.normalize(expected) is expected


def test_forward_is_logits_in_training_and_in_evaluation():
    model = classifier()
    model.head.dropout.p = 0.0
    video = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64)
    expected = model.head.fc(video.mean(dim=(2, 3, 4)))
    assert torch.allclose(model.train()(video), expected)
    assert torch.allclose(model.eval()(video), expected)


@pytest.mark.parametrize("window", [None, (6, 6), (4, 6), (3, 2)])
def test_the_classifier_is_applied_at_each_window(window: tuple[int, int] | None):
    model = classifier(window=window).eval()
    video = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64)
    h, w = window or (6, 6)
    expected = [
        model.head.fc(video[:, :, :, top : top + h, left : left + w].mean(dim=(2, 3, 4)))
        for top in range(6 - h + 1)
        for left in range(6 - w + 1)
    ]
    assert torch.allclose(model.window_logits(video), torch.stack(expected, dim=1))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_scores_average_probabilities_or_logits(activation: str):
    video = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64)
    per_window = classifier(window=(3, 3)).eval().window_logits(video)
    act = {"softmax": lambda x: x.exp() / x.exp().sum(-1, keepdim=True), "sigmoid": torch.sigmoid}
    of_logits = classifier(window=(3, 3), head_average="logits", activation=activation).eval()
    of_probabilities = classifier(window=(3, 3), activation=activation).eval()
    assert torch.allclose(of_logits.scores(video), act[activation](per_window.mean(dim=1)))
    assert torch.allclose(of_probabilities.scores(video), act[activation](per_window).mean(dim=1))


def test_the_constants_of_the_normalization_are_not_in_a_checkpoint():
    assert set(classifier().state_dict()) == {"head.fc.weight", "head.fc.bias"}
