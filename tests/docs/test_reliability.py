"""Each test that docs/reliability.md names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_named_tests_exist():
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
