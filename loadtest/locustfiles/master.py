"""The process of Locust's own master: Locust's `main` as it is, beside the driver, which it tells how the test goes.

Before Locust's master quits or stops, all workers are asked to stop their users and to send their last figures: Locust
itself would leave half a second for that, and its own table would lack what took longer.
"""

import locust  # first: it monkey-patches what every other module imports  # isort: skip

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.os
from locust import main as locust_main

from loadtest.frames import Unpacker
from loadtest.locustfiles.frames import (
    MasterCommand,
    MasterFailed,
    MasterFrame,
    MasterReady,
    MasterReport,
    MasterSetup,
    MasterStop,
    decode_command,
    pack,
)

REPORT_EVERY_S = 0.1
ANSWER_WITHIN_S = 5


class Master:
    def __init__(self, setup: MasterSetup, frames_fd: int) -> None:
        self.setup = setup
        self.frames_fd = frames_fd
        self.environment: Any = None
        self.runner: Any = None
        self.web_ui: Any = None
        self.drain_s: float | None = None  # where the driver has set one
        self._waiting_for: set[str] = set()

    def run(self, commands: Iterator[MasterCommand]) -> None:
        gevent.spawn(self._follow, commands)
        locust.events.init.add_listener(self._on_init)
        sys.argv = [
            "locust", "-f", self.setup.locustfile, "--master", "--enable-rebalancing",
            "--master-bind-host", self.setup.bind_host, "--master-bind-port", "0", *self.setup.arguments,
        ]  # fmt: skip
        before = set(sys.modules)
        gevent.spawn(self._report_for_ever, before)
        try:
            locust_main.main()
        except SystemExit as e:
            if self.runner is None:
                self._say(MasterFailed(f"Locust ended with status {e.code}"))
                return
        self._say(self._report())

    def _on_init(self, environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
        self.environment, self.web_ui = environment, web_ui
        environment.parsed_options.loadtest_test = -1
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.test_stopping.add_listener(self._on_test_stopping)
        runner.register_message("loadtest_stopped", self._on_stopped)
        self.runner = runner

    def _on_test_start(self, environment: Any, **_: Any) -> None:
        """The workers get the options with their users: so all of them number the tests alike."""
        environment.parsed_options.loadtest_test += 1

    def _on_test_stopping(self, environment: Any, **_: Any) -> None:
        drain_s = environment.stop_timeout if self.drain_s is None else self.drain_s
        self._waiting_for = self._alive()
        for client_id in self._waiting_for:
            self.runner.send_message("loadtest_stop", {"drain_s": drain_s}, client_id)
        with gevent.Timeout(drain_s + ANSWER_WITHIN_S, False):
            while self._waiting_for & self._alive():
                gevent.sleep(0.02)

    def _alive(self) -> set[str]:
        clients = self.runner.clients
        return {client.id for client in clients.all} - {client.id for client in clients.missing}

    def _on_stopped(self, msg: Any, **_: Any) -> None:
        self._waiting_for.discard(msg.node_id)

    def _follow(self, commands: Iterator[MasterCommand]) -> None:
        for command in commands:
            if isinstance(command, MasterStop):
                self.drain_s = command.drain_s
                gevent.spawn(self._quit)
        os._exit(0)  # the driver is gone

    def _quit(self) -> None:
        if self.runner is None or self.environment.parsed_options.loadtest_test < 0:
            os._exit(0)  # no test has begun: Locust would go on waiting for its workers
        self.runner.quit()
        if self.web_ui is not None:
            self.web_ui.stop()

    def _report_for_ever(self, before: set[str]) -> None:
        while self.runner is None:
            gevent.sleep(0.01)
        try:
            self._say(self._ready(before))
        except Exception as e:  # noqa: BLE001 nobody would hear of it in a greenlet, and wait
            self._say(MasterFailed(f"{type(e).__name__}: {e}"))
            os._exit(1)
        while True:
            self._say(self._report())
            gevent.sleep(REPORT_EVERY_S)

    def _ready(self, before: set[str]) -> MasterReady:
        modules = _modules_beside(self.setup.locustfile, before)
        users = [user for user in self.environment.user_classes if hasattr(user, "key_reference") and user.key]
        keys = {user.__name__: user.key_reference() for user in users}
        return MasterReady(self.runner.server.port, modules, keys, self._page())

    def _page(self) -> str:
        if self.web_ui is None:
            return ""
        own = self.environment.parsed_options
        return f"{'https' if own.tls_cert else 'http'}://{own.web_host}:{own.web_port}{own.web_base_path}"

    def _report(self) -> MasterReport:
        runner = self.runner
        return MasterReport(
            state=runner.state,
            users=runner.user_count,
            target_users=runner.target_user_count,
            requests=runner.stats.total.num_requests,
            failures=runner.stats.total.num_failures,
            exceptions=sum(one["count"] for one in runner.exceptions.values()),
        )

    def _say(self, frame: MasterFrame) -> None:
        gevent.os.nb_write(self.frames_fd, pack(frame))


def _modules_beside(locustfile: str, before: set[str]) -> list[str]:
    """What the file imported from its own directory, for nodes that do not have it."""
    directory = os.path.dirname(os.path.abspath(locustfile))
    files = [getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before]
    own = {os.path.abspath(file) for file in files if file and "site-packages" not in file}
    return sorted(file for file in own if file.startswith(directory + os.sep))


def _commands(fd: int) -> Iterator[MasterCommand]:
    os.set_blocking(fd, False)
    unpacker = Unpacker()
    while data := gevent.os.nb_read(fd, 1 << 16):
        for payload in unpacker.feed(data):
            yield decode_command(payload)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Locust's master of a load test. Started by its driver, not by people."
    )
    parser.add_argument("frames_fd", type=int)
    frames_fd = parser.parse_args().frames_fd
    os.set_blocking(frames_fd, False)
    inbox = _commands(sys.stdin.fileno())
    setup = next(inbox, None)
    if not isinstance(setup, MasterSetup):
        return
    try:
        Master(setup, frames_fd).run(inbox)
    except Exception as e:
        gevent.os.nb_write(frames_fd, pack(MasterFailed(f"{type(e).__name__}: {e}")))
        raise


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
