"""A server for the tests of a session."""

from collections.abc import Iterator

import pytest

from tests.serve.running import Server

MAX_MB = 20  # a smaller limit than the default keeps the tests short


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the demonstration network. Every test leaves it running and idle."""
    words = ("demo", "--port", "0", "--max-mb", str(MAX_MB), "--device", "cpu")
    with Server(words, tmp_path_factory.mktemp("server")) as running:
        yield running
