"""The server of a directory as a process: started on demand, shared, gone when unused, and what a kill leaves."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.store import (
    BadSpec,
    DirectoryUnusable,
    StatementRefused,
    Store,
    StoreNotStarted,
    StoreOwned,
    StoreUnavailable,
    directory,
    open_store,
)

DEADLINE_S = 100
SPAN = {
    "Timestamp": [1_760_000_000_000_000_000],
    "TraceId": ["0" * 32],
    "SpanKind": ["Client"],
    "ScopeName": ["loadtest"],
    "SpanAttributes": [{"loadtest.run": "kept"}],
}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def server_of(path: Path) -> directory.Server:
    server = directory.read_server(path)
    assert server
    return server


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A fresh directory, not yet there; what still serves it in the end is ended."""
    path = tmp_path / "a place?with=odd" / "store"
    yield path
    if pid := directory.owner(path):
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))


def test_the_server_is_a_quiet_and_private_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "sk-someone's")
    monkeypatch.setenv("TZ", "America/New_York")
    with open_store(str(path)) as store:
        assert store.query("SELECT currentDatabase() AS name") == [{"name": "loadtest"}]
        assert store.address.embedded
        server = server_of(path)
        process = Path(f"/proc/{server.pid}")
        seen_by_others = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert b"sk-someone" not in seen_by_others
        assert store.query("SELECT timezone() AS zone") == [{"zone": "UTC"}]
        for password in server.passwords.values():
            assert len(password) >= 32
            assert password.encode() not in seen_by_others
            assert password not in repr(server) + repr(store.address)
        assert (path / "server.json").stat().st_mode & 0o777 == 0o600
        assert path.stat().st_mode & 0o777 == 0o700
        assert os.getpriority(os.PRIO_PROCESS, server.pid) == 19
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert {os.readlink(process / "fd" / fd) for fd in "012"} == {"/dev/null", str(path / "server.log")}
        assert (path / "server.log").read_text() == ""


def test_it_is_found_again_and_ends_when_nobody_uses_it(path: Path) -> None:
    with open_store(str(path)) as first, open_store(str(path)) as second:
        server = server_of(path)
        first.close()
        assert second.query("SELECT 1 AS x") == [{"x": 1}]
        assert server_of(path) == server
    with open_store(str(path)) as soon_after:
        assert soon_after.address.port == server.port
        assert alive(server.pid)
    until(lambda: not alive(server.pid))
    assert sorted(entry.name for entry in path.iterdir()) == ["data", "reader.password", "server.log"]
    assert (path / "server.log").read_text() == ""


