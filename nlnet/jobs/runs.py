"""Show the runs below a folder: a table, one run, the differences of two, CSV."""

import csv
import io
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nlnet.cli.nearest import nearest
from nlnet.errors import UsageError, UserError
from nlnet.files import write_text
from nlnet.jobs.run_folders import FAILED, FINISHED, RUNNING, STOPPED, ListedRun, find_runs

WIDTH = 79  # of a line; some terminals of 80 columns break a line of 80 characters
STATUSES = (RUNNING, FINISHED, STOPPED, FAILED)
NAME = 34  # columns of a name
CLEAR = "\033[H\033[2J"  # the screen of a terminal
FIELDS = (
    *("name", "folder", "status", "epoch", "epochs", "metric", "best", "protocol"),
    *("age", "command", "last_line"),
)


class RunsOptions(NamedTuple):
    """What to show."""

    where: Sequence[str] = ()  # key=value, all of which a run has
    csv: Path | None = None
    watch: float | None = None  # seconds between two tables


def show_runs(root: Path, options: RunsOptions) -> None:
    """Print the table of the runs of a folder; a single run in detail.

    Raises:
        UserError: there is no run.
        UsageError: a condition is not KEY=VALUE, or no run has its key.
    """
    runs = chosen(root, options.where)
    if options.csv is not None:
        write_text(options.csv, runs_csv(runs))
        print(f"{len(runs)} runs: {options.csv}")
    elif options.watch is not None:
        _watch_runs(root, options.where, options.watch)
    elif len(runs) == 1 and runs[0].folder == root:
        print(run_details(runs[0]))
    else:
        print(runs_table(runs))


def show_differences(one: Path, other: Path) -> None:
    """Print the keys whose values differ in the configurations of two runs."""
    a, b = (_config_of(folder) for folder in (one, other))
    keys = [key for key in sorted({**a, **b}) if a.get(key) != b.get(key)]
    for key in keys:
        print(f"{key}: {a.get(key, 'absent')} -> {b.get(key, 'absent')}")
    print(f"{len(keys)} of {len({**a, **b})} keys differ")


def chosen(root: Path, where: Sequence[str]) -> list[ListedRun]:
    """The runs of a folder that meet all conditions `key=value`."""
    found = list(find_runs(root))
    if not found:
        raise UserError(f"{root}: there are no runs; give the folder that has them")
    for text in where:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--where {text}: give KEY=VALUE, such as optim.lr=0.1")
        known = {name for run in found for name in run.config}
        if key not in known:
            raise UsageError(
                f"--where {text}: no run has the key {key}; the nearest are "
                f"{', '.join(nearest(key, known))}"
            )
        wanted = yaml.safe_load(value)
        found = [run for run in found if _same(run.config.get(key), wanted)]
    return found


def runs_table(runs: Sequence[ListedRun]) -> str:
    """The runs as lines of at most 79 columns; a long name keeps its end."""
    lines = [f"{'run':{NAME}} {'status':8} {'epoch':>7} {'age':>5} best validation"]
    for run in runs:
        name = run.name if len(run.name) <= NAME else f"...{run.name[3 - NAME :]}"
        line = f"{name:{NAME}} {run.status:8} {run.progress:>7} {age_text(run.age):>5} {run.score}"
        lines.append(line[:WIDTH])
    counts = {status: sum(run.status == status for run in runs) for status in STATUSES}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return "\n".join([*lines, f"{len(runs)} runs: {said}" if said else "no run"])


def run_details(run: ListedRun) -> str:
    """All fields of a run, one on each line."""
    fields = {
        "folder": run.folder,
        "status": run.status,
        "epoch": run.progress,
        "best": run.score,
        "age": age_text(run.age),
        "command": run.command or "unknown (an older version made this run)",
        "last line": run.last_line,
    }
    return "\n".join(f"{name:9} {value}" for name, value in fields.items())


def runs_csv(runs: Sequence[ListedRun]) -> str:
    """The runs as CSV: their fields, then the keys whose values differ among them."""
    keys = sorted({key for run in runs for key in run.config})
    swept = [key for key in keys if len({str(run.config.get(key)) for run in runs}) > 1]
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow([*FIELDS, *swept])
    for run in runs:
        fields = {**vars(run), "age": round(run.age)}
        writer.writerow([*(fields[name] for name in FIELDS), *(run.config.get(k) for k in swept)])
    return lines.getvalue()


def age_text(seconds: float) -> str:
    """A time in its largest unit: 5s, 12m, 3h, 40d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def _watch_runs(root: Path, where: Sequence[str], every: float) -> None:
    """Print the running runs again and again, with the last line of each, until none is left."""
    while True:
        running = [run for run in chosen(root, where) if run.status == RUNNING]
        lines = [runs_table(running)]
        lines += [f"{run.name}: {run.last_line}"[:WIDTH] for run in running]
        print((CLEAR if sys.stdout.isatty() else "") + "\n".join(lines), flush=True)
        if not running:
            return
        time.sleep(every)


def _config_of(folder: Path) -> Mapping[str, Any]:
    runs = [run for run in find_runs(folder) if run.folder == folder]
    if not runs:
        raise UserError(f"{folder}: is not a run folder; give one that tools/runs.py lists")
    return runs[0].config


def _same(value: Any, wanted: Any) -> bool:
    """Whether two values of YAML are equal; 1e-4 is a text in YAML, and a number in a config."""
    if isinstance(value, float) and isinstance(wanted, str):
        try:
            wanted = float(wanted)
        except ValueError:
            return False
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
