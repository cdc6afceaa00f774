from types import ModuleType

import numpy as np
import pytest
import torch
from torch.amp import GradScaler

from nlnet.errors import UsageError
from nlnet.trainer.step import (
    accumulate_gradients,
    autocast,
    classification_loss,
    place,
    step_seed,
)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_spreads_its_share_over_all_classes(smoothing: float):
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 4, 2, 2, 1, 3])
    target = np.full((6, 5), smoothing / 5)
    target[np.arange(6), label.numpy()] += 1 - smoothing
    expected = -(target * log_softmax(logits.numpy())).sum(1).mean()
    assert float(classification_loss(logits, label, smoothing)) == pytest.approx(
        expected, rel=1e-12
    )


def test_several_labels_are_binary_problems():
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = (torch.arange(30).view(6, 5) % 3 == 0).double()
    chance = 1 / (1 + np.exp(-logits.numpy()))
    expected = -np.where(label.numpy() > 0, np.log(chance), np.log(1 - chance)).mean()
    assert float(classification_loss(logits, label, 0.0)) == pytest.approx(expected, rel=1e-12)


def test_smoothing_of_several_labels_is_refused():
    with pytest.raises(UsageError, match=r"trainer\.label_smoothing"):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 3), 0.1)


@pytest.mark.parametrize("sizes", [[12], [6, 6], [4, 4, 4], [7, 5], [1, 10, 1]])
def test_micro_batches_add_up_to_one_large_batch(tiny: ModuleType, sizes: list[int]):
    rows = list(range(12))
    parts, first = [], 0
    for size in sizes:
        parts.append(tiny.clips(0, rows[first : first + size]))
        first += size
    model = tiny.make_state(norm=False, dropout=0.0).model
    recipe = tiny.make_recipe(label_smoothing=0.1)
    sums = accumulate_gradients(model, parts, recipe, GradScaler("cpu", enabled=False))
    found = [p.grad.clone() for p in model.parameters()]

    model.zero_grad()
    whole = tiny.clips(0, rows)
    logits = model(whole.video)
    loss = torch.nn.functional.cross_entropy(logits, whole.label, label_smoothing=0.1)
    loss.backward()
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-7)
    hits = (logits.argmax(1) == whole.label).sum()
    assert sums.tolist() == [pytest.approx(12 * loss.item(), rel=1e-6), hits, sums[2], 12]


def test_seeds_differ_by_run_and_step():
    seeds = {step_seed(seed, step) for seed in range(10) for step in range(100)}
    assert len(seeds) == 1000
    assert step_seed(1, 2) == step_seed(1, 2)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_autocast_is_what_was_asked_for(tiny: ModuleType, precision: torch.dtype | None):
    with autocast(tiny.CPU, precision):
        assert tiny.TinyNet()(tiny.clips(0, [1]).video).dtype == (precision or torch.float32)


def test_channels_last_changes_the_layout_alone(tiny: ModuleType):
    batch = tiny.clips(0, [1, 2])
    placed = place(batch, tiny.CPU, channels_last=True)
    assert placed.video.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(placed.video, batch.video)
