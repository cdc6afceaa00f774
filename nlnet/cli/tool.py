"""What the tools share: help, errors as one line, run folders, the table of a sweep."""

import csv
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from textwrap import fill
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nlnet.config import ModelConfig, RunConfig, run_text
from nlnet.distributed.ranks import STOPPED, launch
from nlnet.errors import UsageError, UserError

CONFIG_DIR = Path(__file__).parents[2] / "configs"
RESOLVED = "--resolved"  # what a rank is started with: the path of the run's config.yaml
ERROR_FILE = "NLNET_ERROR_FILE"  # environment variable: where ranks leave their error, once
# Keys that say where and how fast a run is made, not what it computes.
FREE_KEYS = ("dist.", "data.num_workers", "data.root", "trainer.allocator", "trainer.fold_norms")
# Keys of a network that only training reads; norms answer alike, or are other weights.
TRAINING_KEYS = (
    "model.dropout",
    "model.norm",
    "model.zero_init_residual",
    "model.non_local.norm",
    "model.non_local.zero_init",
    "model.non_local.init",
)
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


def explain(error: Exception) -> str:
    """One line for an error of Hydra or OmegaConf: what, which key, where to look."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, MissingMandatoryValue):
        key = str(error).rsplit(" ", 1)[-1]
        return f"{key} is not set; give {key}=VALUE"
    if error.__cause__ is not None and "Could not override" in lines[0]:
        lines += [line.strip() for line in str(error.__cause__).splitlines()]
    keys = [line for line in lines if line.startswith("full_key:")]
    options = [i for i, line in enumerate(lines) if line.startswith("Available options")]
    text = lines[0]
    if keys and keys[0].split()[-1] not in text:
        text += f" at {keys[0].split()[-1]}"
    if options:
        group = lines[options[0]].split("'")[1]
        text += "; available: " + ", ".join(choices(CONFIG_DIR / group))
    return f"{text}; see --help, or --cfg job for every key"


def group_choices() -> str:
    """The config groups and their choices, from the files themselves."""
    lines = ["Groups (group=choice), below configs/:"]
    for folder in sorted(CONFIG_DIR.iterdir()):
        if folder.is_dir() and folder.name != "hydra":
            plus = "+" if folder.name in ("experiment", "sweep") else ""
            line = f"  {plus}{folder.name}: {', '.join(choices(folder))}"
            lines.append(fill(line, 100, subsequent_indent="    ", break_on_hyphens=False))
    lines.append("Every key with its value: add --cfg job. What each means: nlnet/config.py.")
    return "\n".join(lines)


def choices(group: Path) -> list[str]:
    """The choices of a config group, those in folders of their own included."""
    return sorted(
        path.relative_to(group).with_suffix("").as_posix() for path in group.rglob("*.yaml")
    )


def write_text(path: Path, text: str) -> None:
    """Write what a tool found out; raises UserError where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another") from error


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


def claim_folder(run: RunConfig, folder: Path) -> Path:
    """Take a run's folder, or find it taken by the same run; write its config.yaml.

    A folder without a log is free: nothing was begun in it. Returns the path of config.yaml.

    Raises UserError listing every difference if the folder belongs to another run.
    """
    path = folder / "config.yaml"
    if path.exists() and (folder / "log.txt").exists():
        found = flatten(OmegaConf.to_container(OmegaConf.load(path)))
        wanted = flatten(OmegaConf.to_container(OmegaConf.structured(run)))
        changes = differences(found, wanted, free=FREE_KEYS)
        if changes:
            raise UserError(
                f"{folder} holds a run with another configuration ({', '.join(changes)}); "
                "choose another folder with name=NAME, or remove this one"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(run_text(run))
    return path


def network_differences(config: str, model: ModelConfig) -> list[str]:
    """What makes a network answer otherwise than that of a run whose config.yaml is `config`.

    Of the keys of `model`, those that only training reads do not count, nor those of non-local
    blocks where there are none.
    """
    usual = answering_keys({"model": OmegaConf.to_container(OmegaConf.structured(ModelConfig))})
    found = usual | answering_keys(OmegaConf.to_container(OmegaConf.create(config)))
    wanted = answering_keys({"model": OmegaConf.to_container(OmegaConf.structured(model))})
    stages = [f"model.non_local.res{stage}" for stage in (2, 3, 4, 5)]
    has_blocks = any(keys[stage] for keys in (found, wanted) for stage in stages)
    return differences(found, wanted, free=() if has_blocks else ("model.non_local.",))


def answering_keys(run: Any) -> dict[str, Any]:
    """The keys of a run that its network's answers follow from."""
    return {
        key: value
        for key, value in flatten(run).items()
        if key.startswith("model.") and key not in TRAINING_KEYS
    }


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], free: tuple[str, ...] = ()
) -> list[str]:
    """`key old -> new` of every key whose values differ, but for those that begin as in `free`."""
    return [
        f"{key} {found.get(key)} -> {wanted.get(key)}"
        for key in sorted({**found, **wanted})
        if found.get(key) != wanted.get(key) and not key.startswith(free)
    ]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys."""
    if not isinstance(tree, Mapping):
        return {prefix[:-1]: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}."))
    return flat


class OneLine(Callback):
    """Hydra's callback that ends a single run at a mistake, before Hydra adds lines of its own."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        error = job_return._return_value
        if config.hydra.mode.name == "RUN" and isinstance(error, MISTAKES):
            fail_with(error)


