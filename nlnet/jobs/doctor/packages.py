"""Installed packages: those that nlnet needs, and those of its extras."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

import nlnet
from nlnet.jobs.doctor.findings import Finding

INSTALL = "pip install ."  # in the source folder of nlnet


def versions() -> list[Finding]:
    """Python, nlnet, and every package that nlnet needs; a missing or an old one fails."""
    found = [Finding("python", platform.python_version()), Finding("nlnet", nlnet.__version__)]
    needed = [need for need in _requirements() if need.marker is None or need.marker.evaluate()]
    if not needed:
        remedy = f"nlnet runs from its source folder and is not installed; {INSTALL}"
        found.append(Finding("packages", "unknown", remedy))
    return found + [_package(need) for need in needed]


def extras() -> list[Finding]:
    """Each optional extra of nlnet: complete, or what it lacks and how to get it."""
    wanted: dict[str, list[Requirement]] = {}
    for need in _requirements():
        for extra in _extras_of(need):
            wanted.setdefault(extra, []).append(need)
    return [_extra(extra, needs) for extra, needs in sorted(wanted.items())]


def _requirements() -> list[Requirement]:
    """The requirements of the installed nlnet, without those on its own extras."""
    try:
        lines = requires("nlnet") or []
    except PackageNotFoundError:
        return []
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if need.name != "nlnet"]


def _extras_of(need: Requirement) -> Iterator[str]:
    """The extra whose marker selects a requirement, `extra == "report"`."""
    marker = "" if need.marker is None else str(need.marker)
    if "extra ==" in marker:
        yield marker.split("extra ==")[1].strip().split()[0].strip("\"')")


def _package(need: Requirement) -> Finding:
    installed = _installed(need.name)
    if installed is None:
        return Finding(need.name, "missing", f'pip install "{_word(need)}"', failed=True)
    if not need.specifier.contains(installed, prereleases=True):
        remedy = f'needs {need.specifier}: pip install "{_word(need)}"'
        return Finding(need.name, installed, remedy, failed=True)
    return Finding(need.name, installed)


def _extra(extra: str, needs: list[Requirement]) -> Finding:
    parts = [_package(need) for need in needs]
    bad = [
        part.name if part.value == "missing" else f"{part.name} {part.value}"
        for part in parts
        if part.failed
    ]
    if bad:
        return Finding(extra, f"lacks {', '.join(bad)}", f'pip install "nlnet[{extra}]"')
    return Finding(extra, ", ".join(f"{part.name} {part.value}" for part in parts))


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _word(need: Requirement) -> str:
    return f"{need.name}{need.specifier}"
