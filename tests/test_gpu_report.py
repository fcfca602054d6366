"""What GPUs did in each stage: figures worked out by hand from samples, and what is said where nothing is known."""

from collections.abc import Callable
from typing import Any

import pytest

from loadtest.gpu import figures
from loadtest.report import telemetry
from loadtest.report.markup import Html
from loadtest.report.model import Gpu
from loadtest.report.sections.gpu import NOTHING, gpu
from loadtest.report.sections.stages import stages
from loadtest.report.telemetry import Devices, Meanwhile, Source
from loadtest.store import Store
from tests.rows import CONTENT, START_NS, Sample, answer, insert, sample
from tests.sample_report import report

GROUP = ("s", "t")


def asker(store: Store, run: str) -> Callable[[str], list[dict[str, Any]]]:
    return lambda sql: store.query(sql, {"run": run})


def devices(store: Store, run: str, samples: list[Sample], **facts: Any) -> Devices:
    """Of a stage of ten seconds."""
    insert(store, run, [answer((1, CONTENT))], {})
    sample(store, run, samples, **facts)
    return telemetry.devices(asker(store, run), {GROUP: 8.09})[GROUP]


def each_second(name: str, value: Callable[[int], float], device: str = "0", **facts: Any) -> list[Sample]:
    return [Sample(1000 * s + 500, value(s), device, name=name, **facts) for s in range(10)]


def test_power_is_of_all_devices_and_utilization_their_mean(store: Store) -> None:
    found = devices(
        store,
        "two-gpus",
        [
            *each_second("hw.power", lambda s: 100 + s, "0"),
            *each_second("hw.power", lambda _: 300, "1"),
            *each_second("hw.gpu.utilization", lambda s: 0.4 if s < 5 else 0.6, "0"),
            *each_second("hw.gpu.utilization", lambda _: 1.0, "1"),
            Sample(-500, 9999, name="hw.power"),  # before the stage
            Sample(10_500, 9999, name="hw.power"),  # after it
        ],
    )
    assert found.power_w == Meanwhile(mean=pytest.approx(404.5), least=400, most=409)
    assert found.utilization == Meanwhile(mean=pytest.approx(0.75), least=pytest.approx(0.4), most=1.0)
    assert (found.gpus, found.engines, found.covered) == (2, 0, 1)
    assert found.energy_j == pytest.approx(4045)
    assert found.energy_j_per_output_token == 8.09
    assert found.queue_length is None
    assert found.throttled_s is None


def test_a_step_in_which_a_device_is_missing_is_not_added_up(store: Store) -> None:
    both = [*each_second("hw.power", lambda _: 100, "0"), *each_second("hw.power", lambda _: 200, "1")]
    found = devices(store, "one-missing", [s for s in both if (s.device, s.at_ms) != ("1", 4500)])
    assert found.power_w == Meanwhile(300, 300, 300)
    assert found.energy_j is None  # nine steps of ten are too few to add up


