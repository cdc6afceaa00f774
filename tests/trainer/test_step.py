from types import ModuleType

import numpy as np
import pytest
import torch
from torch.amp import GradScaler

from nlnet.errors import ArgumentError, UserError
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.step import (
    accumulate_gradients,
    autocast,
    classification_loss,
    place,
    step_seed,
    train_step,
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


def test_the_loss_of_several_labels_is_binary_cross_entropy():
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = (torch.arange(30).view(6, 5) % 3 == 0).double()
    chance = 1 / (1 + np.exp(-logits.numpy()))
    expected = -np.where(label.numpy() > 0, np.log(chance), np.log(1 - chance)).mean()
    assert float(classification_loss(logits, label, 0.0)) == pytest.approx(expected, rel=1e-12)


def test_smoothing_of_several_labels_is_refused():
    with pytest.raises(ArgumentError, match=r"^label_smoothing=0\.1 "):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 3), 0.1)


@pytest.mark.parametrize("sizes", [[12], [6, 6], [4, 4, 4], [7, 5], [1, 10, 1]])
def test_micro_batches_give_the_gradient_of_one_large_batch(tiny: ModuleType, sizes: list[int]):
    rows = list(range(12))
    parts, first = [], 0
    for size in sizes:
        parts.append(tiny.clips(0, rows[first : first + size]))
        first += size
    model = tiny.make_state(norm=False, dropout=0.0).model
    settings = tiny.make_settings(label_smoothing=0.1)
    sums = accumulate_gradients(model, parts, settings, GradScaler("cpu", enabled=False))
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
def test_autocast_uses_the_given_precision(tiny: ModuleType, precision: torch.dtype | None):
    with autocast(tiny.CPU, precision):
        assert tiny.TinyNet()(tiny.clips(0, [1]).video).dtype == (precision or torch.float32)


def test_channels_last_changes_only_the_layout(tiny: ModuleType):
    batch = tiny.clips(0, [1, 2])
    placed = place(batch, tiny.CPU, channels_last=True)
    assert placed.video.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(placed.video, batch.video)


def one_step(
    tiny: ModuleType, scaler: GradScaler | None = None, overflow: bool = False, **settings
) -> tuple[list[torch.Tensor], list[torch.Tensor], float]:
    """Make a step of SGD at a rate of 1. Return the weights before and after, and the norm."""
    state = tiny.make_state(dropout=0.0)
    state.optimizer = torch.optim.SGD(state.model.parameters(), lr=1.0)
    state.scaler = scaler or GradScaler("cpu", enabled=False)
    if overflow:
        state.model.head.bias.register_hook(lambda grad: grad + float("inf"))
    before = [p.detach().clone() for p in state.model.parameters()]
    batches = [tiny.clips(0, [0, 1, 2]), tiny.clips(0, [3, 4, 5])]
    settings = tiny.make_settings(accumulate=2, **settings)
    _, norm = train_step(state, state.model, settings, batches, lr=1.0, stop=StopRequest())
    return before, [p.detach() for p in state.model.parameters()], norm


def length(moves: list[torch.Tensor]) -> float:
    return torch.stack([move.double().square().sum() for move in moves]).sum().sqrt().item()


@pytest.mark.parametrize("limit", [0.01, 100.0])
def test_clipped_gradients_keep_their_direction(tiny: ModuleType, limit: float):
    before, free, norm = one_step(tiny)
    before_clipped, clipped, norm_said = one_step(tiny, clip_grad_norm=limit)
    free_moves = [b - a for a, b in zip(before, free, strict=True)]
    moves = [b - a for a, b in zip(before_clipped, clipped, strict=True)]
    assert norm_said == norm == pytest.approx(length(free_moves), rel=1e-5)
    assert length(moves) == pytest.approx(min(norm, limit), rel=1e-4)
    for move, free_move in zip(moves, free_moves, strict=True):
        torch.testing.assert_close(move, free_move * min(1, limit / norm), rtol=1e-3, atol=1e-6)


def test_a_loss_scaler_does_not_change_a_step(tiny: ModuleType):
    """A power of two scales exactly, and gradients are clipped after they are unscaled."""
    _, plain, norm = one_step(tiny, clip_grad_norm=0.05)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    _, scaled, scaled_norm = one_step(tiny, scaler, clip_grad_norm=0.05)
    assert scaled_norm == norm
    for a, b in zip(plain, scaled, strict=True):
        assert torch.equal(a, b)


def test_an_overflow_of_the_scaled_loss_skips_the_step(tiny: ModuleType):
    scaler = GradScaler("cpu", init_scale=2.0**10)
    before, after, norm = one_step(tiny, scaler, overflow=True, clip_grad_norm=1.0)
    assert norm == float("inf")
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert scaler.get_scale() == 2.0**9
    with pytest.raises(UserError, match=r"gradient \(inf\) is not finite"):
        one_step(tiny, overflow=True)
