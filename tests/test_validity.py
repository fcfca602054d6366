"""Validity rule by rule: on facts worked out by hand, and provoked in real runs."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest import host
from loadtest import validity as rules
from loadtest.report.summary import summary
from loadtest.run import Snapshot
from loadtest.session import record
from loadtest.store import Store
from loadtest.types import Plan
from loadtest.validity import Account, Facts, Generator, Group, Integrity, Refusal, validity
from tests.test_cli import LOADTEST, Place
from tests.test_run import Watched, drive, make_plan

DOCS = Path(__file__).parent.parent / "docs" / "validity.md"


def facts(**changes: object) -> Facts:
    """A stage of 1,000 requests, all due and in time."""
    group = Group(stage="peak", target="acme", ended=1000, due=1000)
    return Facts(account=Account(), groups=[msgspec.structs.replace(group, **changes)])


def account(**changes: object) -> Facts:
    return Facts(account=msgspec.structs.replace(Account(), **changes))


def generator(**changes: object) -> Facts:
    return account(generator=msgspec.structs.replace(Generator(), **changes))


def integrity(**changes: object) -> Facts:
    return account(integrity=msgspec.structs.replace(Integrity(), **changes))


def refusal(requests: int) -> Refusal:
    return Refusal(
        target="acme", stage="peak", requests=requests, says="acme: HTTP 401 from every request: is its key right?"
    )


HERE = "in stage peak, target acme"
PROVOKED: dict[str, list[tuple[Facts, Facts, str]]] = {
    # rule: (still valid, INVALID, what the reason must say)
    "refused": [
        (account(refusals=[refusal(30)]), account(refusals=[refusal(31)]), "before its time: acme: HTTP 401")
    ],
    "worker_lost": [
        (facts(), generator(workers_lost=1), "1 worker process(es) were lost"),
        (facts(), generator(workers_restarted=2), "2 worker process(es)"),
    ],
    "spans_lost": [(facts(), integrity(sent=10, stored=7, lost=3), "3 request(s) were sent and are not in the store")],
    "unknown": [(facts(), integrity(unknown=4), "of 4 request(s) it is unknown whether they were sent")],
    "missed": [
        (
            integrity(missed=5, missed_by={"cap": 5}),
            integrity(missed=7, missed_by={"cap": 5, "worker_lost": 2}),
            "2 request(s) were due and not sent",
        )
    ],
    "shortfall": [
        (facts(late=10), facts(late=25), f"2.50% of the requests due had not left when the stage's arrivals ended {HERE}"),
        (facts(ended=900, due=900, unsent=9), facts(due=900, unsent=100), "10.00% of the requests due"),
        (facts(due=0, unsent=5), facts(late=11), "1.10%"),  # closed load: unknown ones have a rule of their own
    ],
    "faults": [
        (
            facts(client_faults=6, generator_faults=4),
            facts(client_faults=7, generator_faults=4),
            f"1.10% of the requests failed by the plan's or the generator's own fault {HERE} (limit 1%)",
        )
    ],
    "cancelled": [(facts(cancelled=10), facts(cancelled=25), f"cancelled at the end of the drain {HERE} (limit 1%)")],
    "schedule_lag": [
        (
            facts(schedule_lag_p99_ms=25.0),
            facts(schedule_lag_p99_ms=32.345),
            f"the p99 of schedule_lag_ms is 32.3 ms {HERE} (limit 25 ms)",
        ),
        (facts(schedule_lag_p99_ms=None), facts(schedule_lag_p99_ms=26.0), "is 26 ms"),
    ],
    "uncertainty": [(facts(uncertainty_p99_ms=100), facts(uncertainty_p99_ms=131), f"uncertain by 131 ms {HERE}")],
    "worker_cpu": [(generator(busiest=0.9), generator(busiest=0.97), "97% of the time, for seconds on end (limit 90%)")],
    "throttled": [(generator(throttled=0.01), generator(throttled=0.2), "20.00% of the time")],
    "stolen": [(generator(stolen=0.05), generator(stolen=0.123), "12.30% of a machine's CPU time")],
    "start_spread": [(generator(start_spread_ms=100), generator(start_spread_ms=140), "started 140 ms apart")],
    "clock_offset": [(generator(clock_offset_ms=100), generator(clock_offset_ms=250), "may be 250 ms apart")],
    "dropped_frames": [(facts(), generator(dropped_frames=1), "1 result(s) did not fit")],
    "clock_step": [(generator(clock_step_ms=5), generator(clock_step_ms=900), "stepped by 900 ms (limit 5 ms)")],
    "clock_slew": [(generator(clock_slew_ppm=1000), generator(clock_slew_ppm=1500), "slewed by 1.5e+03 millionths")],
}  # fmt: skip


@pytest.mark.parametrize("rule", rules.RULES.values(), ids=lambda rule: rule.name)
def test_each_rule_breaks_above_its_limit_and_not_at_it(rule: rules.Rule) -> None:
    for still_valid, invalid, says in PROVOKED[rule.name]:
        assert validity(still_valid).valid
        judged = validity(invalid)
        [reason] = judged.reasons
        assert not judged.valid
        assert [each.rule for each in judged.rules if each.broken] == [rule.name]
        assert reason.startswith(f"{rule.name}: ")
        assert says in reason
        assert reason.endswith(f"; {rule.advice}")
        assert reason.count("; ", 0, -len(rule.advice)) == 1, "found and advice are parted at the first of these"


def test_all_reasons_are_given() -> None:
    judged = validity(
        Facts(
            account=Account(Integrity(lost=1, unknown=1), Generator(workers_lost=1)),
            groups=[Group(stage="s", target="t", ended=1000, cancelled=900)],
        )
    )
    assert [reason.partition(":")[0] for reason in judged.reasons] == [
        "worker_lost",
        "spans_lost",
        "unknown",
        "cancelled",
    ]


def test_what_one_stage_suffered_is_not_lost_among_the_others() -> None:
    quiet = Group(stage="long", target="acme", ended=100_000, due=100_000, schedule_lag_p99_ms=0.1)
    peak = Group(stage="peak", target="globex", ended=100, due=100, schedule_lag_p99_ms=400.0, cancelled=5)
    judged = validity(Facts(account=Account(), groups=[quiet, peak]))
    assert [reason.partition(":")[0] for reason in judged.reasons] == ["cancelled", "schedule_lag"]
    assert all("in stage peak, target globex" in reason for reason in judged.reasons)


def test_every_rule_is_shown_with_what_was_measured() -> None:
    judged = {each.rule: each for each in validity(facts(schedule_lag_p99_ms=3.5), {"faults": 0.5}).rules}
    assert judged.keys() == rules.RULES.keys()
    lag, faults = judged["schedule_lag"], judged["faults"]
    assert (lag.value, lag.limit, lag.default, lag.where) == (3.5, 25, 25, "stage peak, target acme")
    assert (faults.value, faults.limit, faults.default) == (0, 0.5, 0.01)


def test_a_plan_can_set_other_limits_and_the_reason_says_whose_it_is() -> None:
    late = facts(schedule_lag_p99_ms=80.0, cancelled=25)
    assert validity(late, {"schedule_lag": 80, "cancelled": 0.025}).valid
    [reason] = validity(late, {"schedule_lag": 79, "cancelled": 0.025}).reasons
    assert "is 80 ms in stage peak, target acme (the plan's limit 79 ms)" in reason


def test_an_interrupted_run_is_not_invalid_for_that() -> None:
    stopped = Facts(account=Account(interrupted=True), groups=facts(cancelled=500).groups)
    assert validity(stopped).valid
    assert "cancelled" not in [each.rule for each in validity(stopped).rules]


def test_a_run_of_nothing_is_valid() -> None:
    assert validity(Facts(account=Account())).valid


def test_an_account_travels_as_json() -> None:
    account = Account(Integrity(scheduled=3, missed_by={"cap": 1}), Generator(workers=2), {"s": {"t": 1}}, True)
    assert msgspec.json.decode(msgspec.json.encode(account), type=Account) == account


def test_the_rules_in_the_docs_are_these() -> None:
    assert DOCS.read_text() == rules.catalogue(), "run: python -m loadtest.validity > docs/validity.md"


# Provoked in real runs


def broken(plan: Plan, store: Store, directory: Path, **how: Any) -> dict[str, float]:
    """Rule -> what was measured, of the rules that a whole run broke."""
    snapshot, booked = drive(plan, store, directory, **how)
    record(store, snapshot, booked)
    judged = summary(store, snapshot.run)["validity"]
    assert judged["valid"] == (not judged["reasons"])
    return {each["rule"]: each["value"] for each in judged["rules"] if each["value"] > each["limit"]}


def plan_for(url: str, *stages: str, simulate: dict[str, Any] | None = None, workers: int = 1, code: str = "") -> Plan:
    """One target; `code` is a file of Locust listeners, to be run in the worker."""
    plan = make_plan(url, *stages)
    target = msgspec.structs.replace(plan.targets[0], body={"simulate": simulate} if simulate else {})
    fleet = msgspec.structs.replace(plan.fleet, workers=workers, listeners=code or None)
    return msgspec.structs.replace(plan, targets=[target], fleet=fleet)


UNHURRIED = {"schedule_lag": 2000, "shortfall": 0.5, "uncertainty": 2000, "start_spread": 2000, "stolen": 1}
"""Limits that a machine keeps which is busy with other things, such as other tests."""


def test_a_calm_run_breaks_no_rule(simulator: str, store: Store, tmp_path: Path) -> None:
    plan = plan_for(simulator, "name: calm, arrivals: {kind: constant, rate: 20}, duration_s: 1, drain_s: 5")
    assert broken(msgspec.structs.replace(plan, validity=UNHURRIED), store, tmp_path) == {}


def test_a_worker_that_is_too_busy(simulator: str, store: Store, tmp_path: Path) -> None:
    """A listener computes for 40 ms at each of 40 requests a second: 1.6 cores are needed, and one is there.

    Requests leave between computations, in bunches: at the stage's end none or many may be late."""
    code = tmp_path / "busy.py"
    code.write_text(
        "import time\n"
        "from locust import events\n"
        "@events.request.add_listener\n"
        "def compute(**_):\n"
        "    until = time.thread_time() + 0.04\n"
        "    while time.thread_time() < until: pass\n"
    )
    plan = plan_for(
        simulator, "name: peak, arrivals: {kind: constant, rate: 40}, duration_s: 3, drain_s: 20", code=str(code)
    )
    found = broken(plan, store, tmp_path)
    assert {"worker_cpu", "schedule_lag"} <= found.keys()
    assert found["worker_cpu"] == pytest.approx(1, abs=0.1)
    assert found["schedule_lag"] > 300


