"""Scripts as modules. They are not in a package and import their neighbors by name."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parents[2] / "scripts"


def import_script(name: str) -> ModuleType:
    """The module of scripts/<name>.py."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))
