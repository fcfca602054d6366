"""The server of a directory: `python -m loadtest.store.embedded DIR`, started on demand by `open_store`.

chDB lets one process own a directory, and its work must not disturb the load generator. So it lives in a process of its
own, niced, with few threads, on a port of loopback that the kernel chose, behind passwords that it makes up itself (a
password in argv would be in the process list). It ends a few seconds after the last command that uses the store has.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.store import directory as files

if TYPE_CHECKING:
    import uvicorn

NICE = 19
GRACE_S = 5  # a command that follows another finds the server still there
LEASE_CHECK_S = 1
IDLE_CONNECTION_S = 600
STATUS_OWNED = 3
STATUS_NOT_SERVED = 4


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.store.embedded", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--ready-fd", type=int, help="detach, and say on this descriptor when the server is ready")
    parser.add_argument("--port", type=int, default=0, help="where to listen on loopback; 0: any free one")
    options = parser.parse_args()
    if options.ready_fd is not None and os.fork():
        os._exit(0)
    return serve(options.directory.absolute(), options.ready_fd, options.port)


def serve(directory: Path, ready_fd: int | None, port: int = 0) -> int:
    """Serve a directory until nobody uses it or a signal ends it; an exit status."""
    say = _speaker(ready_fd)
    os.umask(0o077)
    os.nice(NICE)  # before there are threads: on Linux they inherit it from the one that makes them
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _own(directory)
    if lock is None:
        if ready_fd is None:
            print(f"{directory} is served by process {files.owner(directory)} already", file=sys.stderr)
        say(files.OWNED)
        return STATUS_OWNED
    _log_to(directory / files.LOG)
    os.chdir(directory)  # chDB takes what follows a '?' in a path for options; where we were started may be unmounted
    try:
        with _listening(port) as listener:
            lease = _run(directory, listener, say)
    except PortTaken as error:
        print(error, file=sys.stderr)
        return STATUS_NOT_SERVED
    finally:
        (directory / files.SERVER).unlink(missing_ok=True)
        (directory / files.LOCK).unlink(missing_ok=True)
    if lease is not None:
        (directory / files.LEASE).unlink(missing_ok=True)
    return 0


class PortTaken(Exception):
    pass


def _listening(port: int) -> socket.socket:
    # the protocol is named because asyncio sets TCP_NODELAY only where it is: 1 ms instead of 45 for a query
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a fixed port is free again at once
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise PortTaken(f"port {port} of 127.0.0.1 cannot be had: {error.strerror}; choose another one") from None
    return listener


def _speaker(fd: int | None) -> Callable[[bytes], None]:
    """Lines to whoever started this process; the last one, READY or OWNED, ends the conversation."""

    def say(line: bytes) -> None:
        if fd is None:
            return
        with contextlib.suppress(BrokenPipeError):  # the starter was interrupted; others may still come
            os.write(fd, line)
        if line in (files.READY, files.OWNED):
            os.close(fd)

    return say


def _own(directory: Path) -> int | None:
    """Hold the directory's lock and write our pid into it. Tries for a moment: `owner` looks by locking shared."""
    deadline = time.monotonic() + 1
    while (lock := files.try_lock(directory / files.LOCK, fcntl.LOCK_EX)) is None:
        if time.monotonic() > deadline:
            return None
        time.sleep(files.POLL_S)
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _log_to(path: Path) -> None:
    """Warnings and worse, in a file of bounded size; what the engine itself prints on a crash goes there too."""
    handler = RotatingFileHandler(path, maxBytes=files.LOG_BYTES, backupCount=1)
    logging.basicConfig(
        handlers=[handler], level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _run(directory: Path, listener: socket.socket, say: Callable[[bytes], None]) -> int | None:
    """The server's life. Returns the lease, held exclusively, if it ended because nobody used it."""
    say(b"loading the engine\n")
    import uvicorn

    from loadtest.store.access import DEFAULT, READER
    from loadtest.store.engine import Engine
    from loadtest.store.http import Interface

    say(b"opening the tables\n")
    engine = Engine(Path("data"), files.DATABASE)
    passwords = {DEFAULT: secrets.token_urlsafe(24), READER: files.reader_password(directory)}
    interface = Interface(engine, passwords)
    config = uvicorn.Config(
        interface,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)
    with contextlib.closing(engine):
        port = listener.getsockname()[1]
        files.write_server(directory, files.Server(os.getpid(), port, passwords))
        say(files.READY)
        threading.Thread(target=engine.warm_up, daemon=True).start()
        return asyncio.run(_serve_while_used(server, listener, directory, lambda: interface.busy > 0))


async def _serve_while_used(
    server: "uvicorn.Server", listener: socket.socket, directory: Path, busy: Callable[[], bool]
) -> int | None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)  # uvicorn raises a signal anew after its shutdown; ours is still to come
    watch = asyncio.create_task(_until_unused(directory, busy))
    watch.add_done_callback(lambda _: setattr(server, "should_exit", True))
    await server.serve([listener])
    if watch.done():
        return watch.result()
    watch.cancel()
    return None


async def _until_unused(directory: Path, busy: Callable[[], bool]) -> int | None:
    """Returns when nobody has held the lease for GRACE_S, holding it; or None when the directory is gone."""
    unused_since_s: float | None = None
    while directory.exists():
        await asyncio.sleep(LEASE_CHECK_S)
        lease = files.try_lock(directory / files.LEASE, fcntl.LOCK_EX)
        now_s = time.monotonic()
        if lease is None or busy():
            unused_since_s = None
        elif unused_since_s is None:
            unused_since_s = now_s
        elif now_s - unused_since_s >= GRACE_S:
            return lease
        if lease is not None:
            os.close(lease)
    return None


if __name__ == "__main__":
    sys.exit(main())
