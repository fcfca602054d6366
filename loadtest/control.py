"""To see and to stop a run from another terminal: each driver listens on a socket that only its user can open.

A client says what it wants in one line and is then told what the driver's own view is told: how far it is, each sentence,
and how it ended. The kernel closes a dead driver's socket, so that nobody waits for one in vain. How a run ended stays beside
the sockets, so that who comes too late is told the same.
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
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from loadtest.errors import RunFailed, UserError
from loadtest.progress import Progress, Watch
from loadtest.run import Interrupts, Snapshot

if TYPE_CHECKING:
    from loadtest.live import View

ATTACH, STOP = b"attach\n", b"stop\n"
BEHIND = 256  # messages that a client may be behind; of more it misses the oldest
ENDED = ".ended"
KEPT = 64  # ends of runs; of more the oldest are forgotten
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
        self._end = b""  # how the run has ended
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
        if self._end:
            with suppress(OSError):  # a full disk keeps nobody from the end
                _keep(self._path.with_suffix(ENDED), self._end)
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
            if isinstance(message, Over):
                self._end = payload
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


def _keep(path: Path, end: bytes) -> None:
    new = path.with_suffix(f".{os.getpid()}")
    try:
        new.write_bytes(end)
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)  # of a full disk
    for old in _ends()[:-KEPT]:
        old.unlink(missing_ok=True)


def _ends() -> list[Path]:
    """Of the runs that have ended here, the newest last."""
    ages = []
    for path in _directory().glob(f"*{ENDED}"):
        with suppress(FileNotFoundError):  # it was the oldest
            ages.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(ages)]


# the other end


def attach(run: str, quiet: bool = False) -> int:
    """Show a run until it is over, or what one came to that is; the run's own exit status."""
    name, ended = find(run)
    return _outcome(name, ended or _follow(name, ATTACH, quiet))


def stop(run: str, quiet: bool = False) -> int:
    """End a run as its first Ctrl-C would, and show how it ends, or has ended. Twice: at once.

    "last" is not enough where several go on: the newest one may be somebody else's, and paid for.
    """
    known = _going_on()
    if run == "last" and not known:
        raise RunFailed("no run goes on on this machine; loadtest status tells how the last one ended")
    if run == "last" and len(known) > 1:
        raise RunFailed(f"{len(known)} runs go on on this machine: {', '.join(known[-5:])}; write which is to end")
    name, ended = find(run)
    return _outcome(name, ended or _follow(name, STOP, quiet))


def status(run: str) -> None:
    """What a run does at this moment, in a line a target; or how it has ended."""
    from loadtest import live

    name, ended = find(run)
    match ended or next(_messages(name, ATTACH), None):
        case Said(words):
            print(f"{name}: {words}")
        case Seen(progress):
            for line in live.lines(progress):
                print(f"{name}: {line}")
        case Over() as over:
            print(f"{name}: over, exit status {over.exit_status}{_in_words(over)}")
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


def find(run: str) -> tuple[str, Over | None]:
    """The one run that `run` means, its id, the beginning of one, or "last": one that goes on here, or else one that has
    ended here, and how."""
    going_on = _going_on()
    ended = {path.stem: path for path in _ends()}
    if run in ended and run not in going_on:
        return run, _read(ended[run])
    for known in (going_on, list(ended)):
        if run == "last" and known:
            found = known[-1:]
        else:
            found = [name for name in known if name == run] or [name for name in known if name.startswith(run)]
        if len(found) > 1:
            raise RunFailed(f"{run} is the beginning of {len(found)} runs: {', '.join(found[-5:])}; write more of it")
        if found:
            return found[0], None if known is going_on else _read(ended[found[0]])
    listed = [*ended, *going_on]
    here = f"those known here: {', '.join(listed[-5:])}" if listed else "none of yours did"
    what = "no run goes" if run == "last" else f"no run {run} goes"
    raise RunFailed(f"{what} on on this machine, nor has one ended here; {here} (loadtest runs lists what is stored)")


def _read(path: Path) -> Over:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Over)
    except (OSError, msgspec.DecodeError) as e:
        raise RunFailed(
            f"how run {path.stem} ended cannot be read: {e}; loadtest report {path.stem} tells of it"
        ) from None


def _going_on() -> list[str]:
    return sorted(path.stem for path in _directory().glob("*.sock") if _is_served(path))


def _follow(name: str, wish: bytes, quiet: bool) -> Over:
    from loadtest import live

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
    return over


def _outcome(name: str, over: Over) -> int:
    """Printed; the run's own exit status."""
    from loadtest import closing

    directory = Path(over.directory)
    if over.failure:
        print(f"loadtest: run {name} ended without a report: {over.failure}", file=sys.stderr)
    elif figures := _figures(directory):
        closing.final(figures, directory)
    else:
        print(
            f"loadtest: run {name} ended with exit status {over.exit_status}; its results are no longer in {directory}; "
            f"loadtest report {name} makes them again from the store",
            file=sys.stderr,
        )
    return over.exit_status


def _in_words(over: Over) -> str:
    from loadtest.report.headline import headline
    from loadtest.report.model import summary_of

    directory = Path(over.directory)
    if over.failure:
        return f", without a report: {over.failure}"
    if figures := _figures(directory):
        return f": {headline(summary_of(figures)).sentence}\n  report: {directory / 'report.html'}"
    return f"; its results are no longer in {directory}"


def _figures(directory: Path) -> dict[str, Any]:
    """summary.json; nothing where it has been removed."""
    try:
        return dict(msgspec.json.decode((directory / "summary.json").read_bytes()))
    except FileNotFoundError:
        return {}


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
