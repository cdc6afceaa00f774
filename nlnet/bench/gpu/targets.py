"""The figures that are wanted on an H100 or H200, beside those that were measured."""

from collections.abc import Sequence
from typing import NamedTuple

from nlnet.bench.gpu.networks import OURS, PEER
from nlnet.bench.gpu.plan import I3D, LONG_NL10, NL5
from nlnet.bench.gpu.rows import GpuRow, quotient
from nlnet.cli.sweep import markdown_table


class Target(NamedTuple):
    """A figure that is wanted. `measured` is None if a row that it needs has no figures."""

    what: str
    wanted: str
    measured: float | None
    met: bool


def targets(rows: Sequence[GpuRow], device_name: str) -> list[Target]:
    """All targets; that of clips per second holds for an H200 only."""
    training = {row.subject: row for row in _fastest(rows)}
    none = GpuRow("training", "", "", "", 0)
    peer = next((row for row in rows if _is_peer(row)), none)
    nl5, plain, long = (training.get(name, none) for name in (NL5, I3D, LONG_NL10))
    found = [
        _least(f"{NL5}, training, x {PEER}", 2.0, quotient(peer.ms, nl5.ms)),
        _most(f"{NL5}, memory / {I3D}", 1.2, quotient(nl5.peak_mb, plain.peak_mb)),
        _least(f"{LONG_NL10}, training, clips of a batch", 8, long.batch or None),
    ]
    if "H200" in device_name:
        found.append(_least(f"{NL5}, training, clips/s", 800, nl5.clips_per_s))
    return found


def target_table(found: Sequence[Target]) -> str:
    """What is wanted, what was measured, and whether that is enough."""
    cells = [
        [
            target.what,
            target.wanted,
            "not measured" if target.measured is None else f"{target.measured:.3g}",
            "-" if target.measured is None else "yes" if target.met else "no",
        ]
        for target in found
    ]
    return markdown_table(["", "wanted", "measured", "met"], cells)


def _is_peer(row: GpuRow) -> bool:
    return (row.part, row.subject, row.contender) == ("training", NL5, PEER)


def _fastest(rows: Sequence[GpuRow]) -> list[GpuRow]:
    """The training steps of nlnet that have figures, the fastest of each network last."""
    ours = [row for row in rows if row.part == "training" and row.contender.startswith(OURS)]
    return sorted((row for row in ours if row.ms), key=lambda row: -(row.ms or 0))


def _least(what: str, limit: float, measured: float | None) -> Target:
    return Target(what, f">= {limit:g}", measured, measured is not None and measured >= limit)


def _most(what: str, limit: float, measured: float | None) -> Target:
    return Target(what, f"<= {limit:g}", measured, measured is not None and measured <= limit)
