"""What the simulator's exporters show: figures of the batching model, worked out by hand and seen on a socket."""

import asyncio
import math
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.simulator import Profile, start
from loadtest.simulator.course import Course
from loadtest.simulator.engine import Engine, Sequence
from loadtest.simulator.exporters import dcgm
from loadtest.simulator.gpu import FULL_MHZ, HW_THERMAL, IDLE_MHZ, Gpu
from loadtest.simulator.profile import Event

STEP_10_MS = Profile(decode_base_ms=10, decode_per_sequence_ms=0, prefill_tokens_per_s=math.inf, max_batch=4)
Values = dict[tuple[str, str], float]  # (name, engine or gpu)


def read(text: str) -> Values:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(s.name, s.labels.get("engine") or s.labels["gpu"]): s.value for s in samples}


def steps(engine: Engine[Sequence], now_s: float, count: int) -> float:
    for _ in range(count):
        end_s = engine.begin(now_s)
        assert end_s is not None
        engine.end()
        now_s = end_s
    return now_s


# In the model's time


def test_the_counts_are_those_of_the_steps() -> None:
    engine: Engine[Sequence] = Engine(STEP_10_MS)
    for _ in range(2):
        engine.submit(Sequence(prompt_tokens=100, output_tokens=3))
    assert steps(engine, 0.0, 3) == pytest.approx(0.03)
    assert (engine.prompt_tokens, engine.generated_tokens, engine.finished) == (200, 6, 2)
    assert engine.busy_s(5.0) == pytest.approx(0.03)
    assert engine.sequence_s == pytest.approx(0.06)


def test_the_cache_holds_what_is_in_the_batch() -> None:
    engine: Engine[Sequence] = Engine(Profile(kv_cache_tokens=1000, max_batch=1))
    engine.submit(Sequence(prompt_tokens=100, output_tokens=50))
    engine.submit(Sequence(prompt_tokens=700, output_tokens=50))  # waits: the batch has room for one
    steps(engine, 0.0, 20)
    assert engine.kv_cache_utilization == (100 + 20) / 1000


def test_a_busy_step_counts_until_now() -> None:
    engine: Engine[Sequence] = Engine(STEP_10_MS)
    engine.submit(Sequence(1, 1))
    engine.begin(1.0)
    assert [engine.busy_s(now) for now in (1.0, 1.004, 3.0)] == pytest.approx([0.0, 0.004, 0.01])


def test_a_step_takes_longer_at_a_lower_clock() -> None:
    engine: Engine[Sequence] = Engine(STEP_10_MS, speed=lambda now_s: 0.5 if now_s >= 1 else 1.0)
    engine.submit(Sequence(1, 9))
    assert engine.begin(0.0) == pytest.approx(0.01)
    engine.end()
    assert engine.begin(1.0) == pytest.approx(1.02)


def test_events_are_counted_from_the_first_request() -> None:
    slow = Event(at_s=10, for_s=5, replica=1, clock=0.4)
    down = Event(at_s=20, for_s=2, fault="http_5xx")
    course = Course(Profile(replicas=2, events=(slow, down)))
    assert (course.speed(1, 12.0), course.fault(21.0)) == (1.0, None)  # the clock has not started
    course.begin(100.0)
    course.begin(107.0)
    assert [course.speed(1, at) for at in (109.9, 110.0, 114.9, 115.0)] == [1.0, 0.4, 0.4, 1.0]
    assert course.speed(0, 112.0) == 1.0
    assert [course.fault(at) for at in (119.9, 120.0, 122.0)] == [None, "http_5xx", None]


def test_power_and_temperature_follow_the_work() -> None:
    gpu, engine = _gpu(STEP_10_MS)
    gpu.read(0.0)
    for _ in range(4):
        engine.submit(Sequence(1, 1000))
    assert steps(engine, 0.0, 100) == pytest.approx(1.0)
    gpu.read(1.0)
    assert [gpu.utilization, gpu.fill, gpu.clock_mhz] == pytest.approx([1.0, 1.0, FULL_MHZ])
    assert gpu.power_w == pytest.approx(700, rel=0.011)
    assert gpu.energy_j == pytest.approx(700, rel=0.011)
    assert 30 < gpu.temperature_c < 35
    gpu.read(61.0)  # idle since
    assert (gpu.utilization, gpu.clock_mhz) == (0.0, IDLE_MHZ)
    assert gpu.power_w == pytest.approx(70, rel=0.011)


def test_half_of_the_time_is_half_the_utilization() -> None:
    gpu, engine = _gpu(STEP_10_MS)
    gpu.read(0.0)
    engine.submit(Sequence(1, 100))
    steps(engine, 0.0, 50)
    gpu.read(1.0)
    assert gpu.utilization == pytest.approx(0.5)


