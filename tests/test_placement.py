"""Where workers go, and how far the clocks there are: both without a cluster."""

import pytest

from cluster.clocks import Clocks, exchange
from cluster.placement import lacking, placement, wanted
from loadtest.types import Fleet, Region

EU, US = Region(name="eu", labels={"where": "eu"}), Region(name="us", labels={"where": "us"})


def node(cpus: float = 2, **labels: str) -> dict[str, object]:
    return {"Alive": True, "Resources": {"CPU": cpus}, "Labels": labels}


def test_a_worker_a_bundle() -> None:
    made = placement(Fleet(cpus=2, resources={"nic": 1}), 3)
    assert made.bundles == [{"CPU": 2, "nic": 1}] * 3
    assert (made.strategy, made.bundle_of, made.vantage_of) == ("SPREAD", [0, 1, 2], ["", "", ""])
    assert placement(Fleet(placement="pack"), 3).strategy == "PACK"


def test_so_many_on_each_node() -> None:
    made = placement(Fleet(per_node=2), 5)
    assert (made.bundles, made.strategy) == ([{"CPU": 2}, {"CPU": 2}, {"CPU": 1}], "STRICT_SPREAD")
    assert made.bundle_of == [0, 0, 1, 1, 2]


def test_regions_take_turns() -> None:
    made = placement(Fleet(regions=[EU, US], per_node=2), 5)
    assert made.vantage_of == ["eu", "us", "eu", "us", "eu"]
    assert made.bundle_of == [0, 2, 0, 2, 1]
    assert made.selectors == [EU.labels, EU.labels, US.labels]
    assert made.bundles == [{"CPU": 2}, {"CPU": 1}, {"CPU": 2}]


def test_regions_of_one_address_are_one_cluster() -> None:
    """A process holds each, since Ray has one connection a process."""
    from cluster.regions import by_cluster

    own = [Region(name=name, address=address) for name, address in (("a", "x:1"), ("b", "y:1"), ("c", "x:1"))]
    assert by_cluster([*own, EU, US]) == [[0, 2], [1], [3, 4]]
    assert by_cluster([EU, US]) == [[0, 1]]
    assert by_cluster([]) == []


def test_what_is_lacking_is_named() -> None:
    fleet = Fleet(cpus=2, regions=[EU, US], resources={"nic": 1})
    lacks = lacking(fleet, 3, [node(4, where="eu"), {"Alive": False, "Resources": {}, "Labels": {"where": "us"}}])
    assert lacks == [
        "no node has the labels where=us of region us (ray start --labels where=us)",
        "of 6 CPU the cluster has 4",
        "of 3 nic the cluster has 0",
    ]
    assert lacking(Fleet(per_node=1), 3, [node(), node()]) == [
        "3 nodes are needed for 1 workers on each and there are 2"
    ]
    assert lacking(Fleet(), 2, [node()]) == []


def test_what_is_wanted_in_words() -> None:
    fleet = Fleet(cpus=2, resources={"memory": 2**31}, regions=[EU, US])
    assert wanted(fleet, 4) == "4 workers with 2 CPU, 2 GiB of memory each, spread, in eu, us"


class Node:
    """A node whose clock is `ahead_ns`, over a way of `there_ns` and `back_ns`; time passes by asking."""

    def __init__(self, ahead_ns: int, there_ns: int, back_ns: int) -> None:
        self.at_ns = 1_000_000
        self.ahead_ns, self.there_ns, self.back_ns = ahead_ns, there_ns, back_ns

    def now_ns(self) -> int:
        return self.at_ns

    def ask(self) -> int:
        self.at_ns += self.there_ns
        theirs = self.at_ns + self.ahead_ns
        self.at_ns += self.back_ns
        return theirs


@pytest.mark.parametrize("ahead_ns", [0, 7_000, -3_000_000_000])
@pytest.mark.parametrize(("there_ns", "back_ns"), [(500, 500), (0, 1000), (1000, 0), (50_000, 1_000)])
def test_the_offset_is_within_its_error_whatever_the_way(ahead_ns: int, there_ns: int, back_ns: int) -> None:
    node = Node(ahead_ns, there_ns, back_ns)
    reading = exchange(node.ask, node.now_ns, node.now_ns)
    assert abs(reading.offset_ns - ahead_ns) <= reading.error_ns == (there_ns + back_ns) // 2 + 1


def test_the_worst_round_counts_and_a_silent_node_keeps_its_reading() -> None:
    import time

    clocks = Clocks()
    clocks.measure({"n": lambda: time.time_ns() + 5_000_000, "m": time.time_ns})
    clocks.measure({"n": time.time_ns, "m": lambda: (_ for _ in ()).throw(ConnectionError)})  # type: ignore[dict-item]
    assert abs(clocks.worst["n"].offset_ns - 5_000_000) <= clocks.worst["n"].error_ns
    assert abs(clocks.worst["m"].offset_ns) <= clocks.worst["m"].error_ns
