"""Which form of the softmax a CUDA device uses: the fastest measured one, or a rule.

`measured_forms.csv` is the table of measured shapes; tools/benchmark.py writes it. It has rows for
the devices where somebody measured. Elsewhere the rule decides. Every form of a shape has linear
memory, so the choice changes the time only.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from math import log
from pathlib import Path

import torch
from torch import Tensor

from nlnet.model.non_local.kernels.split_head_check import split_head_works

TABLE = Path(__file__).parent / "measured_forms.csv"
LARGEST_HEAD = 256  # of the kernels of FlashAttention and cuDNN
KEPT = 2  # an affinity is kept if it has at most this many times the numbers in q and k
FEW = 64 * 64  # or if it has at most so many numbers
FEW_POSITIONS = 512  # below so many queries or keys, kernels of wide heads are not worth a choice
NEAR = 4.0  # a measured shape decides for others with up to 4 times as many or as few pairs


@dataclass(frozen=True)
class Problem:
    """A softmax of N queries (B, N, d) over M keys (B, M, d) with values (B, M, e)."""

    dtype: str  # torch's name without "torch."
    d: int
    e: int
    n: int
    m: int

    @property
    def size(self) -> int:
        """The head size of a kernel that has only one."""
        return max(self.d, self.e)

    @property
    def pairs(self) -> int:
        return self.n * self.m


@dataclass(frozen=True)
class FormTime:
    """A row of the table: the time of one form, forward and backward."""

    device: str  # as torch.cuda.get_device_name returns it
    dtype: str
    d: int
    e: int
    n: int
    m: int
    form: str
    milliseconds: float
    torch: str  # its version


COLUMNS = [field.name for field in fields(FormTime)]


def possible_forms(problem: Problem) -> list[str]:
    """The forms that support a problem with linear memory on CUDA; the rule's choice is first."""
    if problem.dtype == "float64":
        return ["chunked"]
    reduced = problem.dtype in ("float16", "bfloat16")
    forms = ["fused", "efficient"]
    if reduced and problem.size <= LARGEST_HEAD:
        forms += ["flash", "cudnn"]
    if problem.size > LARGEST_HEAD and min(problem.n, problem.m) >= FEW_POSITIONS:
        forms.insert(0 if reduced else len(forms), "split")
    if problem.pairs <= max(FEW, KEPT * (problem.n + problem.m) * problem.d):
        forms.insert(0, "kept")
    return forms


def chosen_form(
    problem: Problem, possible: Sequence[str], device: str, table: Sequence[FormTime]
) -> str:
    """The fastest possible form of the nearest measured problem, or the first one if none is near.

    A problem is near if device, dtype, d and e are the same and the numbers of pairs N M differ by
    at most a factor of `NEAR`.
    """
    kin = [
        row
        for row in table
        if (row.device, row.dtype, row.d, row.e) == (device, problem.dtype, problem.d, problem.e)
        and row.form in possible
        and _distance(row, problem) <= log(NEAR) + 1e-9
    ]
    if not kin:
        return possible[0]
    nearest = min(kin, key=lambda row: _distance(row, problem))
    rivals = [row for row in kin if (row.n, row.m) == (nearest.n, nearest.m)]
    return min(rivals, key=lambda row: row.milliseconds).form


def _distance(row: FormTime, problem: Problem) -> float:
    return abs(log(row.n * row.m) - log(problem.pairs))


def cuda_form(q: Tensor, k: Tensor, v: Tensor) -> str:
    """The name of the form for q, k and v of one dtype on a CUDA device."""
    dtype = str(q.dtype).removeprefix("torch.")
    return _form_on(dtype, q.shape[2], v.shape[2], q.shape[1], k.shape[1], q.device.index or 0)


def _form_on(dtype: str, d: int, e: int, n: int, m: int, index: int) -> str:
    """The form of a problem, as a constant: torch.compile does not trace this function."""
    problem = Problem(dtype, d, e, n, m)
    possible = possible_forms(problem)
    form = chosen_form(problem, possible, _device_name(index), _shipped_table())
    if form == "split" and not split_head_works(_device(index), getattr(torch, dtype), d, e):
        others = [name for name in possible if name != "split"]
        return chosen_form(problem, others, _device_name(index), _shipped_table())
    return form


# What torch.compiler.assume_constant_result sets. That function imports all of torch's compiler,
# which takes seconds.
_form_on.__dict__["_dynamo_marked_constant"] = True


def _device(index: int) -> torch.device:
    return torch.device("cuda", index)


@cache
def _device_name(index: int) -> str:
    return torch.cuda.get_device_name(index)


@cache
def _shipped_table() -> tuple[FormTime, ...]:
    return tuple(read_table(TABLE.read_text()))


def read_table(text: str) -> list[FormTime]:
    """The rows of a table."""
    return [
        FormTime(
            row["device"],
            row["dtype"],
            d=int(row["d"]),
            e=int(row["e"]),
            n=int(row["n"]),
            m=int(row["m"]),
            form=row["form"],
            milliseconds=float(row["milliseconds"]),
            torch=row["torch"],
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


def write_table(rows: Iterable[FormTime]) -> str:
    """The text of a table; `read_table` reads it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()
