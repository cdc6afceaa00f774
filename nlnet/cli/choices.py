"""The config folder and the choices of its groups."""

from pathlib import Path
from textwrap import fill

PACKAGE = Path(__file__).parents[1]
# A wheel holds configs/ and tools/ inside the package. A checkout has them beside it.
TOP = PACKAGE if (PACKAGE / "configs").is_dir() else PACKAGE.parent
CONFIG_DIR = TOP / "configs"
TOOL_DIR = TOP / "tools"


def group_choices() -> str:
    """The config groups and their choices, from the files themselves."""
    lines = ["Groups (group=choice), below configs/:"]
    for folder in sorted(CONFIG_DIR.iterdir()):
        if folder.is_dir() and folder.name != "hydra":
            plus = "+" if folder.name in ("experiment", "sweep") else ""
            line = f"  {plus}{folder.name}: {', '.join(choices(folder))}"
            lines.append(fill(line, 100, subsequent_indent="    ", break_on_hyphens=False))
    lines.append("Every key with its value: add --cfg job. What each means: nlnet/config/.")
    return "\n".join(lines)


def choices(group: Path) -> list[str]:
    """The choices of a config group, those in folders of their own included."""
    return sorted(
        path.relative_to(group).with_suffix("").as_posix() for path in group.rglob("*.yaml")
    )
