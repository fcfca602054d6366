"""What several test files share."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from loadtest.simulator import Profile, start
from loadtest.store import Store, open_store

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """Who is started in the background of a shell ignores Ctrl-C, and so would each command that a test starts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    """The URL, without /v1, of a quick and reliable simulated provider that keeps the truth of each request."""
    profile = Profile(name="test", decode_base_ms=1, decode_per_sequence_ms=0.01, default_output_tokens=16)
    with start(profile) as url:
        yield url


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An embedded store with the schema; tests keep apart by the names of their runs."""
    with open_store(str(tmp_path_factory.mktemp("store"))) as opened:
        opened.migrate()
        yield opened
