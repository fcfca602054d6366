"""A directory as a store: who serves it, who uses it, and how the two find each other.

Files in the directory, besides the engine's `data`:

    lock           held exclusively, for its whole life, by the one process that serves the directory; holds its pid
    lease          held shared by every process that uses the store; when nobody does, the server ends
    server.json    where the server listens and the passwords; readable by the owner alone; written when it is ready
    server.log     what the server had to say
    reader.password  of the user `reader`, for programs that query the store; the same for the directory's whole life,
                   readable by the owner alone; removing it makes the next server think of another

The kernel drops flocks with the process that held them, so kill -9 anywhere leaves nothing that blocks. A lock file may
be removed by whoever holds it exclusively; so a lock counts only if its file is still the one in the directory.
"""

import fcntl
import os
import pwd
import re
import secrets
import select
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec

from loadtest.store.address import Address
from loadtest.store.errors import DirectoryUnusable, StoreNotStarted, StoreOwned, StoreUnavailable

LOCK, LEASE, SERVER, LOG = "lock", "lease", "server.json", "server.log"
READER_PASSWORD = "reader.password"
DATABASE = "loadtest"
POLL_S = 0.02
PING_S = 2
LEAST_PASSWORD = 16  # characters: what is shorter was not made here, or broke off
LOG_BYTES = 1_000_000  # of each of two log files
MAKE_WAY_S = 10  # a server that nobody uses ends within this
SILENCE_S = 30  # a server that is starting says what it does; this long without a word is too long
READY = b"ready\n"
OWNED = b"owned\n"

_KEPT = re.compile(r"PATH|HOME|USER|TMPDIR|LANG|VIRTUAL_ENV|(PYTHON|LC_|LD_|DYLD_)\w+")


class Server(msgspec.Struct, frozen=True):
    """The content of server.json."""

    pid: int
    port: int
    passwords: dict[str, str]  # by user: default may do anything, reader may only read

    def __repr__(self) -> str:
        return f"Server(pid={self.pid}, port={self.port})"

    def address(self, directory: Path, user: str = "default") -> Address:
        return Address("http", "127.0.0.1", self.port, DATABASE, user, self.passwords[user], directory=str(directory))


def try_lock(path: Path, operation: int) -> int | None:
    """A descriptor that holds `path` (LOCK_SH or LOCK_EX), or None if another process is in the way."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
            if _still_there(path, fd):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _still_there(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _of_whom(path: Path) -> str:
    """Where it is somebody else's."""
    try:
        uid = path.stat().st_uid
        return f" (it is {pwd.getpwuid(uid).pw_name}'s)" if uid != os.geteuid() else ""
    except (OSError, KeyError):
        return ""


