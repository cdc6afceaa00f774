"""Where denormal numbers are 0: inside the block, in the threads that begin there, in every job."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import pytest
import torch

from nlnet.config import ResNetConfig, RunConfig
from nlnet.errors import UserError
from nlnet.numerics.denormals import flushed_denormals, flushes_denormals

SUPPORTED = torch.set_flush_denormal(True)
torch.set_flush_denormal(False)
pytestmark = pytest.mark.skipif(not SUPPORTED, reason="this processor has no such setting")


def test_denormals_are_flushed_inside_the_block_only():
    assert not flushes_denormals()
    with flushed_denormals():
        assert flushes_denormals()
        with flushed_denormals():
            pass
        assert flushes_denormals()
    assert not flushes_denormals()


def test_the_setting_ends_with_an_error():
    with pytest.raises(UserError), flushed_denormals():
        raise UserError("")
    assert not flushes_denormals()


def test_a_thread_inherits_the_setting():
    found = []
    with flushed_denormals():
        thread = Thread(target=lambda: found.append(flushes_denormals()))
        thread.start()
        thread.join()
    assert found == [True]


# Job -> the first function that it calls, and its arguments.
JOBS: dict[str, tuple[str, tuple[object, ...]]] = {
    "nlnet.jobs.train.train": ("apply_allocator", (RunConfig(ResNetConfig()), Path())),
    "nlnet.jobs.evaluate.read_base": ("typed_value", (["weights=a"],)),
    "nlnet.jobs.evaluate.evaluate_run": ("_weights_of", (RunConfig(ResNetConfig()), Path())),
    "nlnet.jobs.predict.predict": ("_check", ("demo", [], Mock())),
    "nlnet.jobs.attend.attend_video": ("_parse_query", ("demo", None, None, "cpu", Mock())),
    "nlnet.jobs.report.report": ("require_libraries", ([], Mock())),
    "nlnet.jobs.export.export": ("one_of", ("demo", "onnx")),
    "nlnet.serve.server.serve": ("_check", ("demo", None, "cpu", Mock())),
    "nlnet.bench.operations.run.measure_operations": ("build_device", (Mock(),)),
    "nlnet.bench.steps.run.measure_steps": ("build_device", (Mock(),)),
    "nlnet.bench.steps.compete._serve": ("build_device", (None, None, Mock(), 1)),
    "nlnet.bench.reading.training._measure": ("_compose", ("i3d_tiny", Path(), Mock(), 1)),
}


@pytest.mark.parametrize("name", JOBS)
def test_every_job_that_computes_flushes_denormals(name: str, monkeypatch: pytest.MonkeyPatch):
    module, _, function = name.rpartition(".")
    first, arguments = JOBS[name]
    job: Callable[..., object] = getattr(import_module(module), function)

    def stop(*_: object, **__: object) -> None:
        raise UserError(str(flushes_denormals()))

    monkeypatch.setattr(f"{module}.{first}", stop)
    threads = torch.get_num_threads()
    try:
        with pytest.raises(UserError, match="True"):
            job(*arguments)
    finally:
        torch.set_num_threads(threads)
