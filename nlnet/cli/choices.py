"""The config folder, its groups and the choices of each group."""

from pathlib import Path
from textwrap import fill

PACKAGE = Path(__file__).parents[1]
# A wheel holds configs/ and tools/ inside the package. A checkout has them beside it.
TOP = PACKAGE if (PACKAGE / "configs").is_dir() else PACKAGE.parent
CONFIG_DIR = TOP / "configs"
TOOL_DIR = TOP / "tools"
# Groups without a default: they are chosen with a plus.
ADDED_GROUPS = ("experiment", "sweep", "debug")


def config_groups() -> list[str]:
    """The names of the config groups."""
    folders = (path.name for path in CONFIG_DIR.iterdir() if path.is_dir())
    return sorted(name for name in folders if name != "hydra")


def choices(group: str) -> list[str]:
    """The choices of a config group, those in its subfolders included."""
    folder = CONFIG_DIR / group
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def group_word(group: str, choice: str) -> str:
    """A choice as it is typed: group=choice, with a plus for groups without a default."""
    return f"{'+' if group in ADDED_GROUPS else ''}{group}={choice}"


def group_choices() -> str:
    """The part of a tool's help that lists the config groups and their choices."""
    lines = ["Groups (group=choice), below configs/:"]
    for group in config_groups():
        plus = "+" if group in ADDED_GROUPS else ""
        line = f"  {plus}{group}: {', '.join(choices(group))}"
        lines.append(fill(line, 100, subsequent_indent="    ", break_on_hyphens=False))
    lines.append("Every key with its value: add --cfg job. What each means: nlnet/config/.")
    return "\n".join(lines)
