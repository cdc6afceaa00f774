"""Whether a device computes faster in bfloat16 than in float32."""

import json
import time
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import torch

from nlnet.errors import UserError
from nlnet.files import write_text
from nlnet.numerics.trust import cache_file
from nlnet.runs.machine import cpu_features

BF16 = {"avx512_bf16", "amx_bf16", "avx10_2", "bf16", "svebf16"}  # arithmetic, x86 and ARM
SIZE = 1024  # of the square products that are timed
REPEATS = 5
FASTER = 0.8  # at most this share of the time of float32, so that noise does not decide


class Choice(NamedTuple):
    """The precision of autocast, and the reason for it in words."""

    dtype: torch.dtype | None  # None is float32
    reason: str


def choose_precision(device: torch.device) -> Choice:
    """bfloat16 on a GPU, and on a processor that has its arithmetic and is faster with it.

    On such a processor the first call takes a fifth of a second. The answer is kept in the user's
    cache, so that the ranks of a machine, and a run that is resumed, have the same one.
    """
    if device.type != "cpu":
        return Choice(torch.bfloat16, f"the device is {device.type}")
    return _choose_on_cpu()


@cache
def _choose_on_cpu() -> Choice:
    found = sorted(BF16 & cpu_features())
    if not found:
        return Choice(None, "the processor has no arithmetic in bfloat16")
    share = _time_share()
    reason = f"a product takes {share:.2f} of its time in float32 ({', '.join(found)})"
    return Choice(torch.bfloat16 if share <= FASTER else None, reason)


def _time_share() -> float:
    """The time of a product in bfloat16 / in float32: measured once for a machine."""
    file = cache_file(torch.device("cpu"), "precision")
    with suppress(OSError, ValueError, TypeError):
        return float(json.loads(file.read_text()))
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    matrices = {dtype: torch.ones(SIZE, SIZE, dtype=dtype) for dtype in times}
    for _ in range(1 + REPEATS):
        for dtype, matrix in matrices.items():
            start = time.perf_counter()
            matrix @ matrix
            times[dtype].append(time.perf_counter() - start)
    share = min(times[torch.bfloat16][1:]) / min(times[torch.float32][1:])
    with suppress(UserError):  # a cache that cannot be written costs the time of a measurement
        write_text(file, json.dumps(share))
    return share
