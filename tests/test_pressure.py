"""What a worker lacked: shares worked out by hand, from files as Linux writes them."""

import os
from pathlib import Path

import pytest

from loadtest.pressure import Gauge, Moment, Pressure, moment

SECOND_NS = 1_000_000_000


def busy(at_s: float, ran_s: float, waited_s: float = 0) -> Moment:
    return Moment(at_ns=round(at_s * 1e9), cpu_ns=round(ran_s * 1e9), waited_ns=round(waited_s * 1e9))


def test_busy_is_what_lasts_for_three_seconds() -> None:
    gauge = Gauge()
    for at_s, ran_s in ((0, 0), (1, 1), (2, 2), (3, 2.2)):  # two whole seconds, then little
        gauge.note(busy(at_s, ran_s))
    assert gauge.pressure.busiest == pytest.approx(2.2 / 3)
    for at_s, ran_s in ((4, 3.2), (5, 4.2), (6, 5.2), (7, 5.2)):
        gauge.note(busy(at_s, ran_s))
    assert gauge.pressure.busiest == pytest.approx(1)


def test_waiting_for_a_core_is_being_busy() -> None:
    gauge = Gauge()
    gauge.note(busy(0, 0))
    gauge.note(busy(4, 2, waited_s=1.6))
    assert (gauge.pressure.busiest, gauge.pressure.busiest_waited) == (pytest.approx(0.9), pytest.approx(0.4))


def test_one_long_silence_is_a_span_like_any_other() -> None:
    """A worker that computes for ten seconds on end says nothing meanwhile."""
    gauge = Gauge()
    for m in (busy(0, 0), busy(1, 0.1), busy(11, 10.1)):
        gauge.note(m)
    assert gauge.pressure.busiest == pytest.approx(1)


def test_nothing_is_measured_across_a_pause_or_within_less_than_three_seconds() -> None:
    gauge = Gauge()
    for m in (busy(0, 0), busy(2, 2)):
        gauge.note(m)
    gauge.pause()
    for m in (busy(10, 10), busy(12.5, 12.5)):
        gauge.note(m)
    assert gauge.pressure == Pressure()


def test_throttled_and_stolen_are_shares_of_all_the_time_that_was_watched() -> None:
    gauge = Gauge()
    gauge.note(Moment(at_ns=0, throttled_ns=500, stolen=7, ticks=1000))  # from before: only differences count
    gauge.note(Moment(at_ns=SECOND_NS, throttled_ns=500 + SECOND_NS // 5, stolen=27, ticks=1200))
    gauge.pause()
    gauge.note(Moment(at_ns=9 * SECOND_NS, throttled_ns=8 * SECOND_NS, stolen=900, ticks=5000))
    gauge.note(Moment(at_ns=10 * SECOND_NS, throttled_ns=8 * SECOND_NS, stolen=900, ticks=5200))
    assert gauge.pressure.throttled == pytest.approx(0.1)  # 0.2 of 2 s
    assert gauge.pressure.stolen == pytest.approx(0.05)  # 20 of 400 ticks


def test_counters_that_begin_anew_take_nothing_back() -> None:
    """An ended process is in no cgroup any more, and what is read of it is nothing."""
    gauge = Gauge()
    gauge.note(Moment(at_ns=0, throttled_ns=SECOND_NS, waited_ns=100))
    gauge.note(Moment(at_ns=SECOND_NS, throttled_ns=SECOND_NS + SECOND_NS // 2, waited_ns=200))
    gauge.note(Moment(at_ns=2 * SECOND_NS))
    assert gauge.pressure.throttled == pytest.approx(0.5)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    write(tmp_path / "proc/stat", "cpu  100 20 30 800 5 0 5 40 9 0\ncpu0 50 10 15 400 2 0 2 20 4 0\n")
    write(tmp_path / "proc/71/schedstat", "760874 273160 2\n")
    return tmp_path


def look(machine: Path) -> Moment:
    return moment(71, at_ns=5, cpu_s=1.5, proc=machine / "proc", cgroups=machine / "cgroup")


def test_the_unified_hierarchy_of_cgroups(machine: Path) -> None:
    write(machine / "proc/71/cgroup", "0::/kubepods/pod1\n")
    write(machine / "cgroup/cpu.stat", "usage_usec 5\n")
    write(machine / "cgroup/kubepods/cpu.stat", "usage_usec 5\nnr_throttled 1\nthrottled_usec 3000\n")
    write(machine / "cgroup/kubepods/pod1/cpu.stat", "usage_usec 5\nnr_throttled 2\nthrottled_usec 40\n")
    assert look(machine) == Moment(
        at_ns=5, cpu_ns=1_500_000_000, waited_ns=273_160, throttled_ns=3_040_000, stolen=40, ticks=1000
    )


def test_the_first_version_of_cgroups(machine: Path) -> None:
    write(machine / "proc/71/cgroup", "8:pids:/x\n3:cpuset:/x\n2:cpu,cpuacct:/docker/9\n0::/\n")
    write(machine / "cgroup/cpu,cpuacct/cpu.stat", "nr_periods 5\nnr_throttled 3\nthrottled_time 777\n")
    write(machine / "cgroup/cpuset/x/cpu.stat", "throttled_time 5000\n")
    assert look(machine).throttled_ns == 777  # of the mount: a container sees its own cgroup there, whatever its path


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert look(tmp_path) == Moment(at_ns=5, cpu_ns=1_500_000_000)


def test_this_machine_tells_what_it_has() -> None:
    now = moment(os.getpid(), 0, 0)
    assert now.ticks > 0
    assert now.throttled_ns >= 0
