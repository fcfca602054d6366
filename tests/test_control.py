"""What a driver's clients are told, over its own socket."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from loadtest.control import (
    ATTACH,
    BEHIND,
    KEPT,
    LENGTH,
    Control,
    Message,
    Over,
    Said,
    attach,
    find,
    status,
    stop,
)
from loadtest.errors import RunFailed
from loadtest.run import Interrupts

TOLD = 20 * BEHIND


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lt-"))  # short, as a socket's path must be
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    yield made
    shutil.rmtree(made)


def test_a_client_that_was_behind_misses_some_and_is_told_how_the_run_ended(sockets: Path, tmp_path: Path) -> None:
    """As one whose terminal was suspended."""
    with Control("r", tmp_path, Interrupts()) as driver, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(sockets / "loadtest" / "r.sock"))
        client.sendall(ATTACH)
        with client.makefile("rb") as stream:

            def read() -> Message:
                return msgspec.msgpack.decode(stream.read(LENGTH.unpack(stream.read(LENGTH.size))[0]), type=Message)

            assert read() == Said("starting")
            for number in range(TOLD):
                driver.say(f"{number} {'x' * 1000}")  # more than a socket's buffer holds
            driver.end(5)
            heard = [read()]
            while not isinstance(heard[-1], Over):
                heard.append(read())
    assert heard[-1] == Over(5, str(tmp_path))
    numbers = [int(message.words.split()[0]) for message in heard if isinstance(message, Said)]
    assert numbers == sorted(numbers)
    assert numbers[-1] == TOLD - 1
    assert len(numbers) < TOLD


def test_a_run_that_goes_on_is_not_taken_for_a_leftover(sockets: Path, tmp_path: Path) -> None:
    with Control("r", tmp_path, Interrupts()):
        with pytest.raises(RunFailed, match=r"a run r goes on on this machine .* give another --run-id"):
            Control("r", tmp_path, Interrupts()).__enter__()
        assert find("r") == ("r", None)
    assert not list((sockets / "loadtest").glob("*.sock"))


@pytest.mark.usefixtures("sockets")
def test_one_that_goes_on_is_meant_before_one_that_has_ended(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        with Control(name, tmp_path, Interrupts()) as driver:
            driver.end(5)
    assert find("r2") == find("last") == ("r2", Over(5, str(tmp_path)))
    with pytest.raises(RunFailed, match="r is the beginning of 2 runs"):
        find("r")
    with pytest.raises(RunFailed, match=r"no run x goes on on this machine, nor has one ended here; .* r1, r2"):
        find("x")
    with pytest.raises(RunFailed, match="no run goes on on this machine"):
        stop("last")
    with Control("r1", tmp_path, Interrupts()):
        assert find("r") == find("r1") == find("last") == ("r1", None)
    with Control("r12", tmp_path, Interrupts()):
        assert find("r") == ("r12", None)
        assert find("r1") == ("r1", Over(5, str(tmp_path))), "an id is never the beginning of another"


@pytest.mark.usefixtures("sockets")
def test_why_there_is_no_report_is_told_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunFailed), Control("r", tmp_path, Interrupts()):
        raise RunFailed("no node came")
    assert attach("r") == 2
    assert "run r ended without a report: no node came" in capsys.readouterr().err
    status("r")
    assert capsys.readouterr().out == "r: over, exit status 2, without a report: no node came\n"


def test_of_many_runs_the_newest_are_known(sockets: Path, tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        with Control(f"r{number}", tmp_path, Interrupts()) as driver:
            driver.end(0)
    assert len(list((sockets / "loadtest").iterdir())) == KEPT
    assert find("last")[0] == f"r{KEPT + 2}"


@pytest.mark.usefixtures("sockets")
def test_the_newest_of_several_runs_is_not_ended_unasked(tmp_path: Path) -> None:
    interrupts = Interrupts(), Interrupts()
    with Control("mine", tmp_path, interrupts[0]), Control("theirs", tmp_path, interrupts[1]):
        with pytest.raises(RunFailed, match="2 runs go on on this machine: mine, theirs; write which is to end"):
            stop("last")
        assert find("last") == ("theirs", None)
    assert [each.count for each in interrupts] == [0, 0]


def test_what_a_killed_driver_left_is_in_nobodys_way(sockets: Path, tmp_path: Path) -> None:
    path = sockets / "loadtest" / "r.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Control("r", tmp_path, Interrupts()):
        assert find("r") == ("r", None)
    assert not list((sockets / "loadtest").glob("*.sock"))


def test_a_socket_that_cannot_be_reached_for_another_reason_stays(sockets: Path) -> None:
    """Here it takes datagrams alone; it might as well be that no descriptor is free."""
    path = sockets / "loadtest" / "r.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(RunFailed, match=r"r\.sock cannot be reached: .*wrong type"):
            status("r")
    assert path.exists()