def test_two_commands_at_once_on_a_fresh_directory(path: Path) -> None:
    code = (
        "import sys; from loadtest.store import open_store\n"
        "with open_store(sys.argv[1]) as store:\n"
        "    store.migrate(); print(store.address.port, flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(path)]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    ports = {process.stdout.readline() for process in running if process.stdout}
    ended = [process.communicate("\n", timeout=DEADLINE_S) for process in running]
    assert [(process.returncode, out, err) for process, (out, err) in zip(running, ended, strict=True)] == [
        (0, "", "")
    ] * 3
    assert ports == {f"{server_of(path).port}\n"}


def test_a_killed_server_loses_nothing_and_is_replaced(path: Path) -> None:
    def rows(store: Store) -> list[int]:
        return [store.query(f"SELECT count() AS n FROM {table}")[0]["n"] for table in ("otel_traces", "requests")]

    with open_store(str(path)) as store:
        store.migrate()
        store.insert("otel_traces", SPAN, token="batch 1")
        killed = server_of(path)
        os.kill(killed.pid, signal.SIGKILL)
        until(lambda: not alive(killed.pid))
        with pytest.raises(StoreUnavailable, match=f"the store {path} does not answer".replace("?", r"\?")):
            store.insert("otel_traces", SPAN, token="batch 2")
        with open_store(str(path)) as again:
            assert server_of(path).pid != killed.pid
            assert rows(again) == [1, 1]
            again.insert("otel_traces", SPAN, token="batch 1")  # whose acknowledgement might have been lost
            assert rows(again) == [1, 1]
            again.insert("otel_traces", SPAN, token="batch 2")
            assert rows(again) == [2, 2]
            assert again.migrate() == []


def test_a_terminated_server_ends_in_good_order(path: Path) -> None:
    with open_store(str(path)):
        pid = server_of(path).pid
        os.kill(pid, signal.SIGTERM)
        until(lambda: not alive(pid))
        assert sorted(entry.name for entry in path.iterdir()) == ["data", "lease", "reader.password", "server.log"]
        assert (path / "server.log").read_text() == ""


def test_a_second_owner_is_told_who_the_first_is(path: Path) -> None:
    with open_store(str(path)):
        command = [sys.executable, "-m", "loadtest.store.embedded", str(path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
        assert second.returncode == 3
        assert second.stderr == f"{path} is served by process {server_of(path).pid} already\n"


def test_an_owner_that_does_not_answer_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    lock = directory.try_lock(path / directory.LOCK, fcntl.LOCK_EX)
    assert lock
    os.write(lock, b"4711")
    with pytest.raises(StoreOwned, match="belongs to process 4711, which does not answer"):
        directory.find_or_start(path, patience_s=0.1)
    os.close(lock)


def test_a_start_that_fails_shows_the_last_line_of_the_log(path: Path) -> None:
    (path / "data" / "store").mkdir(parents=True)
    (path / "data" / "metadata").write_text("in the way")
    with pytest.raises(StoreNotStarted, match=r"ended while starting: .*metadata[\s\S]*more in .*server\.log"):
        open_store(str(path))


def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusable, match="file/store cannot hold a store: Not a directory"):
        open_store(str(tmp_path / "file" / "store"))


def test_a_lock_whose_file_was_removed_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = directory.try_lock(path, fcntl.LOCK_EX)
    assert first
    assert directory.try_lock(path, fcntl.LOCK_SH) is None
    path.unlink()
    second = directory.try_lock(path, fcntl.LOCK_EX)
    assert second
    os.close(first)
    assert directory.try_lock(path, fcntl.LOCK_SH) is None
    os.close(second)
    with closing(os.fdopen(directory.try_lock(path, fcntl.LOCK_SH) or -1)):
        assert directory.owner(tmp_path) is None


def test_the_readers_password_stays_and_is_the_owners_alone(path: Path) -> None:
    with open_store(str(path)):
        first = server_of(path)
        secret = path / directory.READER_PASSWORD
        assert secret.read_text() == first.passwords["reader"] + "\n"
        assert secret.stat().st_mode & 0o777 == 0o600
        os.kill(first.pid, signal.SIGTERM)
        until(lambda: not alive(first.pid))
    with open_store(str(path)):
        second = server_of(path)
        assert second.passwords["reader"] == first.passwords["reader"]
        assert second.passwords["default"] != first.passwords["default"]


def test_a_port_of_ones_own_choice(path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StoreNotStarted, match=f"port {port} of 127.0.0.1 cannot be had: Address already in use"):
            open_store(str(path), port=port)
    with open_store(str(path), port=port) as store:
        assert store.address.port == port
        with open_store(str(path), port=port) as same:
            assert same.query("SELECT 1 AS x") == [{"x": 1}]
        with pytest.raises(StoreOwned, match=f"is served at port {port} already.*leave the port {port + 1} out"):
            directory.make_way(path, port + 1, patience_s=0.1)
    with pytest.raises(BadSpec, match="a port of its own"):
        open_store("clickhouse://127.0.0.1:1/x", port=port)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_a_store_of_somebody_else_is_told_as_theirs(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / directory.LEASE).mkdir()  # root would be let in
    os.chown(theirs, 65534, 65534)
    told = r"theirs cannot hold a store: Is a directory \(it is \w+'s\); name another directory, by --store or LOADTEST_STORE"
    with pytest.raises(DirectoryUnusable, match=told):
        open_store(str(theirs))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=72m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_an_insert_without_room_is_refused_and_what_is_stored_can_be_read(small_disk: Path) -> None:
    """The engine itself would say that it was written."""
    with open_store(str(small_disk / "store")) as store:
        store.migrate()
        store.insert("otel_traces", SPAN, token="first")
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 8 << 20)
        with pytest.raises(StatementRefused, match=r"Not enough space: the disk of the store has [0-9]+ MiB left"):
            store.insert("otel_traces", SPAN, token="second")
        assert store.query("SELECT count() AS n FROM requests") == [{"n": 1}]
        filler.unlink()
        store.insert("otel_traces", SPAN, token="second")
        assert store.query("SELECT count() AS n FROM otel_traces") == [{"n": 2}]
