"""A process that stands still closes nothing: a worker beside one must not go on sending for nobody."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.frames import UNREAD_STATUS
from tests.processes import alive, below, command, wait_until

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
WORKER = """
import sys
from loadtest.frames import Ready
from loadtest.outbox import UNREAD_LOOKS, Outbox
outbox = Outbox(int(sys.argv[1]))
for _ in range(3 * UNREAD_LOOKS):
    sys.stdin.readline()
    outbox.put(Ready(1, 1))
    outbox.flush()
    outbox.end_if_unread()
"""
PLAN = """
name: standstill
targets: [{{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: s, arrivals: {{kind: constant, rate: 20}}, duration_s: 120}}]
"""


@pytest.mark.parametrize("reads", [True, False])
def test_a_worker_ends_that_nobody_reads(reads: bool) -> None:
    ours, theirs = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(theirs)], pass_fds=(theirs,), stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:  # fmt: skip
        os.close(theirs)
        assert process.stdin
        assert process.stderr
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            while not reads or os.read(ours, 1 << 16):
                process.stdin.write(b"\n")
        os.close(ours)
        said = process.stderr.read().decode()
    if reads:
        assert (process.returncode, said) == (0, "")
    else:
        assert process.returncode == UNREAD_STATUS
        assert said == "the host of this worker has read nothing for 10 s; nothing more is sent\n"


@pytest.mark.timeout(300)
def test_beside_a_driver_that_is_suspended_nothing_is_sent(simulator: str, tmp_path: Path) -> None:
    """And when it goes on, the run is what it says it is."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.format(url=simulator))
    told = tmp_path / "told"
    with told.open("wb") as output:
        driver = subprocess.Popen(
            [LOADTEST, "run", str(plan), "--store", "store", "--out", "out"], cwd=tmp_path, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: " running a: " in told.read_text(), 60)
        [worker] = [pid for pid in below(driver.pid) if "loadtest.worker" in command(pid)]
        driver.send_signal(signal.SIGSTOP)
        wait_until(lambda: not alive(worker), 60)
        driver.send_signal(signal.SIGCONT)
        wait_until(lambda: "ended itself" in told.read_text(), 30)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(60) == 130
    finally:
        driver.kill()
        driver.wait()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    [reason] = [reason for reason in summary["validity"]["reasons"] if reason.startswith("worker_lost: ")]
    assert "worker 0 ended itself, as nobody had read what it measured for 10 s, in mid-run" in reason
    integrity = summary["integrity"]
    assert integrity["missed_by"]["worker_lost"] > 0
    assert integrity["scheduled"] == integrity["sent"] + integrity["missed"] + integrity["unknown"]
    assert "nothing more is sent" in (tmp_path / "out" / "worker-0.log").read_text()
