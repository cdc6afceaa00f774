"""What the tests of the benchmarks share: a run and shapes that take seconds."""

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir

from nlnet.bench.operations.shapes import Shape
from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import BenchmarkConfig, register_schemas

SMALL = ("data.clip.num_frames=2", "data.clip.crop_size=32", "batch=2", "dist.device=cpu")

ComposeBenchmark = Callable[..., BenchmarkConfig]


@pytest.fixture
def benchmark_run() -> ComposeBenchmark:
    """A function from an experiment and overrides to the configuration of a small benchmark."""

    def run(experiment: str, *overrides: str) -> BenchmarkConfig:
        register_schemas()
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = compose("benchmark", [f"+experiment={experiment}", *SMALL, *overrides])
        return to_run(cfg)

    return run


@pytest.fixture
def shape() -> Shape:
    """A map so small that every call takes milliseconds."""
    return Shape("res3", channels=16, frames=2, side=4, pooled=True)
