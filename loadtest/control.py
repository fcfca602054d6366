"""To see and to stop a run from another terminal: each driver listens on a socket that only its user can open.

A client says what it wants in one line and is then told what the driver's own view is told: how far it is, each sentence,
and how it ended. The kernel closes a dead driver's socket, so that nobody waits for one in vain.
"""

import os
import queue
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from loadtest.errors import RunFailed, UserError
from loadtest.progress import Progress, Watch
from loadtest.run import Interrupts, Snapshot

if TYPE_CHECKING:
    from loadtest.live import View

ATTACH, STOP = b"attach\n", b"stop\n"
BEHIND = 256  # messages that a client may be behind; of more it misses the oldest
LENGTH = struct.Struct("!I")
INTERNAL_ERROR = 4


class Said(Struct, tag="said"):
    words: str


class Seen(Struct, tag="seen"):
    progress: Progress


class Over(Struct, tag="over"):
    exit_status: int
    directory: str
    failure: str = ""  # why there is no report


Message = Said | Seen | Over

_encode = msgspec.msgpack.Encoder().encode


class Control:
    """Within `with`: clients of this run are served. What is told here never waits for one of them."""

    def __init__(self, run: str, directory: Path, interrupts: Interrupts) -> None:
        self._directory = str(directory)
        self._interrupts = interrupts
        self._run = run
        self._path = _directory() / f"{run}.sock"
        self._lock = threading.Lock()
        self._clients: list[queue.Queue[bytes | None]] = []
        self._threads: list[threading.Thread] = []
        self._last = _encode(Said("starting"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._over = False

    def __enter__(self) -> "Control":
        try:
            self._listen()
        except OSError as e:  # also where the path is too long for one
            self._listener.close()
            raise RunFailed(
                f"no socket can be made at {self._path}: {e}; set XDG_RUNTIME_DIR to a short path"
            ) from None
        except RunFailed:
            self._listener.close()
            raise
        threading.Thread(target=self._accept, name="control", daemon=True).start()
        return self

    def _listen(self) -> None:
        new = self._path.with_suffix(f".{os.getpid()}")  # nobody finds it before it can answer
        try:
            self._listener.bind(str(new))
            self._listener.listen()
            if _is_served(self._path):
                raise RunFailed(
                    f"a run {self._run} goes on on this machine (loadtest attach {self._run}); give another --run-id; "
                    "nothing was sent"
                )
            new.rename(self._path)
        finally:
            new.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            status = error.exit_status if isinstance(error, UserError) else INTERNAL_ERROR
            self._tell(Over(status, self._directory, str(error) or type(error).__name__))
        with self._lock:
            self._over = True
            for client in self._clients:
                _put(client, None)
        self._path.unlink(missing_ok=True)
        self._listener.close()
        for thread in self._threads:
            thread.join(1)

    def beside(self, view: "View") -> "Beside":
        """A view that shows what `view` does, and tells it the clients too."""
        return Beside(view, self)

    def say(self, words: str) -> None:
        self._tell(Said(words))

    def draw(self, progress: Progress) -> None:
        self._tell(Seen(progress))

    def end(self, exit_status: int) -> None:
        self._tell(Over(exit_status, self._directory))

    def _tell(self, message: Message) -> None:
        payload = _encode(message)
        with self._lock:
            self._last = payload
            for client in self._clients:
                _put(client, payload)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # the run is over
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self._threads.append(thread)  # now: nobody can wait for one that has not begun

    def _serve(self, connection: socket.socket) -> None:
        messages: queue.Queue[bytes | None] = queue.Queue(BEHIND)
        with connection, suppress(OSError):
            wish = connection.makefile("rb").readline(64)
            if not wish:
                return  # somebody who only wanted to know whether anybody is here
            with self._lock:
                messages.put(self._last)
                if self._over:
                    messages.put(None)
                self._clients.append(messages)
            try:
                if wish == STOP:
                    self._interrupts.interrupt()
                while (payload := messages.get()) is not None:
                    connection.sendall(LENGTH.pack(len(payload)) + payload)
            finally:
                with self._lock:
                    self._clients.remove(messages)


class Beside:
    """Keeps watch once for both."""

    def __init__(self, view: "View", control: Control) -> None:
        self._view = view
        self._control = control
        self._watch = Watch()

    def __enter__(self) -> "Beside":
        self._view.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.__exit__(kind, error, trace)

    def say(self, words: str) -> None:
        self._control.say(words)
        self._view.say(words)

    def show(self, snapshot: Snapshot) -> None:
        self.draw(self._watch.take(snapshot))

    def draw(self, progress: Progress) -> None:
        self._control.draw(progress)
        self._view.draw(progress)


def _put(client: "queue.Queue[bytes | None]", payload: bytes | None) -> None:
    """Under the lock. How the run ended is told last, and so is never what a client misses."""
    if client.full():
        with suppress(queue.Empty):  # it was read meanwhile
            client.get_nowait()
    client.put_nowait(payload)


# the other end


def attach(run: str, quiet: bool = False) -> int:
    """Show a run until it is over; the run's own exit status."""
    return _follow(run, ATTACH, quiet)


def stop(run: str, quiet: bool = False) -> int:
    """End a run as its first Ctrl-C would, and show how it ends. Twice: at once.

    "last" is not enough where several go on: the newest one may be somebody else's, and paid for.
    """
    known = _going_on()
    if run == "last" and len(known) > 1:
        raise RunFailed(f"{len(known)} runs go on on this machine: {', '.join(known[-5:])}; write which is to end")
    return _follow(run, STOP, quiet)


def status(run: str) -> None:
    """What a run does at this moment, in a line a target."""
    from loadtest import live

    name = find(run)
    match next(_messages(name, ATTACH), None):
        case Said(words):
            print(f"{name}: {words}")
        case Seen(progress):
            for line in live.lines(progress):
                print(f"{name}: {line}")
        case Over(exit_status):
            print(f"{name}: over, exit status {exit_status}")
        case None:
            print(f"{name}: its driver says nothing")


def has_begun(run: str) -> bool:
    """Whether a driver has anything to show yet. What it waits for is said on standard error."""
    if not (_directory() / f"{run}.sock").exists():
        return False
    with suppress(RunFailed):
        for message in _messages(run, ATTACH):
            match message:
                case Said(words):
                    print(words, file=sys.stderr)
                case Seen(progress) if progress.phase != "starting":
                    return True
                case Over(failure=""):
                    return True
    return False


def find(run: str) -> str:
    """The one run that goes on here and that `run` means: its id, the beginning of one, or "last"."""
    known = _going_on()
    if run == "last" and known:
        return known[-1]
    if run == "last":
        raise RunFailed("no run goes on on this machine; loadtest report last tells of the newest stored one")
    found = [name for name in known if name == run] or [name for name in known if name.startswith(run)]
    if len(found) == 1:
        return found[0]
    here = f"those that do: {', '.join(known[-5:])}" if known else "none of yours does"
    what = f"{run} is the beginning of {len(found)} runs" if found else f"no run {run} goes on on this machine"
    raise RunFailed(f"{what}; {here} (loadtest runs lists what is stored)")


def _going_on() -> list[str]:
    return sorted(path.stem for path in _directory().glob("*.sock") if _is_served(path))


def _follow(run: str, wish: bytes, quiet: bool) -> int:
    from loadtest import closing, live

    name = find(run)
    over: Over | None = None
    try:
        with live.view(quiet) as view:
            for message in _messages(name, wish):
                match message:
                    case Said(words):
                        view.say(words)
                    case Seen(progress):
                        view.draw(progress)
                    case Over():
                        over = message
                        break
    except KeyboardInterrupt:
        print(f"\nrun {name} goes on: loadtest attach {name}, loadtest stop {name}")
        raise
    if over is None:
        raise RunFailed(
            f"the driver of run {name} ended without a word; its log is beside its results, if it was detached"
        )
    if over.failure:
        raise RunFailed(f"run {name} ended without a report: {over.failure}")
    figures = msgspec.json.decode((Path(over.directory) / "summary.json").read_bytes())
    closing.final(figures, Path(over.directory))
    return over.exit_status


def _messages(run: str, wish: bytes) -> Iterator[Message]:
    with socket.socket(socket.AF_UNIX) as connection:
        if not _connected(connection, _directory() / f"{run}.sock"):
            raise RunFailed(f"the driver of run {run} is gone; loadtest report {run} tells what is stored")
        connection.sendall(wish)
        decode = msgspec.msgpack.Decoder(Message).decode
        with connection.makefile("rb") as stream:
            while len(head := stream.read(LENGTH.size)) == LENGTH.size:
                yield decode(stream.read(LENGTH.unpack(head)[0]))


def _is_served(path: Path) -> bool:
    """Whether a driver listens there, or may do so."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            return _connected(connection, path)
        except RunFailed:
            return True


def _connected(connection: socket.socket, path: Path) -> bool:
    """What a killed driver left behind is cleared away."""
    try:
        connection.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return False
    except FileNotFoundError:
        return False
    except OSError as e:
        raise RunFailed(f"the socket {path} cannot be reached: {e}") from None
    return True


def _directory() -> Path:
    """Where sockets are, short enough for one: of this user alone."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "loadtest" if base else Path(f"/tmp/loadtest-{os.getuid()}")  # TMPDIR may be too long
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as e:
        where = f"{path.parent}: {e.strerror}"
        raise RunFailed(f"no socket can be made in {where}; set XDG_RUNTIME_DIR to a directory of yours") from None
    if path.stat().st_uid != os.getuid() or path.stat().st_mode & 0o077:
        raise RunFailed(f"{path} must belong to you alone, and does not; remove it or set XDG_RUNTIME_DIR")
    return path
