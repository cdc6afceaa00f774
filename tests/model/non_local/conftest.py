"""Sizes at which few positions are several blocks."""

import pytest

from nlnet.model.non_local.kernels import concatenation, softmax


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the kernels of linear memory are taken from a few positions on."""
    monkeypatch.setattr(softmax, "BLOCK", 32)
    monkeypatch.setattr(softmax, "SMALL", 64)
    monkeypatch.setattr(softmax, "WIDE", 0)
    monkeypatch.setattr(concatenation, "SMALL", 64)
