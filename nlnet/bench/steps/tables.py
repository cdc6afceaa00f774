"""Tables of what bench=step measured."""

from collections.abc import Mapping, Sequence

from nlnet.bench.steps.compete import ContenderResult, kind
from nlnet.cli.sweep import markdown_table


def step_table(
    results: Sequence[ContenderResult], clips_per_s: Sequence[float], utilization: Sequence[float]
) -> str:
    """Time, speed and memory of each contender."""
    header = ["", "ms", "clips/s", "x peer", "utilization", "peak MB", "of peer's"]
    cells = [
        [
            f"{kind(result)}: {result.name}",
            f"{1e3 * result.seconds:,.0f}",
            f"{rate:.3g}",
            f"{result.speed:.2f}",
            f"{100 * share:.0f} %",
            f"{result.peak_mb:,.0f}",
            f"{result.memory:.2f}",
        ]
        for result, rate, share in zip(results, clips_per_s, utilization, strict=True)
    ]
    return markdown_table(header, cells)


def share_table(result: ContenderResult, inputs: Mapping[str, float], batch: int) -> str:
    """Each part's share of the time of one clip, as if no parts overlapped.

    Args:
        inputs: seconds of a loader's parts for one clip
        batch: the clips of the step that `result` timed
    """
    parts = {**inputs, **{name: seconds / batch for name, seconds in result.phases.items()}}
    total = sum(parts.values())
    return markdown_table(list(parts), [[f"{100 * part / total:.1f} %" for part in parts.values()]])
