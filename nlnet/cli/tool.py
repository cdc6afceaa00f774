"""What every tool does around its work: the environment, --help, the composition, its errors.

This module and what it imports must not load Hydra or torch: they take seconds, which `--help`
does not need. Functions here and in tools/ import what loads them when they are called.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nlnet.cli.choices import group_choices
from nlnet.cli.environment import prepare_environment
from nlnet.cli.ranks import RESOLVED, is_rank
from nlnet.distributed.attempts import ERROR_FILE, final_code

if TYPE_CHECKING:
    from nlnet.cli.compose import Base, Work

HELP = {"-h", "--help"}


def run_tool(
    work: "Work",
    *,
    config: str,
    doc: str,
    rank: "Work | None" = None,
    base: "Base | None" = None,
) -> None:
    """Run a tool that composes its configuration from the words of the command line.

    Exit codes: 0; 1 for a UserError; 2 for a wrong word or number; 130 for Ctrl-C.

    Args:
        work: what the tool does with a run; Hydra names the job after the file of this function
        config: the primary config, a name in configs/
        doc: the text that --help prints, before the list of groups
        rank: what one of several ranks does, which is started with `--resolved PATH`
        base: finds the run that the words change; None there is the default configuration
    """
    prepare_environment()
    words = sys.argv[1:]
    if HELP & set(words):
        with quiet_without_reader():
            print(f"{doc.strip()}\n\n{group_choices()}")
        return
    ended = final_code()
    if ended is not None:
        sys.exit(ended)
    with quiet_without_reader(), _ends_on_interrupt():
        from nlnet.cli.compose import compose_and_run, read_run
        from nlnet.cli.mistakes import one_line_errors, say_tracebacks_once

        if is_rank():
            say_tracebacks_once()
        with one_line_errors():
            if rank is not None and words[:1] == [RESOLVED]:
                path = Path(words[1])
                rank(read_run(path), path.parent)
            else:
                compose_and_run(work, config, words, base)


def run_parser(main: Callable[[], None]) -> None:
    """Run a tool that parses its own words, with the same environment and one-line errors."""
    prepare_environment()
    if HELP & set(sys.argv[1:]):
        with quiet_without_reader():
            main()  # the parser prints the help and exits
        return
    with quiet_without_reader(), _ends_on_interrupt():
        from nlnet.cli.mistakes import one_line_errors

        with one_line_errors():
            main()


@contextmanager
def _ends_on_interrupt() -> Iterator[None]:
    """End with one line and exit code 130 on Ctrl-C, also while libraries are being loaded."""
    try:
        yield
    except KeyboardInterrupt:
        if ERROR_FILE not in os.environ:  # the process that launched the ranks says it
            print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


@contextmanager
def quiet_without_reader() -> Iterator[None]:
    """End without a message, with exit code 141, if nobody reads the output: `... | head -1`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the exit
        sys.exit(128 + signal.SIGPIPE)
