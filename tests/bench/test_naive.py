"""The naive forms compute the same functions as nlnet's forms, so their times are comparable."""

import pytest
import torch

from nlnet.bench.naive import NAIVE
from nlnet.model.non_local.pairwise import PAIRWISE, Maps


@pytest.mark.parametrize("name", NAIVE)
def test_the_naive_form_equals_the_linear_memory_form(name: str):
    torch.manual_seed(0)
    naive, ours = NAIVE[name](6).double(), PAIRWISE[name](6).double()
    after = ours.after_theta()
    d = 6 if after is None else after.shape[0]
    theta, phi, g, mask = (
        torch.randn(size, dtype=torch.float64)
        for size in ((2, 15, d), (2, 9, d), (2, 9, 6), (2, 9))
    )
    maps = Maps(theta, phi, g, mask if ours.unary else None)
    torch.testing.assert_close(naive(maps), ours(maps))
