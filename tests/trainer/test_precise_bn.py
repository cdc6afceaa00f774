from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nlnet.clip import ClipBatch
from nlnet.trainer.precise_bn import precise_bn


def test_statistics_are_those_of_all_inputs(tiny: ModuleType):
    """The oracle pools the inputs of each norm in float64. The batches differ in size."""
    model = tiny.make_state().model
    batches = [tiny.clips(0, [0, 1, 2]), tiny.clips(0, [3, 4, 5, 6, 7])]
    first, second = [], []
    with torch.no_grad():
        for batch in batches:
            x = model.backbone.conv1(batch.video.float() / 127.5 - 1)
            first.append(x)
            # The second norm gets inputs that are normalized by the statistics of this batch.
            second.append(model.backbone.conv2(F.relu(F.batch_norm(x, None, None, training=True))))
    precise_bn(model, batches)
    for norm, inputs in ((model.backbone.norm1, first), (model.backbone.norm2, second)):
        columns = [x.transpose(0, 1).flatten(1).double().numpy() for x in inputs]
        pooled = np.concatenate(columns, axis=1)
        np.testing.assert_allclose(norm.running_mean.numpy(), pooled.mean(1), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(norm.running_var.numpy(), pooled.var(1, ddof=1), rtol=1e-5)


def test_the_variance_is_accurate_if_the_mean_is_large():
    """E[x^2] - E[x]^2 with a mean of 1000 standard deviations."""
    norm = torch.nn.BatchNorm3d(1)
    video = 1000 + torch.randn(4, 1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    nothing = torch.empty(0)
    precise_bn(norm, [ClipBatch(video, nothing, nothing, ())])
    assert norm.running_var.item() == pytest.approx(video.double().var().item(), rel=1e-5)


def test_the_hooks_are_removed(tiny: ModuleType):
    model = tiny.make_state().model
    precise_bn(model, [tiny.clips(0, [0, 1])])
    before = model.backbone.norm1.running_mean.clone()
    model.eval()
    model(tiny.clips(0, [5]).video)
    assert torch.equal(model.backbone.norm1.running_mean, before)


@pytest.mark.slow
def test_all_ranks_get_the_same_statistics(
    tiny: ModuleType, run_ranks: Callable[..., int], tmp_path
):
    assert run_ranks(tmp_path, 2, only="precise_bn") == 0
    ranks = [torch.load(tmp_path / f"buffers{i}.pt", weights_only=True) for i in range(2)]
    model = tiny.make_state().model
    precise_bn(model, tiny.loader_at()(0, 0))
    for name, buffer in model.named_buffers():
        assert torch.equal(ranks[0][name], ranks[1][name])
        if name.startswith(
            "backbone.norm1.running"
        ):  # its inputs do not depend on the number of ranks
            torch.testing.assert_close(ranks[0][name], buffer, rtol=1e-6, atol=1e-7)
