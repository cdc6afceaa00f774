"""What the doctor finds, as one page of text and as JSON."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MARKS = {"ok": "   ", "note": " - ", "fail": " ! "}  # before a line of the page


@dataclass(frozen=True)
class Finding:
    """One fact. A remedy says what to do; `failed` tells a mistake from a possible improvement."""

    name: str
    value: str
    remedy: str = ""
    failed: bool = False

    @property
    def status(self) -> str:
        """ok, note or fail."""
        if self.failed:
            return "fail"
        return "note" if self.remedy else "ok"


@dataclass(frozen=True)
class Section:
    """Findings under one heading."""

    title: str
    findings: Sequence[Finding]


def page(sections: Sequence[Section]) -> str:
    """The page for a bug report. Lines with `!` have failed, lines with `-` can be improved."""
    failures = failed(sections)
    names = ", ".join(finding.name for finding in failures)
    head = f"failed: {names}" if failures else "everything that is needed works"
    lines = [f"nlnet doctor: {head}"]
    for section in sections:
        lines += ["", section.title]
        width = max(len(finding.name) for finding in section.findings)
        for finding in section.findings:
            mark = MARKS[finding.status]
            lines.append(f"{mark}{finding.name:<{width}}  {finding.value}".rstrip())
            if finding.remedy:
                lines.append(f"   {'':<{width}}  -> {finding.remedy}")
    return _without_private_paths("\n".join(lines))


def as_json(sections: Sequence[Section]) -> dict[str, list[dict[str, str]]]:
    """The same as plain data: section -> its findings."""
    return {
        section.title: [
            {
                "name": finding.name,
                "value": _without_private_paths(finding.value),
                "status": finding.status,
                "remedy": _without_private_paths(finding.remedy),
            }
            for finding in section.findings
        ]
        for section in sections
    }


def failed(sections: Sequence[Section]) -> list[Finding]:
    """The findings that need a repair."""
    return [finding for section in sections for finding in section.findings if finding.failed]


def _without_private_paths(text: str) -> str:
    """Replace the working folder by . and the home folder by ~."""
    home = os.path.expanduser("~")
    for path, sign in sorted([(str(Path.cwd()), "."), (home, "~")], key=lambda row: -len(row[0])):
        if len(path) > 1:  # not the folder /
            text = text.replace(path, sign)
    return text
