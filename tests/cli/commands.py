"""What the tests of commands share: a composed run, and a tool as a command of its own."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from hydra import compose, initialize_config_dir

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import RunConfig, register_schemas
from tests.commands import run_python

ROOT = Path(__file__).parents[2]


def run_config(*overrides: str, experiment: str | None = "smoke") -> RunConfig:
    register_schemas()
    words = overrides if experiment is None else [f"+experiment={experiment}", *overrides]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return to_run(compose("run", overrides=list(words)))


def tool(
    name: str, *words: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_python([str(ROOT / "tools" / f"{name}.py"), *words], cwd, env=env)
