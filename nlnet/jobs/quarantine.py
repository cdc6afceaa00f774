"""Leave broken files out of a run, before its first step."""

from collections.abc import Iterator
from pathlib import Path

from nlnet.checkpoint import saved_paths
from nlnet.clip import Failure
from nlnet.config import RunConfig
from nlnet.data.build import find_broken
from nlnet.data.loader import EvalLoader
from nlnet.distributed.ranks import on_main
from nlnet.errors import UserError
from nlnet.runs.logger import RunLogger
from nlnet.runs.quarantine import QUARANTINE, START, VALIDATION, add_to_quarantine, read_quarantine
from nlnet.trainer.settings import most_bad


def broken_files(run: RunConfig, out_dir: Path) -> dict[str, str]:
    """The training files that a run leaves out, and why, the same on each rank.

    A new run probes its files, and writes the broken ones to its quarantine list. A run that is
    resumed has the list of its start: what was found later is replaced at each of its places, so
    that the order of all other videos stays.

    Raises:
        UserError: more files are broken than the run accepts.
    """
    return on_main(lambda: _broken_files(run, out_dir))


def _broken_files(run: RunConfig, out_dir: Path) -> dict[str, str]:
    listed = listed_broken(out_dir)
    if saved_paths(out_dir):
        return listed
    failures, num_videos = find_broken(run.data)
    if failures:
        add_to_quarantine(out_dir, START, failures)
    if len(failures) > most_bad(num_videos, run.data.max_bad_share):
        path, cause = failures[0]
        raise UserError(
            f"{len(failures)} of {num_videos} training videos cannot be read, the first {path}: "
            f"{cause}; {out_dir / QUARANTINE} names them: repair or remove them, or raise "
            "data.max_bad_share"
        )
    return dict(failures)


def listed_broken(out_dir: Path) -> dict[str, str]:
    """The files that a run folder's list leaves out, and why."""
    return {row.path: row.cause for row in read_quarantine(out_dir) if row.stage == START}


def describe_broken(broken: dict[str, str]) -> Iterator[str]:
    """Log lines about the files that a run leaves out."""
    for path, cause in broken.items():
        yield f"cannot read {path}: {cause}"
    if broken:
        yield f"{len(broken)} training videos cannot be read and are left out of this run"


def report_validation(loader: EvalLoader, failures: list[Failure], logger: RunLogger) -> None:
    """Log the validation videos that could not be read and count as wrong; add them to the list."""
    if failures:
        logger.failures(failures)
        logger.say(
            f"{len(failures)} of {len(loader.index)} validation videos could not be read and count "
            "as wrong"
        )
        logger.quarantine(VALIDATION, failures)
