"""The parser of tools that take arguments and options, not words of a configuration."""

import argparse
from typing import NoReturn

from nlnet.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are UsageErrors, so that they are one line as in all tools."""

    def __init__(self, description: str | None, epilog: str | None = None) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise the error of a wrong argument."""
        raise UsageError(f"{message}; see --help")