class Pause:
    """Stops worker 0 from a moment before or after the newest stage's start, for so long."""

    def __init__(self, *spans_s: tuple[float, float]) -> None:
        self.spans_s = list(spans_s)
        self.stopped: int | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        if not snapshot.times or not self.spans_s:
            return
        age_s = (snapshot.now_ns - snapshot.times[-1].start_ns) / 1e9
        begin_s, end_s = self.spans_s[0]
        if self.stopped is None and begin_s <= age_s:
            self.stopped = snapshot.hosts[0].pid
            os.kill(self.stopped, signal.SIGSTOP)
        elif self.stopped is not None and age_s >= end_s:
            os.kill(self.stopped, signal.SIGCONT)
            self.stopped = None
            self.spans_s.pop(0)


def test_a_worker_that_stands_still(simulator: str, store: Store, tmp_path: Path) -> None:
    """One of two workers sleeps through the start, and again while it holds streams, until the stage's end is over."""
    stage = "name: peak, arrivals: {kind: constant, rate: 20}, duration_s: 2, drain_s: 5"
    plan = plan_for(simulator, stage, simulate={"ttft_ms": 50, "chunks": 40, "gaps_ms": 20}, workers=2)
    found = broken(plan, store, tmp_path, workers=2, view=Watched(Pause((-1.0, 0.3), (1.0, 2.4))))
    assert {"start_spread", "schedule_lag", "uncertainty", "shortfall"} <= found.keys()
    assert 200 < found["uncertainty"] < 3000
    assert found["shortfall"] < 0.9, "half of what was due in the last second, and no more than is late elsewhere"
    assert 200 < found["start_spread"] < 1500


