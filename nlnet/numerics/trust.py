"""Replace the convolutions of a network whose kernels are wrong on this device.

The answers are kept in a file of the user's cache, for each processor and each version of torch:
the check needs seconds, once.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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

CHECK = "1"  # another number where the check changes, so that old answers are not read
# Rounding the result gives an error of a quarter of the first part; the second part is for sums in
# float32 over all positions, and for the 10 bits of TF32.
TOLERANCES = {"cpu": 2e-4, "cuda": 2e-3}


@dataclass(frozen=True)
class Verdict:
    """What the check found of one convolution."""

    error: float  # relative error of torch's own kernel
    form: str | None  # the form to use, a name of FORMS; None if every form is wrong


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The largest relative error that rounding explains."""
    return 2 * torch.finfo(dtype).eps + TOLERANCES[device.type]


def check_network(
    build: Callable[[], nn.Module],
    x: Size,
    *,
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[dict[Convolution, list[str]], dict[Convolution, Verdict]]:
    """Check the convolutions of a network on an input of size `x`.

    Returns:
        the names of the modules that compute each convolution, and the verdicts
    """
    found = convolutions_of(build, x)
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
    cache = _cache_file(device)
    known = _read(cache)
    for conv in convolutions:
        key = f"{astuple(conv)} {dtype} {'channels_last' if channels_last else 'contiguous'}"
        if key not in known:
            known[key] = _verdict(conv, device, dtype, channels_last)
            with suppress(UserError):  # a cache that cannot be written costs the time of a check
                write_text(cache, json.dumps({k: astuple(v) for k, v in known.items()}))
        yield conv, known[key]


def _verdict(
    conv: Convolution, device: torch.device, dtype: torch.dtype, channels_last: bool
) -> Verdict:
    errors: list[float] = []
    for name in forms_for(conv.weight, conv):
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
        if verdict.form == "plain":
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


def _cache_file(device: torch.device) -> Path:
    """The file of this device: its name is a digest of all that chooses kernels."""
    facts = [CHECK, torch.__version__, torch.__config__.show()]
    facts.append(os.environ.get("ONEDNN_MAX_CPU_ISA", ""))
    if device.type == "cuda":
        facts += [torch.cuda.get_device_name(device), str(torch.backends.cudnn.version())]
    else:
        threads = str(torch.get_num_threads())
        facts += [cpu_model(), torch.backends.cpu.get_cpu_capability(), threads]
    name = digest("\n".join(facts).encode())[:16]
    return Path(hub.get_dir()).parent / "nlnet" / f"convolutions-{name}.json"


def _read(path: Path) -> dict[str, Verdict]:
    try:
        return {key: Verdict(*row) for key, row in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it is written anew