def test_a_gpu_that_is_held_back_says_so() -> None:
    gpu, engine = _gpu(Profile(decode_base_ms=10, events=(Event(at_s=0, for_s=2.5, clock=0.25),)))
    engine.submit(Sequence(1, 10_000))
    gpu.read(0.0)
    now_s = steps(engine, 0.0, 40)
    gpu.read(now_s)
    assert (gpu.clock_mhz, gpu.reasons) == (495, HW_THERMAL)
    assert gpu.throttled_s == pytest.approx(now_s)
    assert gpu.power_w < 150


def test_a_sample_is_not_taken_more_often_than_the_profile_says() -> None:
    profile = Profile(gpu_sample_s=30)
    gpu, _ = _gpu(profile)
    gpu.read(0.0)
    gpu.read(30.0)
    shown = dcgm([gpu], 31.0)
    assert dcgm([gpu], 59.0) == shown
    assert dcgm([gpu], 60.0) != shown


def _gpu(profile: Profile) -> tuple[Gpu, Engine[Sequence]]:
    course = Course(profile)
    course.begin(0.0)
    engine: Engine[Sequence] = Engine(profile, speed=lambda now_s: course.speed(0, now_s))
    return Gpu(profile, engine, 0, course), engine


# On a socket


def test_the_exporters_move_with_the_load() -> None:
    """Twelve requests for two replicas with room for four each: eight run, four wait, each replica alike."""
    profile = Profile(name="sim", decode_base_ms=20, max_batch=4, replicas=2, kv_cache_tokens=1000, gpu_sample_s=0.2)

    async def scenario(url: str) -> tuple[Values, Values]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            await client.get("/gpu/metrics")
            body = {"model": "m", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 60}
            asked = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(12)]
            deadline = time.monotonic() + 10
            while True:
                seen = read((await client.get("/metrics")).text)
                if seen["vllm:generation_tokens_total", "0"] >= 40 and seen["vllm:num_requests_running", "1"] == 4:
                    break
                assert time.monotonic() < deadline, seen
                await asyncio.sleep(0.02)
            hardware = read((await client.get("/gpu/metrics")).text)
            for answer in asyncio.as_completed(asked):
                assert (await answer).status_code == 200
            done = read((await client.get("/metrics")).text)
            assert [done["vllm:request_success_total", e] for e in "01"] == [6, 6]
            assert [done["vllm:generation_tokens_total", e] for e in "01"] == [360, 360]
            assert done["vllm:num_requests_running", "0"] == done["vllm:kv_cache_usage_perc", "0"] == 0
            return seen, hardware

    with start(profile) as url:
        seen, hardware = asyncio.run(scenario(url))
    assert [seen["vllm:num_requests_running", e] for e in "01"] == [4, 4]
    assert [seen["vllm:num_requests_waiting", e] for e in "01"] == [2, 2]
    assert all(0 < seen["vllm:kv_cache_usage_perc", e] < 1 for e in "01")
    assert all(hardware["DCGM_FI_DEV_GPU_UTIL", g] > 50 for g in "01")
    assert all(hardware["DCGM_FI_DEV_POWER_USAGE", g] > 200 for g in "01")
    assert all(hardware["DCGM_FI_DEV_SM_CLOCK", g] == FULL_MHZ for g in "01")


def test_an_outage_fails_each_request_and_passes() -> None:
    profile = Profile(decode_base_ms=1, events=(Event(at_s=0, for_s=0.3, fault="http_5xx"),))
    body = {"model": "m", "prompt": "a", "max_tokens": 1}
    with start(profile) as url, httpx.Client(base_url=url, trust_env=False) as client:
        statuses = [client.post("/v1/completions", json=body).status_code]
        deadline = time.monotonic() + 10
        while statuses[-1] != 200:
            assert time.monotonic() < deadline, statuses
            statuses.append(client.post("/v1/completions", json=body).status_code)
    assert set(statuses[:-1]) == {500}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"at_s": -1, "for_s": 1, "clock": 0.5}, "events.at_s is -1"),
        ({"at_s": 0, "for_s": 0, "clock": 0.5}, "events.for_s is 0"),
        ({"at_s": 0, "for_s": 1, "clock": 1.5}, "events.clock is 1.5"),
        ({"at_s": 0, "for_s": 1}, "an event has either a clock"),
    ],
)
def test_an_event_that_makes_no_sense_is_refused(event: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Event(**event)  # type: ignore[arg-type]


def test_an_event_names_a_replica_that_is_there() -> None:
    with pytest.raises(ValueError, match=r"events\.replica is 2; it must be one of the 2 replicas"):
        Profile(replicas=2, events=(Event(at_s=0, for_s=1, replica=2, clock=0.5),))