def test_over_time_it_is_drawn_in_buckets_and_a_gap_is_a_gap(store: Store) -> None:
    queues = [
        *each_second("engine.queue_length", lambda s: s, "0"),
        *each_second("engine.queue_length", lambda _: 10, "1"),
    ]
    devices(
        store,
        "drawn",
        [
            *[s for s in each_second("hw.gpu.utilization", lambda s: s / 10) if not 4000 < s.at_ms < 6000],
            *[s for s in queues if (s.device, s.at_ms // 2000) != ("1", 4)],
        ],
    )
    sql = figures.over_time(
        ["hw.gpu.utilization", "engine.queue_length"], START_NS, START_NS + 10_000_000_000, 2_000_000_000
    )
    found = {
        (row["metric"], (row["t_ns"] - START_NS) // 10**9): row["value"] for row in store.query(sql, {"run": "drawn"})
    }
    assert found == {
        ("engine.queue_length", 0): 10.5,
        ("engine.queue_length", 2): 12.5,
        ("engine.queue_length", 4): 14.5,
        ("engine.queue_length", 6): 16.5,
        ("hw.gpu.utilization", 0): pytest.approx(0.05),
        ("hw.gpu.utilization", 2): pytest.approx(0.25),
        ("hw.gpu.utilization", 6): pytest.approx(0.65),
        ("hw.gpu.utilization", 8): pytest.approx(0.85),
    }


def test_the_stages_show_it_beside_the_load() -> None:
    shown = report()
    assert "How busy were the GPUs" not in stages(shown)
    series = shown.stages[0].series[0]
    series.devices = {"utilization": [0.5, None, 0.75, *[0.5] * 117], "queue_length": [0.0, 3.0, 1.0, *[0.0] * 117]}
    page = stages(shown)
    assert (
        page.count("How busy were the GPUs") == page.count("Did requests wait inside the engines?") == 2
    )  # and its label
    assert f"Highest mean of 1 s: GPUs busy 75.0% at {series.target}." in page
    assert f"Highest mean of 1 s: 3.00 at {series.target}, of all engines" in page


def test_old_values_stand_for_nothing(store: Store) -> None:
    """An exporter that samples every 30 s: only what is younger than five seconds counts."""
    found = devices(store, "old", [Sample(1000 * s + 500, 0.5, age_ms=1000 * s) for s in range(10)])
    assert found.utilization == Meanwhile(0.5, 0.5, 0.5)
    assert (found.covered, found.oldest_s) == (pytest.approx(0.6), 5)


def test_time_for_which_clocks_were_held_down(store: Store) -> None:
    """By the counters, over both devices: 3 s and 1 s by heat; one was begun anew at 0.5 s."""
    grown = each_second("gpu.throttle.time", lambda s: 100 + min(s, 3), reason="thermal")
    anew = each_second("gpu.throttle.time", lambda s: 7 if s < 5 else 0.5, "1", reason="thermal")
    seen = each_second("gpu.throttle.active", lambda s: float(s < 2), reason="hw_thermal")
    never = each_second("gpu.throttle.time", lambda _: 5, reason="power")
    found = devices(store, "counted", [*grown, *anew, *seen, *never])
    assert found.throttled_s == {"thermal": pytest.approx(3.5)}
    found = devices(store, "seen", [*seen, *each_second("gpu.throttle.active", lambda _: 0.0, reason="power")])
    assert found.throttled_s == {"hw_thermal": pytest.approx(2.0)}


def test_how_sources_answered(store: Store) -> None:
    insert(store, "answers", [answer((1, CONTENT))], {})
    up = [Sample(500, 1, name="up"), *(Sample(ms, 0, name="up", error="timeout") for ms in (1500, 2500))]
    took = [Sample(500, 0.25, name="scrape_duration_seconds"), Sample(500, 30, name="scrape_samples_scraped")]
    sample(store, "answers", [*up, *took, Sample(500, 0.5, age_ms=4000)])
    [row] = store.query(figures.SCRAPES, {"run": "answers"})
    assert row.pop("errors") == {"timeout": 2}
    assert row == {
        "source": "s",
        "kind": "dcgm",
        "targets": {"t": ["*"]},
        "scrapes": 3,
        "failed": 2,
        "slowest_s": 0.25,
        "values": 30,
        "oldest_s": 4,
    }
    assert telemetry.sources(asker(store, "answers"))["s"].failed == 2


def test_a_run_without_sources_has_none(store: Store) -> None:
    assert telemetry.sources(asker(store, "no-such-run")) == {}
    assert telemetry.devices(asker(store, "no-such-run"), {}) == {}


# The report


def test_the_report_says_that_nothing_was_provided() -> None:
    page = gpu(report())
    assert isinstance(page, Html)
    assert NOTHING in page


def test_the_report_shows_what_there_is_and_what_there_is_not() -> None:
    shown = report()
    first, *others = shown.summary.targets.values()
    stage = next(iter(first.stages))
    first.stages[stage].gpu = Devices(
        gpus=2,
        covered=1,
        utilization=Meanwhile(0.5, 0.2, 0.98),
        power_w=Meanwhile(611, 500, 700),
        clock_hz=Meanwhile(1.9e9, 495e6, 1.98e9),
        throttled_s={"thermal": 12.1},
        energy_j=7200,
        energy_j_per_output_token=4.321,
    )
    answered = Source(
        kind="dcgm", targets=["a"], scrapes=60, failed=2, errors={"timeout": 2}, slowest_s=0.25, values=30, oldest_s=1.5
    )
    shown.summary.gpu = Gpu(sources={"node1": answered})
    page = gpu(shown)
    for words in ("50.0%", "98.0%", "611 W", "4.32 J", "2.00 Wh in all", "495 MHz", "12.1 s thermal", "2 timeout"):
        assert words in page, words
    assert "not provided" in page
    rows = page.count("<tr>") - 3 - 1  # heads, and the source
    assert rows == 2 * sum(len(target.stages) for target in (first, *others))


def test_samples_are_found_though_the_store_holds_other_runs(store: Store) -> None:
    """Another run's samples of the same time are not this one's."""
    insert(store, "mine", [answer((1, CONTENT))], {})
    sample(store, "mine", [Sample(500, 0.25)])
    insert(store, "theirs", [answer((1, CONTENT))], {})
    sample(store, "theirs", [Sample(500, 1.0)])
    assert telemetry.devices(asker(store, "mine"), {})[GROUP].utilization == Meanwhile(0.25, 0.25, 0.25)
    assert START_NS % 1_000_000_000 == 0  # the steps of these tests begin with the stage
