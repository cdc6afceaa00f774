"""What the tools share: help, errors as one line, the start of ranks."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nlnet.cli.choices import group_choices
from nlnet.cli.explain import explain
from nlnet.cli.folders import flatten
from nlnet.config import RunConfig
from nlnet.distributed.ranks import STOPPED, launch
from nlnet.errors import UsageError, UserError

RESOLVED = "--resolved"  # what a rank is started with: the path of the run's config.yaml
ERROR_FILE = "NLNET_ERROR_FILE"  # environment variable: where ranks leave their error, once
MISTAKES = (UserError, HydraException, OmegaConfBaseException)  # the user's, told in one line


def run_tool(main: Callable[[], Any], doc: str | None = None) -> None:
    """Run a tool: `--help` prints its docstring, a mistake of the user's ends in one line.

    Exit codes: 1 for a UserError, 2 for wrong words in overrides or config, 130 for Ctrl-C.
    """
    # Hydra's parser takes no word for a run behind -m.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word in ("-m", "--multirun"))
    if doc is not None and {"-h", "--help"} & set(sys.argv[1:]):
        print(doc.strip() + "\n\n" + group_choices())
        return
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors through to this place
    try:
        main()
    except MISTAKES as error:
        fail_with(error)
    except KeyboardInterrupt:
        fail("interrupted; the same command resumes", 130)


def fail_with(error: Exception) -> None:
    """Exit with the one line of a mistake: code 2 for wrong words, 1 for what they lead to."""
    if isinstance(error, UserError):
        fail(str(error), 2 if isinstance(error, UsageError) else 1)
    fail(explain(error), 2)


def fail(message: str, code: int) -> None:
    """Say an error and exit; a rank leaves it to the process that launched all ranks."""
    if ERROR_FILE not in os.environ:
        print(f"error: {message}", file=sys.stderr)
    else:
        # Ranks mostly fail alike: the first one speaks for all.
        with suppress(FileExistsError), open(os.environ[ERROR_FILE], "x") as file:
            file.write(message)
    sys.exit(code)


def is_rank() -> bool:
    """Whether a launcher (ours, torchrun, SLURM) has made this process one of several ranks."""
    return "RANK" in os.environ


def launch_ranks(tool: Path, config: Path, num_procs: int) -> None:
    """Run a tool's ranks as fresh processes that read a resolved configuration; wait for them.

    Raises the first error of a rank.
    """
    with tempfile.TemporaryDirectory() as folder:
        error = Path(folder) / "error"
        os.environ[ERROR_FILE] = str(error)
        try:
            code = launch([sys.executable, str(tool), RESOLVED, str(config)], num_procs)
        finally:
            del os.environ[ERROR_FILE]
        if code != 0:
            raise_for(code, error.read_text() if error.exists() else None)


def raise_for(code: int, message: str | None) -> None:
    """Make the end of ranks one's own: their message if they left one, else what the code says."""
    if message is not None:
        raise (UsageError if code == 2 else UserError)(message)
    if code in STOPPED:
        sys.exit(code)
    if code > 128:
        raise UserError(
            f"a rank was ended by {signal.Signals(code - 128).name}, perhaps for want of memory; "
            "the same command resumes from the last checkpoint"
        )
    raise UserError(f"a rank ended with code {code}; its error stands above")


def to_run(cfg: DictConfig) -> Any:
    """The composed configuration as its dataclasses, RunConfig or a kind of it.

    Raises UsageError for a key that was added with + but that nothing would read, and for an empty
    name.
    """
    run = OmegaConf.to_object(cfg)
    assert isinstance(run, RunConfig)
    if not run.name:
        raise UsageError("name is empty; it names the output folder: give name=NAME")
    known = flatten(OmegaConf.to_container(OmegaConf.structured(run)))
    for key in flatten(OmegaConf.to_container(cfg)):
        if key not in known:
            raise UsageError(f"{key} is no key of a run; see --cfg job for every key")
    return run
