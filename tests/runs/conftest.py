import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[1] / "trainer" / "tiny_run.py"


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """A complete run with a tiny network, and its parts."""
    spec = importlib.util.spec_from_file_location("tiny_run", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
