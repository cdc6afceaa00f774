"""What the tests of the benchmarks share: a run and shapes that take seconds."""

import pytest

from nlnet.bench.operations.shapes import Shape
from nlnet.config import BenchmarkConfig, ClipConfig, FolderConfig, ModelConfig, NonLocalConfig


@pytest.fixture
def run() -> BenchmarkConfig:
    """A C2D-50 with one block, on clips of 2 x 32 x 32."""
    return BenchmarkConfig()


@pytest.fixture
def shape() -> Shape:
    return Shape("res3", channels=8, frames=2, side=4, pooled=True)
