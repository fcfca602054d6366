"""Who used the machine meanwhile, worked out by hand; and that a program beside us is found on this one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtest.disturbance import Disturbance, Moment, between, moment

BEGIN = Moment(cores=2, busy_s=100, stolen_s=1, all_s=1000, own_s=50)


def test_what_is_neither_ours_nor_idle_was_used_by_others() -> None:
    """10 s of 2 cores: 9 s busy, 6 s of it ours, 2 s stolen."""
    found = between(BEGIN, Moment(cores=2, busy_s=109, stolen_s=3, all_s=1020, own_s=56), varied=0.1)
    assert (found.others, found.stolen, found.varied) == (0.15, 0.1, 0.1)
    assert list(found.reasons()) == [
        "other programs used 0.3 of 2 cores meanwhile (at most 10% are fine); end them",
        "the hypervisor gave 10% of this machine's CPU time to others (at most 5% are fine); use a machine with dedicated "
        "cores",
    ]


def test_ticks_are_coarser_than_our_own_seconds() -> None:
    assert between(BEGIN, Moment(cores=2, busy_s=105, stolen_s=1, all_s=1020, own_s=55.1), varied=0).others == 0
    assert list(Disturbance().reasons()) == []


def test_a_cost_that_does_not_hold_still() -> None:
    [reason] = Disturbance(varied=0.7).reasons()
    assert reason.startswith("what a request cost varied by 70% from round to round")


def test_where_a_system_tells_nothing_nothing_disturbs(tmp_path: Path) -> None:
    nothing = moment(tmp_path / "stat")
    assert between(nothing, nothing, varied=0) == Disturbance(cores=nothing.cores)
    (tmp_path / "stat").write_text("cpu  9 9 9 9 9 9 9 9 0 0\ncpu99999 9 9 9 9 9 9 9 9 0 0\n")
    assert moment(tmp_path / "stat") == nothing, "cores that are not ours"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc/stat")
def test_a_program_beside_us_is_found_and_a_child_of_ours_is_not() -> None:
    spin = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"]
    begin = moment()
    subprocess.run(spin, check=True, timeout=200)
    ours = moment()
    assert ours.own_s - begin.own_s > 0.4
    assert ours.busy_s - begin.busy_s > 0.4
    with subprocess.Popen(spin) as others:  # not waited for yet: as anybody's
        deadline = time.monotonic() + 60
        while os.waitid(os.P_PID, others.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        end = moment()
    found = between(ours, end, varied=0)
    assert found.others * (end.all_s - ours.all_s) > 0.4, (
        "the half second of the other one, and not just anybody's tick"
    )
