"""`loadtest ui`: the page served until Ctrl-C."""

import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from dashboards.page.app import app
from dashboards.page.guard import is_loopback, new_token
from dashboards.page.reader import Reader
from loadtest.errors import RunFailed
from loadtest.run import Interrupts
from loadtest.store import Store, open_store

END_S = 2  # what live pages that are still open get to end
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def ui(store: str | None, host: str, port: int, show: bool) -> None:
    """Serve until interrupted; `show` opens a browser."""
    with open_store(store) as database, Interrupts().caught() as interrupts:
        database.migrate()
        with serving(database, host, port) as url:
            print(f"{url}  the page of {database.address}, until Ctrl-C", flush=True)
            if not is_loopback(host):
                print("Whoever has this address may read the store; it is not encrypted. ssh -L is the safer way here.")
            if show:
                webbrowser.open(url)
            while not interrupts.count:
                interrupts.wait(3600)


@contextmanager
def serving(store: Store, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The page in a thread of its own; its address, with the token where one is needed. Port 0: any free one."""
    token = None if is_loopback(host) else new_token()
    listener = _listen(host, port)
    reader = Reader(store)
    config = uvicorn.Config(
        app(reader, token), log_level="error", access_log=False, timeout_graceful_shutdown=END_S, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page")
    thread.start()
    try:
        name = ANYWHERE.get(host, host)
        at = f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}/"
        yield f"{at}?token={token}" if token else at
    finally:
        reader.end()
        server.should_exit = True
        thread.join()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as e:
        why = e.strerror or str(e)
        raise RunFailed(f"nothing can listen at {host} port {port}: {why}; give another --port, or 0 for any") from None