class Lease:
    """This process's claim that the server of a directory stay alive."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, directory: Path) -> "Lease":
        """Also makes the directory. Waits while a server that nobody used is on its way out."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            deadline = time.monotonic() + SILENCE_S
            while (fd := try_lock(directory / LEASE, fcntl.LOCK_SH)) is None:
                if time.monotonic() > deadline:
                    raise StoreOwned(
                        f"the store {directory} is being closed by process {owner(directory)}, which hangs"
                    )
                time.sleep(POLL_S)
        except OSError as error:
            raise DirectoryUnusable(
                f"{directory} cannot hold a store: {error.strerror or error}{_of_whom(directory)}; name another directory, "
                "by --store or LOADTEST_STORE"
            ) from error
        return cls(fd)

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def owner(directory: Path) -> int | None:
    """The pid of the process that serves a directory; None if nobody does."""
    path = directory / LOCK
    if not path.exists():
        return None
    fd = try_lock(path, fcntl.LOCK_SH)
    if fd is not None:
        os.close(fd)
        return None
    try:
        return int(path.read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def reader_of(directory: str) -> Address:
    """The address of a running server for the user who may only read."""
    server = read_server(Path(directory))
    if server is None:
        raise StoreUnavailable(f"the store {directory} does not answer: its server is gone")
    return server.address(Path(directory), "reader")


def reader_password(directory: Path) -> str:
    """The one that stands in the directory's file, else a new one, put there. For the process that owns the lock."""
    path = directory / READER_PASSWORD
    try:
        known = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        known = ""
    if len(known) < LEAST_PASSWORD:
        known = secrets.token_urlsafe(24)
        _write_private(path, known.encode() + b"\n")
    path.chmod(0o600)
    return known


def read_server(directory: Path) -> Server | None:
    try:
        return msgspec.json.decode((directory / SERVER).read_bytes(), type=Server)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_server(directory: Path, server: Server) -> None:
    """Appears at once and whole; never readable by others, not even for a moment."""
    _write_private(directory / SERVER, msgspec.json.encode(server))


def _write_private(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    part.replace(path)


def make_way(directory: Path, port: int, patience_s: float = MAKE_WAY_S) -> None:
    """Wait while a server at another port is on its way out. Whoever calls holds no lease yet, which would keep it."""
    deadline = time.monotonic() + patience_s
    while (pid := owner(directory)) is not None:
        server = read_server(directory)
        if server and server.pid == pid and server.port == port:
            return
        if time.monotonic() > deadline:
            at = f"at port {server.port}" if server else "by a server that does not say where"
            raise StoreOwned(
                f"the store {directory} is served {at} already, for commands that use it now; end those, or leave "
                f"the port {port} out"
            )
        time.sleep(POLL_S)


def find_or_start(directory: Path, patience_s: float = SILENCE_S, port: int | None = None) -> Address:
    """The address of the directory's server, started if there is none. Whoever calls holds a lease.

    `port` is where a server that is started listens; None: where the kernel likes.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        pid = owner(directory)
        if pid is None:
            _start(directory, port)
        else:
            server = read_server(directory)
            if server and server.pid == pid and _answers(server.port):
                return server.address(directory)
            time.sleep(POLL_S)
    raise StoreOwned(
        f"the store {directory} belongs to process {pid}, which does not answer; end it, or use another directory"
    )


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=PING_S)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _start(directory: Path, port: int | None) -> None:
    """Start a server and return when it is ready, or when another process was first."""
    read_end, write_end = os.pipe()
    path = directory / LOG
    command = [sys.executable, "-P", "-m", "loadtest.store.embedded", str(directory), "--port", str(port or 0)]
    try:
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_name(LOG + ".1"))
        with path.open("ab") as log:
            begins = log.tell()
            launcher = subprocess.Popen(
                [*command, "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write_end],
                start_new_session=True,
                env=_environment(),
            )
        os.close(write_end)
        write_end = -1
        launcher.wait()  # it forks the server off and ends, so that the server is nobody's zombie
        _await_ready(directory, read_end, begins)
    except OSError as error:
        raise StoreNotStarted(f"the server of the store {directory} could not be started: {error}") from error
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)


def _environment() -> dict[str, str]:
    """What Python needs, in UTC: not the keys and passwords of the command that happened to start the server."""
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    return kept | {"TZ": "UTC"}


def _await_ready(directory: Path, fd: int, log_begins: int) -> None:
    said = b""
    heard_more = select.poll()  # select() cannot take descriptors beyond 1023
    heard_more.register(fd, select.POLLIN)
    while heard_more.poll(SILENCE_S * 1000):
        heard = os.read(fd, 4096)
        said += heard
        if said.endswith((READY, OWNED)):
            return
        if not heard:
            raise StoreNotStarted(
                f"the server of the store {directory} ended while starting: {_last_line(directory / LOG, log_begins)}\n"
                f"more in {directory / LOG}"
            )
    doing = said.decode().split("\n")[-2:-1] or ["starting"]
    raise StoreNotStarted(
        f"the server of the store {directory} said nothing for {SILENCE_S} s after {doing[0]!r}; see {directory / LOG}"
    )


def _last_line(path: Path, begins: int) -> str:
    lines = path.read_bytes()[begins:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
