"""A run that outlives the terminal it was started in: its driver is a process of a session of its own.

Whatever the fleet is, it is the same driver: nothing moves to another place by detaching. Its output goes to `driver.log`
beside the run's results, and everybody of the same user reaches it by its socket (control.py), as they do any run.

The process is forked before anything else is imported, which fork would not survive.
"""

import os
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from loadtest.errors import UserError

LOG = "driver.log"
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def new_run_id() -> str:
    """Sortable by time, unique without asking anyone."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def good_id(run: str | None) -> str:
    """The one asked for, or a new one."""
    if run is None:
        return new_run_id()
    if not RUN_ID.fullmatch(run):
        raise UserError(
            f"--run-id is {run!r}; write 1 to 63 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return run


def apart(run: str, directory: Path) -> int | None:
    """Go on in a process of its own: None there. Here, once its load has begun, 0; or what it ended with before that."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / LOG
    sys.stdout.flush()
    sys.stderr.flush()
    driver = os.fork()
    if driver == 0:
        _leave_terminal(log)
        return None
    from loadtest import control

    while True:
        ended, status = os.waitpid(driver, os.WNOHANG)
        if ended:
            print(log.read_text(encoding="utf-8", errors="replace"), end="", file=sys.stderr)
            if not (directory / "summary.json").exists():
                _remove(log)
            return os.waitstatus_to_exitcode(status)
        if control.has_begun(run):
            break
        time.sleep(0.1)
    print(f"run {run} goes on in process {driver}; its results and its log will be in {directory}")
    print(f"  loadtest attach {run}   shows it; Ctrl-C leaves it alone\n  loadtest stop {run}     ends it in order")
    return 0


def _leave_terminal(log: Path) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for old, new in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(old, new)
    os.close(nothing)
    os.close(output)


def _remove(log: Path) -> None:
    """Of a run that never was there is nothing left, unless it left more than this."""
    log.unlink(missing_ok=True)
    try:
        log.parent.rmdir()
    except OSError:
        pass
