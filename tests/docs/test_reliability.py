"""Each test that the pages about faults name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("page", "least"), [("reliability.md", 20), ("machines.md", 5)])
def test_the_named_tests_exist(page: str, least: int):
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "docs" / page).read_text())
    assert len(named) > least
    assert not [name for name in named if not (ROOT / name).exists()]
