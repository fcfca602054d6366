"""What the driver makes of the processes that hold its clusters, with others in their place: no Ray is needed for that."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from cluster.regions import Clusters, by_cluster
from loadtest import plan as plans
from loadtest.errors import RunFailed
from loadtest.frames import Setup
from loadtest.host import Status
from loadtest.store import Address

NOWHERE = Address("http", "127.0.0.1", 9, "d", "u", "")
PLAN = """
name: regions
targets: [{name: a, url: "http://127.0.0.1:9/v1", dialect: openai-chat, model: m}]
prompts: {kind: synthetic, input_tokens: 20, output_tokens: 5}
stages: [{name: s, arrivals: {kind: constant, rate: 10}, duration_s: 1}]
fleet: {workers: 2, regions: [{name: quick, address: "a:1"}, {name: slow, address: "b:1"}]}
"""
PROCESS = """#!{python}
import sys
from multiprocessing.connection import Connection
from cluster.regions import Answer, Ready
from loadtest.host import Sample, Status

driver = Connection(int(sys.argv[-1]))
work = driver.recv()
[worker] = [setup.shard for setup in work.setups]
slow = work.regions[0].name == "slow"
driver.send(Ready(0.3, 2.5))
polls, owed, lost = 0, [], {{}}
while True:
    try:
        method, args = driver.recv()
    except EOFError:
        (work.directory / f"closed-{{worker}}").touch()
        break
    if args == ("poll",):
        polls += 1
        samples = [Sample(f"poll {{polls}}", "s", 0, None, 1.0, None, 0, None)]
        owed.append([Status(worker=worker, state="ready", read=polls, samples=samples)])
        if slow and polls == 1:
            continue
    else:
        if args == ("raise",):
            lost = {{worker: "raised"}}
        owed.append([f"{{method}} of {{worker}}"])
    for value in owed:
        driver.send(Answer(value, lost))
    owed = []
"""


SILENT = """
import sys
from multiprocessing.connection import Connection
Connection(int(sys.argv[-1])).recv()
sys.exit(7)
"""

MakeFleet = Callable[..., AbstractContextManager[Clusters]]


@pytest.fixture
def make_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeFleet:
    """Of two regions: `slow` answers its first poll when it is asked something else."""
    process = tmp_path / "process"

    def make(text: str = PROCESS.format(python=sys.executable), key: str = "") -> AbstractContextManager[Clusters]:
        process.write_text(text)
        process.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(process))
        plan = plans.parse(PLAN, tmp_path)
        setups = [Setup("r", plan, {"a": key}, shard, 2) for shard in range(2)]
        return closing(Clusters(by_cluster(plan.fleet.regions), setups, NOWHERE, tmp_path, print, lambda: None))

    return make


def test_a_process_that_has_ended_is_named(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """Before it has read its work, which is more than a socket's buffer holds."""
    with pytest.raises(
        RunFailed,
        match=r"quick at a:1: the process that holds the cluster has ended with status 0; see .*cluster-0\.log; nothing was",
    ):
        make_fleet("#!/bin/sh\necho no such module >&2\n", key="k" * 10_000_000)
    assert (tmp_path / "cluster-0.log").read_text() == "no such module\n"


def test_no_log_is_named_where_there_is_none(make_fleet: MakeFleet, tmp_path: Path) -> None:
    with pytest.raises(
        RunFailed,
        match=r"^\w+ at [ab]:1: the process that holds the cluster has ended with status 7; nothing was sent$",
    ):
        make_fleet(f"#!{sys.executable}\n{SILENT}")
    assert not list(tmp_path.glob("cluster-*.log"))


def test_a_cluster_whose_workers_are_all_lost_is_closed(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """Where hosts raised something, their actors live."""
    with make_fleet() as fleet:
        fleet.call("raise")
        assert fleet.lost == {0: "raised", 1: "raised"}
    assert {path.name for path in tmp_path.glob("closed-*")} == {"closed-0", "closed-1"}


def samples(statuses: list[Status | None]) -> list[list[str]]:
    return [[sample.target for sample in status.samples] if status else [] for status in statuses]


def test_no_sample_of_a_late_poll_is_lost(make_fleet: MakeFleet) -> None:
    with make_fleet() as fleet:
        assert samples(fleet.call("poll")) == [["poll 1"], []]
        fleet.fetch_frames()  # waits for it
        polled = fleet.call("poll")
        assert samples(polled) == [["poll 2"], ["poll 1", "poll 2"]]
        assert [status.read for status in polled if status] == [2, 2]
        assert samples(fleet.call("poll")) == [["poll 3"], ["poll 3"]], "once"
        assert fleet.call("stop", 0.0) == ["call of 0", "call of 1"]
        assert not fleet.lost


def test_who_owes_an_answer_is_waited_for_once(make_fleet: MakeFleet) -> None:
    with make_fleet() as fleet:
        took_s = []
        for number in (1, 2):
            began = time.monotonic()
            assert samples(fleet.call("poll")) == [[f"poll {number}"], []]
            took_s.append(time.monotonic() - began)
        assert took_s[1] < took_s[0] / 2
