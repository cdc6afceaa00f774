"""Hydra's callbacks for errors and for the table of a sweep."""

import csv
import io
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from nlnet.cli.explain import explain
from nlnet.cli.mistakes import MISTAKES, fail, fail_with, is_mistake
from nlnet.cli.quoting import unquoted
from nlnet.distributed.signals import ending_with
from nlnet.errors import UserError
from nlnet.files import digest, write_text

# Keys that a run folder is never named after: its place has the name, or they change no result.
UNNAMED = {"experiment", "sweep", "debug", "name", "data.root", "weights"}
# Environment variables: the process id of the sweep, and its folder.
SWEEP, FOLDER = "NLNET_SWEEP", "NLNET_SWEEP_FOLDER"
ROWS = "rows"  # folder of the rows of the table, inside that of the sweep
MAX_NAME = 200  # bytes of the name of a run folder; file systems allow 255


class OneLine(Callback):
    """Hydra's callback that reports an error of a single run in one line.

    It exits before Hydra prints lines of its own.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        error = job_return._return_value
        if config.hydra.mode.name == "RUN" and is_mistake(error):
            fail_with(error)


class SweepTable(Callback):
    """Hydra's callback that writes and prints one table of the runs of a sweep.

    Each run writes its row to a file, because a launcher may start it in another process. A run
    that fails does not stop the others; the sweep then ends with exit code 1.
    """

    def __init__(self) -> None:
        self.rows = Path()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        refuse_shared_folders(config)
        os.environ |= {SWEEP: str(os.getpid()), FOLDER: config.hydra.sweep.dir}
        self.rows = Path(config.hydra.sweep.dir).absolute() / ROWS
        for path in self.rows.glob("*.json"):  # from an earlier sweep
            path.unlink()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode.name != "MULTIRUN":
            return
        folder = Path(config.hydra.runtime.output_dir)
        row = override_values(config.hydra.overrides.task)
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value
            row["error"] = error_line(error)
            if not is_mistake(error):
                traceback.print_exception(error)
            print(f"error: {row['error']}", file=sys.stderr)
            # The table reports the failure. Hydra would not start the runs that follow.
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None
        elif (folder / "metrics.json").exists():
            metrics = json.loads((folder / "metrics.json").read_text())
            row.update(metric_numbers(metrics))
        write_text(self.rows / f"{config.hydra.job.num:05d}.json", json.dumps(row))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        rows = _write_table(Path(config.hydra.sweep.dir))
        failed = sum("error" in row for row in rows)
        if failed:
            fail(f"{failed} of {len(rows)} runs of the sweep failed; see the table", 1)


@contextmanager
def ended_processes_reported() -> Iterator[None]:
    """If the system ends a process of a sweep: the table of the runs so far, and a UserError."""
    try:
        yield
    except BrokenProcessPool as error:
        _write_table(Path(os.environ[FOLDER]))
        raise UserError(
            "a process of the sweep was ended by the system, perhaps because the memory ran out; "
            "the same command continues all runs; fewer at once: hydra.launcher.n_jobs=NUMBER"
        ) from error


def _write_table(folder: Path) -> list[dict[str, Any]]:
    """Write and print the table of a sweep; returns its rows."""
    paths = sorted((folder / ROWS).glob("*.json"))
    rows = [json.loads(path.read_text()) for path in paths]
    header, cells = sweep_table(rows)
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([header, *cells])
    write_text(folder / "table.csv", lines.getvalue())
    table = markdown_table(header, cells)
    write_text(folder / "table.md", table + "\n")
    print(f"\n{table}\n\n{len(rows)} runs; this table: {folder / 'table.md'}")
    return rows


def ending_with_sweep() -> AbstractContextManager[None]:
    """A context in which a run of a sweep in a process of its own ends with the sweep."""
    if os.environ.get(SWEEP) == str(os.getppid()):
        return ending_with(os.getppid())
    return nullcontext()


def refuse_shared_folders(config: DictConfig) -> None:
    """Exit if a sweep changes a key that the run folders are not named after.

    All its runs would share one folder.
    """
    words = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = {word.key_or_group for word in words if word.is_sweep_override()}
    swept |= set(config.hydra.sweeper.params or {})
    for key in sorted(swept & (UNNAMED - {"experiment", "name"})):
        fail(
            f"{key} cannot be swept, because run folders are not named after it; start a run for "
            f"each, with name=NAME {key}=VALUE (a VALUE with commas: '{key}=\"a,b\"')",
            2,
        )


def folder_name(words: str) -> str:
    """The name of one folder for the words of a run: a slash is %2F, a long text is shortened.

    A shortened name ends with a digest of the whole text, so that different words have different
    folders.
    """
    name = words.replace("%", "%25").replace("/", "%2F")
    data = name.encode()
    if len(data) <= MAX_NAME:
        return name
    return f"{data[: MAX_NAME - 9].decode(errors='ignore')}~{digest(data)[:8]}"


# A launcher may start a run in a process of its own, which imports this module.
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def name_by_swept(words: Sequence[str]) -> list[str]:
    """The word for Hydra that leaves the words with one value out of the names of run folders."""
    if not {"-m", "--multirun"} & set(words):
        return []
    typed = [word for word in words if word[:1] != "-" and ("=" in word or word[:1] == "~")]
    parsed = OverridesParser.create().parse_overrides(typed)
    swept = {each.key_or_group for each in parsed if each.is_sweep_override()}
    fixed = {each.key_or_group for each in parsed} - swept
    left_out = ",".join(sorted(UNNAMED | {key for key in fixed if not key.startswith("hydra")}))
    return [f"hydra.job.config.override_dirname.exclude_keys=[{left_out}]"]


def error_line(error: Any) -> str:
    """What the table says about a run that failed."""
    if isinstance(error, MISTAKES) and not isinstance(error, UserError):
        return explain(error)
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def override_values(overrides: Iterable[str]) -> dict[str, Any]:
    """The keys and values of a run's words, as the user typed them.

    A key that is removed (`~key`) has an empty value.
    """
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: unquoted(value) for key, _, value in parts}


def metric_numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """The numbers of metrics.json, the main metric first."""
    main = metrics.get("main_metric")
    order = sorted(metrics, key=lambda key: key not in (main, f"best_{main}"))
    return {key: metrics[key] for key in order if _is_number(metrics[key])}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def sweep_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table; an override that all runs share has no column.

    A sweep with a failed run always has a column for errors.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    values = {key: {str(row.get(key)) for row in rows} for key in keys}
    header = [
        key
        for key in keys
        if key == "error" or len(values[key]) > 1 or all(_is_number(row.get(key)) for row in rows)
    ]
    header.sort(key=lambda key: (key == "error", any(_is_number(row.get(key)) for row in rows)))
    return header, [[cell(row.get(key, "")) for key in header] for row in rows]


def cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def markdown_table(header: list[str], cells: list[list[str]]) -> str:
    """A Markdown table, padded so that its columns are aligned in a terminal."""
    widths = [max(len(text) for text in column) for column in zip(header, *cells, strict=True)]
    lines = [header, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
