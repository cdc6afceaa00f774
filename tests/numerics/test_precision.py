"""The precision that `auto` chooses: by the processor and a measurement that is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nlnet.config import TrainerConfig
from nlnet.jobs.arithmetic import describe_precision
from nlnet.numerics import precision
from nlnet.numerics.precision import choose_precision
from nlnet.trainer.build import build_precision
from tests.cli.commands import run_config

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    precision._choose_on_cpu.cache_clear()
    yield
    precision._choose_on_cpu.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, *features: str, share: float | None = None) -> None:
    monkeypatch.setattr(precision, "cpu_features", lambda: frozenset(features))
    if share is not None:
        monkeypatch.setattr(precision, "_time_share", lambda: share)


def test_a_processor_without_bf16_computes_in_float32(monkeypatch: pytest.MonkeyPatch):
    pretend(monkeypatch, "avx2", "avx512f", share=0.1)
    assert choose_precision(CPU).dtype is None
    lines = describe_precision(run_config("trainer.precision=auto"), CPU)
    assert lines == ["trainer.precision=auto: fp32; the processor has no arithmetic in bfloat16"]


@pytest.mark.parametrize(("share", "dtype"), [(0.5, torch.bfloat16), (0.95, None)])
def test_a_processor_with_bf16_must_be_faster_with_it(
    share: float, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
):
    pretend(monkeypatch, "avx2", "amx_bf16", share=share)
    assert choose_precision(CPU).dtype == dtype
    assert build_precision(TrainerConfig(precision="auto"), CPU) == dtype
    (line,) = describe_precision(run_config("trainer.precision=auto"), CPU)
    assert f"{share:.2f}" in line
    assert "amx_bf16" in line


def test_the_measurement_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "SIZE", 32)
    first = precision._time_share()
    assert 0 < first < 1000
    monkeypatch.setattr(torch, "ones", None)  # nothing is measured again
    assert precision._time_share() == first


def test_a_given_precision_needs_no_line_and_a_gpu_has_bf16():
    assert describe_precision(run_config("trainer.precision=bf16"), CPU) == []
    assert choose_precision(torch.device("cuda")).dtype == torch.bfloat16