class SweepTable(Callback):
    """Hydra's callback that ends a sweep in one table of its runs.

    Each leaves its row in a folder that the start of the sweep has named, whichever process it was
    in. A run that fails does not stop the others; the sweep then ends with exit code 1.
    """

    def __init__(self) -> None:
        self.rows = Path()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        refuse_shared_folders(config)
        self.rows = Path(config.hydra.sweep.dir).absolute() / "rows"
        for path in self.rows.glob("*.json"):  # of an earlier sweep
            path.unlink()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode.name != "MULTIRUN":
            return
        folder = Path(config.hydra.runtime.output_dir)
        row = override_values(config.hydra.overrides.task)
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value
            row["error"] = str(error).splitlines()[0] if str(error) else type(error).__name__
            if not isinstance(error, UserError):
                traceback.print_exception(error)
            print(f"error: {row['error']}", file=sys.stderr)
            # The table tells of the failure; raised here it would stop the runs that follow.
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None
        elif (folder / "metrics.json").exists():
            metrics = json.loads((folder / "metrics.json").read_text())
            row.update({key: value for key, value in metrics.items() if is_number(value)})
        write_text(self.rows / f"{config.hydra.job.num:05d}.json", json.dumps(row))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = [json.loads(path.read_text()) for path in sorted(self.rows.glob("*.json"))]
        header, cells = sweep_table(rows)
        with (folder / "table.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *cells])
        table = markdown(header, cells)
        (folder / "table.md").write_text(table + "\n")
        print(f"\n{table}\n\n{len(rows)} runs; this table: {folder / 'table.md'}")
        failed = sum("error" in row for row in rows)
        if failed:
            fail(f"{failed} of {len(rows)} runs of the sweep failed; see the table", 1)


def refuse_shared_folders(config: DictConfig) -> None:
    """End a sweep of keys that its runs' folders are not named after: all would share one."""
    words = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = {word.key_or_group for word in words if word.is_sweep_override()}
    swept |= set(config.hydra.sweeper.params or {})
    unnamed = set(config.hydra.job.config.override_dirname.exclude_keys) - {"experiment", "name"}
    for key in sorted(swept & unnamed):
        fail(
            f"{key} cannot be swept, the folders of runs are not named after it; start a run for "
            f"each, with name=NAME {key}=VALUE",
            2,
        )


def override_values(overrides: Iterable[str]) -> dict[str, Any]:
    """Key -> value of the words of a run; a key that is taken away (`~key`) has none."""
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in parts}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def sweep_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells; an override that all runs share is no column."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    values = {key: {str(row.get(key)) for row in rows} for key in keys}
    header = [
        key for key in keys if len(values[key]) > 1 or all(is_number(row.get(key)) for row in rows)
    ]
    header.sort(key=lambda key: (key == "error", any(is_number(row.get(key)) for row in rows)))
    return header, [[cell(row.get(key, "")) for key in header] for row in rows]


def cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def markdown(header: list[str], cells: list[list[str]]) -> str:
    """A table whose columns line up on a terminal, too."""
    widths = [max(len(text) for text in column) for column in zip(header, *cells, strict=True)]
    lines = [header, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
