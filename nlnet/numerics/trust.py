"""Replace the convolutions of a network whose kernels are wrong on this device.

The answers are kept in a file of the user's cache, for each processor and each version of torch:
the check needs seconds, once. Where cuDNN times its kernels (`torch.backends.cudnn.benchmark`),
each process chooses for itself, so each process checks: the check makes the choice, and the step
then uses the same kernel for the same size. It does not see a kernel that torch chooses later
because the memory for the first one is missing, and no kernel that `torch.compile` writes itself
in its modes with max-autotune.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import hub, nn

from nlnet.errors import UserError
from nlnet.files import digest, write_text
from nlnet.numerics.convolutions import Convolution, Size, convolutions_of, relative_error
from nlnet.numerics.forms import FORMS, ReplacedConv3d, forms_for
from nlnet.runs.machine import cpu_model

CHECK = "2"  # another number where the check changes, so that old answers are not read
# What a device adds to the rounding of a result. On a CPU: sums in float32 over all positions. On
# a CUDA device float32 may be TF32, whose factors have 10 bits of mantissa: rounded, they are wrong
# by 2^-11 at most; cut, by 2^-11 on average and always towards zero, so that a product is too small
# by 2^-10. Twice that is allowed.
TOLERANCES = {"cpu": 2e-4, "cuda": 2**-9}


@dataclass(frozen=True)
class Verdict:
    """What the check found of one convolution."""

    error: float  # relative error of the form that the network uses
    form: str | None  # the form to use, a name of FORMS; None if every form is wrong


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The largest relative error that rounding explains.

    Rounding the result gives an error of a quarter of the first part.
    """
    return 2 * torch.finfo(dtype).eps + TOLERANCES[device.type]


def checked_dtype(device: torch.device, precision: torch.dtype | None) -> torch.dtype | None:
    """The number type in which the kernels of a run are checked; None where they are not.

    `precision` is the dtype of autocast. Without it they are checked where float32 is TF32.
    """
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # set when torch is imported
    is_tf32 = device.type == "cuda" and conv.fp32_precision == "tf32"
    return torch.float32 if precision is None and is_tf32 else precision


def check_network(
    build: Callable[[], nn.Module],
    x: Size,
    *,
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
    lean: Collection[str] = (),
) -> tuple[dict[Convolution, list[str]], dict[Convolution, Verdict]]:
    """Check the convolutions of a network on an input of size `x`, in the forms that it uses.

    `build` and `lean` are as of `convolutions_of`.

    Returns:
        the names of the modules that compute each convolution, and the verdicts
    """
    found = convolutions_of(build, x, lean=lean)
    verdicts = check_convolutions(
        list(found), device=device, dtype=dtype, channels_last=channels_last
    )
    return found, dict(verdicts)


def check_convolutions(
    convolutions: Sequence[Convolution],
    *,
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
) -> Iterator[tuple[Convolution, Verdict]]:
    """Check each convolution, or read the answer of an earlier check from the cache."""
    cache = cache_file(device, "convolutions")
    keeps = same_kernel_in_every_process(device)
    known = _read(cache) if keeps else {}
    for conv in convolutions:
        key = f"{astuple(conv)} {dtype} {'channels_last' if channels_last else 'contiguous'}"
        if key not in known:
            known[key] = _verdict(conv, device, dtype, channels_last)
            if keeps:
                _write(cache, known)
        yield conv, known[key]


def same_kernel_in_every_process(device: torch.device) -> bool:
    """Whether another process uses the kernels of this one for the same convolutions."""
    return device.type == "cpu" or not torch.backends.cudnn.benchmark


def _verdict(
    conv: Convolution, device: torch.device, dtype: torch.dtype, channels_last: bool
) -> Verdict:
    errors: list[float] = []
    for name in dict.fromkeys([conv.form, *forms_for(conv.weight, conv)]):
        form = FORMS[name]
        errors.append(
            relative_error(conv, form, device=device, dtype=dtype, channels_last=channels_last)
        )
        if errors[-1] <= tolerance(device, dtype):
            return Verdict(errors[0], name)
    return Verdict(errors[0], None)


def replace_convolutions(
    model: nn.Module,
    convolutions: Mapping[Convolution, Sequence[str]],
    verdicts: Mapping[Convolution, Verdict],
    *,
    remedy: str,
) -> list[str]:
    """Replace the convolutions whose kernel is wrong, and return a line about each of them.

    Args:
        model: is changed in place; parameters and their names stay
        convolutions: the names of the modules that compute each convolution
        verdicts: of each of them
        remedy: what to do where no form is right

    Raises:
        UserError: no form of a convolution is right.
    """
    lines = []
    for conv, verdict in verdicts.items():
        names = convolutions[conv]
        if verdict.form == conv.form:
            continue
        what = (
            f"{', '.join(names)}: a kernel of torch {torch.__version__} is wrong here "
            f"(input {tuple(conv.x)}, weight {tuple(conv.weight)}, stride {tuple(conv.stride)}: "
            f"relative error {verdict.error:.1g})"
        )
        if verdict.form is None:
            raise UserError(f"{what}, and no other form is right; {remedy}")
        for name in names:
            module = model.get_submodule(name)
            assert isinstance(module, nn.Conv3d)
            model.set_submodule(name, ReplacedConv3d(module, verdict.form))
        lines.append(f"{what}; it is computed in the form {verdict.form!r} instead")
    return lines


def cache_file(device: torch.device, name: str) -> Path:
    """A file of answers about this device: its name has a digest of all that chooses kernels."""
    facts = [CHECK, torch.__version__, torch.__config__.show()]
    facts.append(os.environ.get("ONEDNN_MAX_CPU_ISA", ""))
    if device.type == "cuda":
        facts += [torch.cuda.get_device_name(device), str(torch.backends.cudnn.version())]
    else:
        threads = str(torch.get_num_threads())
        facts += [cpu_model(), torch.backends.cpu.get_cpu_capability(), threads]
    place = digest("\n".join(facts).encode())[:16]
    return Path(hub.get_dir()).parent / "nlnet" / f"{name}-{place}.json"


def _write(path: Path, known: Mapping[str, Verdict]) -> None:
    with suppress(UserError):  # a cache that cannot be written costs the time of a check
        write_text(path, json.dumps({key: astuple(verdict) for key, verdict in known.items()}))


def _read(path: Path) -> dict[str, Verdict]:
    try:
        return {key: Verdict(*row) for key, row in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it is written anew
