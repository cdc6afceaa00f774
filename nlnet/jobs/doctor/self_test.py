"""The parts of the self-test, run in a child process that may crash or hang.

`python -m nlnet.jobs.doctor.self_test PART ...` prints a line of JSON for each part that ends.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nlnet.errors import UserError
from nlnet.jobs.doctor.findings import Finding, Section

TIME_LIMIT = 120.0  # seconds of one child process; all parts need about twenty

TORCH = 'pip install --force-reinstall "torch>=2.11" "torchvision>=0.26"'
PYAV = 'pip install --force-reinstall "av>=17"'
REPORT = "file a bug report with this page"


def _devices() -> dict[str, str]:
    from nlnet.jobs.doctor.compute import devices

    return devices()


def _decoders() -> dict[str, str]:
    from nlnet.jobs.doctor.video import decoders

    return decoders()


def _video() -> dict[str, str]:
    from nlnet.jobs.doctor.video import encode_and_decode

    return encode_and_decode()


def _training_step() -> dict[str, str]:
    from nlnet.jobs.doctor.compute import training_step

    return training_step()


def _kernel() -> dict[str, str]:
    from nlnet.jobs.doctor.compute import kernel

    return kernel()


def _bfloat16() -> dict[str, str]:
    from nlnet.jobs.doctor.compute import convolutions

    return convolutions()


def _gpu() -> dict[str, str]:
    from nlnet.jobs.doctor.compute import gpu

    return gpu()


class Part(NamedTuple):
    """A part of the self-test. It raises an error if it fails; imports are part of the test."""

    run: Callable[[], dict[str, str]]  # returns facts by name
    remedy: str  # what to do if it fails


PARTS = {
    "devices": Part(_devices, f"torch does not work; {TORCH}"),
    "decoders": Part(_decoders, f"PyAV does not work or lacks codecs; {PYAV}"),
    "video": Part(_video, f"{PYAV}; if that does not help, {REPORT}"),
    "training step": Part(_training_step, f"{TORCH}; if that does not help, {REPORT}"),
    "kernel": Part(_kernel, f"results would be wrong; {TORCH}; if that does not help, {REPORT}"),
    "bfloat16": Part(_bfloat16, f"trainer.precision=fp32 is right; {TORCH}"),
    "gpu": Part(
        _gpu,
        "update the NVIDIA driver, or install the torch that fits it (pytorch.org); "
        "dist.device=cpu trains without the GPU",
    ),
}


def self_test(names: Sequence[str] = tuple(PARTS)) -> list[Section]:
    """Run the parts; one that raises, crashes or hangs is a failed finding, and the others go on.

    Returns:
        a section for each part that found something
    """
    sections, left = [], list(names)
    while left:
        done, cause = _run_child(left)
        for name, facts, seconds in done:
            title = f"self-test: {name} ({seconds:.1f} s)"
            if facts:
                sections.append(Section(title, [Finding(*fact) for fact in facts.items()]))
        left = left[len(done) :]
        if left:  # the first of them ended the child
            name = left.pop(0)
            finding = Finding(name, cause, PARTS[name].remedy, failed=True)
            sections.append(Section(f"self-test: {name}", [finding]))
    return sections


def _run_child(names: Sequence[str]) -> tuple[list[tuple[str, dict[str, str], float]], str]:
    """Run parts in one child; returns the results of those that ended well, and what ended it."""
    command = [sys.executable, "-m", "nlnet.jobs.doctor.self_test", *names]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
        out, cause = child.stdout, _cause(child)
    except subprocess.TimeoutExpired as error:
        out = (error.stdout or b"").decode()
        cause = f"does not end within {TIME_LIMIT:.0f} s"
    results = [json.loads(line) for line in out.splitlines() if line.startswith('["')]
    return [(name, facts, seconds) for name, facts, seconds in results], cause


def _cause(child: "subprocess.CompletedProcess[str]") -> str:
    lines = child.stderr.strip().splitlines()
    if child.returncode < 0:
        return f"ended by signal {-child.returncode}"
    return lines[-1] if lines else f"ended with code {child.returncode}"


def _main(names: Sequence[str]) -> None:
    """Run parts in this process, and print [name, facts, seconds] for each."""
    for name in names:
        start = time.perf_counter()
        try:
            facts = PARTS[name].run()
        except UserError as error:
            sys.exit(str(error))
        print(json.dumps([name, facts, time.perf_counter() - start]), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