def test_what_ends_wrongly_or_too_late(simulator: str, store: Store, tmp_path: Path) -> None:
    """One target refuses the key; the other's answers take longer than the drain."""
    plan = make_plan(simulator, "name: peak, arrivals: {kind: constant, rate: 20}, requests: 10, drain_s: 0.3")
    bodies = {"status": 401}, {"ttft_ms": 5000}
    targets = [
        msgspec.structs.replace(target, body={"simulate": body})
        for target, body in zip(plan.targets, bodies, strict=True)
    ]
    plan = msgspec.structs.replace(plan, targets=targets, validity=UNHURRIED)
    snapshot, booked = drive(plan, store, tmp_path)
    record(store, snapshot, booked)
    judged = summary(store, snapshot.run)["validity"]
    found = {each["rule"]: (each["value"], each["where"]) for each in judged["rules"] if each["value"] > each["limit"]}
    assert found == {"faults": (1, "stage peak, target a"), "cancelled": (1, "stage peak, target b")}


def test_a_store_that_refuses(simulator: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where the hosts are to store; the account asks the good store what it holds."""
    monkeypatch.setattr(host, "CLOSE_WITHIN_S", 1)  # how long a host goes on trying
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = dataclasses.replace(store.address, port=taken.getsockname()[1], directory=None)
    plan = plan_for(simulator, "name: peak, arrivals: {kind: constant, rate: 20}, requests: 10, drain_s: 5")
    _, booked = drive(plan, store, tmp_path, address=nowhere)
    assert (booked.integrity.sent, booked.integrity.stored, booked.integrity.lost) == (10, 0, 10)
    [reason] = validity(Facts(account=booked)).reasons
    assert reason.startswith("spans_lost: 10 request(s) were sent and are not in the store")


def test_results_that_do_not_fit_and_a_clock_that_is_set(simulator: str, store: Store, tmp_path: Path) -> None:
    """The worker may keep 2 kB for its host instead of 64 MB, and its clock jumps by 300 ms."""
    code = tmp_path / "mischief.py"
    code.write_text(
        "import time\n"
        "from loadtest import outbox\n"
        "outbox.OUTBOX_LIMIT_BYTES = 2000\n"
        "begun, true_time_ns = time.monotonic(), time.time_ns\n"
        "time.time_ns = lambda: true_time_ns() + (300_000_000 if time.monotonic() - begun > 1.5 else 0)\n"
    )
    stage = "name: full, arrivals: {kind: closed}, concurrency: 30, duration_s: 3, drain_s: 5"
    found = broken(plan_for(simulator, stage, code=str(code)), store, tmp_path)
    assert {"dropped_frames", "spans_lost", "clock_step"} <= found.keys()
    assert found["dropped_frames"] >= found["spans_lost"] > 0  # reports may be dropped, too
    assert found["clock_step"] == pytest.approx(300, abs=20)


def test_a_clock_that_runs_fast(simulator: str, store: Store, tmp_path: Path) -> None:
    """By 3,000 millionths, as a time service that makes up for a wrong start: 3 ms in each second are no step."""
    code = tmp_path / "haste.py"
    code.write_text(
        "import time\n"
        "begun_ns, true_time_ns = time.monotonic_ns(), time.time_ns\n"
        "time.time_ns = lambda: true_time_ns() + (time.monotonic_ns() - begun_ns) * 3 // 1000\n"
    )
    plan = plan_for(
        simulator, "name: long, arrivals: {kind: constant, rate: 5}, duration_s: 11.5, drain_s: 5", code=str(code)
    )
    found = broken(msgspec.structs.replace(plan, validity=UNHURRIED), store, tmp_path)
    assert found["clock_slew"] == pytest.approx(3000, rel=0.1)
    assert "clock_step" not in found


@contextlib.contextmanager
def hypervisor(path: Path) -> Iterator[list[str]]:
    """What to put before a command that shall see a hypervisor which takes half of the machine's time for others: a
    /proc/stat of its own, in its own mount namespace."""
    over = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /proc/stat && exec "$@"']
    begun = cpu_ticks()

    def tell() -> None:
        ticks, stolen = cpu_ticks(), sum(cpu_ticks()) - sum(begun)
        ticks[7] += stolen
        line = f"cpu  {' '.join(map(str, ticks))}\n"
        os.pwrite(told, line.ljust(256, "\n").encode(), 0)

    def tell_for_ever() -> None:
        while not over_now.wait(0.02):
            tell()

    told = os.open(path, os.O_WRONLY | os.O_CREAT)
    over_now = threading.Event()
    teller = threading.Thread(target=tell_for_ever)
    try:
        tell()
        tried = subprocess.run([*over, path, "true"], capture_output=True, text=True)
        if tried.returncode:
            pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
        teller.start()
        yield [*over, str(path)]
    finally:
        over_now.set()
        if teller.ident:
            teller.join()
        os.close(told)


def cpu_ticks() -> list[int]:
    return [int(part) for part in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here to give a process its own /proc/stat")
def test_a_hypervisor_that_gives_the_cores_to_others(simulator: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    plan = place.plan(simulator, rate=20, duration_s=4)
    with hypervisor(tmp_path / "stat") as within:
        done = subprocess.run(
            [*within, LOADTEST, "run", "--quiet", "--out", tmp_path / "out", plan_that_minds_it(plan)],
            env=place.environment, cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    assert done.returncode == 3, done.stderr
    figures = msgspec.json.decode((tmp_path / "out" / "summary.json").read_bytes())
    [stolen] = [each for each in figures["validity"]["rules"] if each["rule"] == "stolen"]
    assert stolen["value"] == pytest.approx(0.5, abs=0.15)
    assert any(reason.startswith("stolen: the hypervisor gave ") for reason in figures["validity"]["reasons"])


def plan_that_minds_it(path: Path) -> Path:
    """Held to the default limit."""
    before, found, after = path.read_text().partition("stolen: 1, ")
    assert found
    path.write_text(before + after)
    return path


@contextlib.contextmanager
def quota(share: float) -> Iterator[Path]:
    """A cgroup of the first or the second version that gives so much of a core, where we may make one."""
    name = f"loadtest-test-{os.getpid()}"
    v1, v2 = Path("/sys/fs/cgroup/cpu") / name, Path("/sys/fs/cgroup") / name
    try:
        place = v1 if v1.parent.exists() else v2
        place.mkdir()
    except OSError as e:
        pytest.skip(f"no cgroup can be made here: {e.strerror}")
    try:
        if place == v1:
            (place / "cpu.cfs_quota_us").write_text(str(round(100_000 * share)))
        else:
            (place / "cpu.max").write_text(f"{round(100_000 * share)} 100000")
    except OSError as e:
        place.rmdir()
        pytest.skip(f"no cgroup can be given a quota here: {e.strerror}")
    try:
        yield place
    finally:
        until(lambda: not (place / "cgroup.procs").read_text(), "the worker to be gone")
        place.rmdir()


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_a_worker_whose_container_has_a_quota(simulator: str, store: Store, tmp_path: Path) -> None:
    with quota(0.05) as cgroup:  # less than a busy worker needs, and enough for it to report
        code = tmp_path / "confined.py"
        code.write_text(
            f"import os\nwith open({str(cgroup / 'cgroup.procs')!r}, 'w') as f: f.write(str(os.getpid()))\n"
        )
        stage = "name: full, arrivals: {kind: closed}, concurrency: 30, duration_s: 4, drain_s: 10"
        found = broken(plan_for(simulator, stage, code=str(code)), store, tmp_path)
    assert found["throttled"] > 0.05, "far above the rule's limit, however busy the machine is"
