"""The Triton kernels of wide heads without a GPU: interpreted, compiled, absent."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nlnet.model.non_local.kernels.split_head_check import split_head_works

HERE = Path(__file__).parent
LEAST_SHARED_MEMORY = 99 * 1024  # bytes for a program on devices of capability 8.6, 8.9 and 12.0

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed on this platform"
)


@needs_triton
@pytest.mark.parametrize(
    "marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)], ids=["fast", "slow"]
)
def test_under_the_interpreter(marked: str):
    """The mathematics of the kernels, on a CPU, in a process that imports Triton as interpreter."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", marked]
    command += ["-p", "no:cacheprovider", str(HERE / "interpreted.py")]
    done = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        cwd=HERE.parents[3],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout


def test_nothing_is_said_where_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    """As on Windows and macOS; a warning would be an error here."""
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(
        sys.modules, "nlnet.model.non_local.kernels.split_head_kernels", raising=False
    )
    assert not split_head_works(torch.device("cpu"), torch.bfloat16, 512, 512)
    split_head_works.cache_clear()


class _DeviceOf:
    """A driver of Triton for a device that is not at hand: enough to compile for it."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> object:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compile_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes Triton compile for a capability, without its cache of compilations."""
    import triton
    from triton.runtime.driver import driver

    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    return lambda capability: monkeypatch.setattr(driver, "_active", _DeviceOf(capability))


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability, d", [(80, 512), (90, 1024)])
def test_the_kernels_compile_and_fit_in_shared_memory(
    capability: int, d: int, compile_for: Callable[[int], None]
):
    """For the head sizes of a ResNet-50, by the compiler of NVIDIA that is a part of Triton."""
    from triton.runtime.jit import MockTensor

    from nlnet.model.non_local.kernels import split_head, split_head_kernels

    compile_for(capability)
    half, single = MockTensor(torch.bfloat16), MockTensor(torch.float32)
    e = 512
    calls = [
        (split_head_kernels.attend_kernel, e, ((half,) * 3, (half, single)), {}),
        *(
            (
                split_head_kernels.gradient_kernel,
                e if of_values else d,
                ((half,) * 4, half, (single, single)),
                {"OF_VALUES": of_values, "BY_QUERY": by_query},
            )
            for of_values, by_query in ((False, True), (False, False), (True, False))
        ),
    ]
    for kernel, channels, pointers, flags in calls:
        width = split_head._width(channels)
        tiles = split_head._tiles(width, torch.bfloat16)
        compiled = kernel.warmup(
            *pointers,
            (1568, 392),
            0.1,
            HEADS=(d, e),
            WIDTH=width,
            TILES=tiles,
            grid=(1,),
            **split_head.LAUNCH,
            **flags,
        )
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= LEAST_SHARED_MEMORY
        assert width * tiles[0] <= split_head.ACCUMULATED
