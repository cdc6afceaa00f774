"""Small blocks for the kernels, so that few positions are several blocks."""

import pytest

from nlnet.model.non_local.kernels import concatenation, softmax


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the kernels of linear memory run for a few positions already."""
    monkeypatch.setattr(softmax, "BLOCK", 32)
    monkeypatch.setattr(softmax, "SMALL", 64)
    monkeypatch.setattr(softmax, "WIDE", 0)
    monkeypatch.setattr(concatenation, "SMALL", 64)
