"""The fixtures of small runs, as in tests/tools."""

from tests.tools.conftest import command, few_videos, tool, trained

__all__ = ["command", "few_videos", "tool", "trained"]
