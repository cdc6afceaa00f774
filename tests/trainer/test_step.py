from copy import deepcopy
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.amp import GradScaler

from nlnet.errors import ArgumentError
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


def soft_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (6, 5), and soft labels of two classes each."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    share = torch.rand(6, 1, dtype=torch.float64, generator=generator)
    rows = torch.eye(5, dtype=torch.float64)
    return logits, share * rows[[0, 4, 2, 2, 1, 3]] + (1 - share) * rows[[1, 4, 0, 3, 2, 0]]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_soft_labels_is_the_cross_entropy_with_their_shares(
    smoothing: float, weighted: bool
):
    logits, label = soft_labels()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5], dtype=torch.float64) if weighted else None
    target = (1 - smoothing) * label.numpy() + smoothing / 5
    factors = weights.numpy() if weighted else np.ones(5)
    expected = -(factors * target * log_softmax(logits.numpy())).sum(1).mean()
    found = classification_loss(logits, label, smoothing, one_label=True, weights=weights)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_hard_label_is_a_soft_label_with_one_class(weighted: bool, smoothing: float):
    logits, _ = soft_labels()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5], dtype=torch.float64) if weighted else None
    label = torch.tensor([0, 4, 2, 2, 1, 3])
    hard = classification_loss(logits, label, smoothing, weights=weights)
    rows = torch.eye(5, dtype=torch.float64)[label]
    soft = classification_loss(logits, rows, smoothing, one_label=True, weights=weights)
    assert float(soft) == pytest.approx(float(hard), rel=1e-12)


def test_weights_of_several_labels_weigh_the_classes():
    logits, label = soft_labels()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5], dtype=torch.float64)
    chance = 1 / (1 + np.exp(-logits.numpy()))
    y = label.numpy()
    terms = -(y * np.log(chance) + (1 - y) * np.log(1 - chance))
    found = float(classification_loss(logits, label, 0.0, weights=weights))
    assert found == pytest.approx((weights.numpy() * terms).mean(), rel=1e-12)


def test_smoothing_of_several_labels_is_refused():
    with pytest.raises(ArgumentError, match=r"^label_smoothing=0\.1 "):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 3), 0.1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", [[12], [6, 6], [4, 4, 4], [7, 5], [1, 10, 1]])
def test_micro_batches_give_the_gradient_of_one_large_batch(
    tiny: ModuleType, sizes: list[int], weighted: bool
):
    rows = list(range(12))
    parts, first = [], 0
    for size in sizes:
        parts.append(tiny.clips(0, rows[first : first + size]))
        first += size
    model = tiny.make_state(norm=False, dropout=0.0).model
    weights = torch.linspace(0.5, 2, tiny.NUM_CLASSES) if weighted else None
    settings = tiny.make_settings(label_smoothing=0.1, class_weights=weights)
    sums = accumulate_gradients(model, parts, settings, GradScaler("cpu", enabled=False))
    found = [p.grad.clone() for p in model.parameters()]

    model.zero_grad()
    whole = tiny.clips(0, rows)
    logits = model(whole.video)
    loss = classification_loss(logits, whole.label, 0.1, weights=weights)
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
    sums, norm = train_step(state, state.model, settings, batches, lr=1.0, stop=StopRequest())
    assert sums.faults == 0  # a loss scaler handles an overflow
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


@pytest.mark.parametrize("fused", [True, False])
def test_momentum_is_that_of_the_steps_that_were_made(tiny: ModuleType, fused: bool):
    """torch's fused SGD changes its momentum in a step that the loss scaler skips."""
    weights = []
    for overflow in (True, False):
        state = tiny.make_state(norm=False, dropout=0.0)
        state.optimizer = torch.optim.SGD(
            state.model.parameters(), lr=1.0, momentum=0.9, nesterov=True, fused=fused
        )
        state.scaler = GradScaler("cpu", init_scale=2.0**10)
        batches, stop = [tiny.clips(0, [0, 1, 2])], StopRequest()
        if overflow:
            hook = state.model.head.bias.register_hook(lambda grad: grad + float("inf"))
            train_step(state, state.model, tiny.make_settings(), batches, lr=1.0, stop=stop)
            hook.remove()
        for _ in range(2):
            train_step(state, state.model, tiny.make_settings(), batches, lr=1.0, stop=stop)
        weights.append([p.detach().clone() for p in state.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_an_overflow_of_the_scaled_loss_skips_the_step(tiny: ModuleType):
    scaler = GradScaler("cpu", init_scale=2.0**10)
    before, after, norm = one_step(tiny, scaler, overflow=True, clip_grad_norm=1.0)
    assert norm == float("inf")
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("fault", ["loss", "gradient"])
@pytest.mark.parametrize("scaler", [None, 0.5])
def test_a_step_that_is_not_finite_changes_nothing(
    tiny: ModuleType, fault: str, scaler: float | None
):
    """Batch norm statistics and momentum included, also with a loss scaler below 1."""
    state = tiny.make_state()
    if scaler is not None:
        state.scaler = GradScaler("cpu", init_scale=scaler)
    batches, settings = [tiny.clips(0, [0, 1, 2])], tiny.make_settings(clip_grad_norm=1.0)
    train_step(state, state.model, settings, batches, lr=0.1, stop=StopRequest())
    before = deepcopy((state.model.state_dict(), state.optimizer.state_dict()))
    state.model.fault = fault
    sums, _ = train_step(state, state.model, settings, batches, lr=0.1, stop=StopRequest())
    assert sums.faults == 1
    after = (state.model.state_dict(), state.optimizer.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    state.model.fault = None
    sums, _ = train_step(state, state.model, settings, batches, lr=0.1, stop=StopRequest())
    assert sums.faults == 0
    weight = "head.weight"
    assert not torch.equal(state.model.state_dict()[weight], before[0][weight])
    count = "backbone.norm1.num_batches_tracked"
    assert state.model.state_dict()[count] == before[0][count] + 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_forward_and_backward_do_not_wait_for_the_gpu(tiny: ModuleType):
    device = torch.device("cuda")
    state, settings = tiny.make_state(), tiny.make_settings(device=device)
    state.model.to(device)
    batches = [tiny.clips(0, [0, 1, 2]).to(device) for _ in range(2)]
    scaler = GradScaler("cuda", enabled=False)
    accumulate_gradients(state.model, batches, settings, scaler)  # it loads the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        accumulate_gradients(state.model, batches, settings, scaler)
    finally:
        torch.cuda.set_sync_debug_mode("default")
