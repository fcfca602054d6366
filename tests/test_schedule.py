"""The schedule: the same whole for any number of shards, ended where the stage ends, fair to every target."""

from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import made_tokenizers as made
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.arrivals import Arrivals, Closed, Constant, Gamma, Poisson, Ramp
from loadtest.prompts import Cache, Dataset, Prompt, Prompts, SharedPrefix, Synthetic, Tokens
from loadtest.schedule import Schedule, ramp_up_s, target_order
from loadtest.types import Plan, Stage, Target

Whole = list[tuple[int, int, tuple[int, ...], Prompt]]


def plan_of(
    *stages: Stage,
    targets: int = 1,
    seed: int = 7,
    nonce: str = "n",
    prompts: Prompts = Synthetic(input_tokens=Tokens(mean=6, stdev=2)),  # noqa: B008 (immutable)
    tokenizer: str | None = None,
) -> Plan:
    return Plan(
        name="p",
        seed=seed,
        nonce=nonce,
        targets=[Target(name=f"t{i}", url="http://127.0.0.1", dialect="http") for i in range(targets)],
        prompts=prompts,
        stages=list(stages),
        tokenizer=tokenizer,
    )


def whole(plan: Plan, shards: int) -> Whole:
    """The first stage's requests over all shards, in the order of their numbers."""
    out: Whole = []
    for shard in range(shards):
        schedule = Schedule(plan, shard, shards)
        own = [(seq, due, order, schedule.prompt(0, seq)) for seq, due, order in schedule.open(0)]
        assert all(seq % shards == shard for seq, *_ in own)
        assert own == sorted(own, key=lambda shot: shot[0])
        out += own
    return sorted(out, key=lambda shot: shot[0])


open_arrivals = st.one_of(
    st.builds(Constant, rate=st.floats(0.5, 60)),
    st.builds(Poisson, rate=st.floats(0.5, 60)),
    st.builds(Gamma, rate=st.floats(0.5, 60), burstiness=st.floats(0.1, 8)),
    st.builds(Ramp, from_=st.floats(0, 60), to=st.floats(0.5, 60)),
)


@settings(max_examples=60, deadline=None)
@given(
    arrivals=open_arrivals,
    shards=st.integers(2, 9),
    targets=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
    requests=st.none() | st.integers(1, 40),
    duration_s=st.floats(0.1, 3),
)
def test_any_number_of_shards_makes_the_same_requests_at_the_same_times(
    arrivals: Arrivals, shards: int, targets: int, seed: int, requests: int | None, duration_s: float
) -> None:
    stage = Stage(name="s", arrivals=arrivals, duration_s=duration_s, requests=requests)
    plan = plan_of(stage, targets=targets, seed=seed)
    alone = whole(plan, 1)
    assert whole(plan, shards) == alone
    assert [seq for seq, *_ in alone] == list(range(len(alone)))
    assert all(0 <= due < duration_s * 1e9 for _, due, _, _ in alone)
    assert all(sorted(order) == list(range(targets)) for _, _, order, _ in alone)
    assert len(alone) <= (requests or len(alone))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(made.save(made.byte_level(500), tmp_path_factory.mktemp("tokenizer")))


@settings(max_examples=40, deadline=None)
@given(
    cache=st.sampled_from([None, "defeat", SharedPrefix(shared_prefix_tokens=3)]),
    with_tokenizer=st.booleans(),
    shards=st.integers(2, 5),
    seed=st.integers(0, 2**63 - 1),
    nonce=st.sampled_from(["n", "m"]),
)
def test_any_number_of_shards_says_the_same_to_each_target(
    tokenizer: str, cache: Cache | None, with_tokenizer: bool, shards: int, seed: int, nonce: str
) -> None:
    prompts = Synthetic(input_tokens=Tokens(mean=9, stdev=3), cache=cache)
    stage = Stage(name="s", arrivals=Constant(rate=10), duration_s=2)
    plan = plan_of(
        stage, targets=2, seed=seed, nonce=nonce, prompts=prompts, tokenizer=tokenizer if with_tokenizer else None
    )
    alone = [Schedule(plan, 0, 1).prompts(0, seq) for seq in range(20)]
    parts = [Schedule(plan, shard, shards) for shard in range(shards)]
    assert [parts[seq % shards].prompts(0, seq) for seq in reversed(range(20))] == alone[::-1]
    assert [[parts[seq % shards].prompt(0, seq, target) for target in (0, 1)] for seq in range(20)] == alone
    assert all((a == b) is (cache != "defeat") for a, b in alone)
    fewer = msgspec.structs.replace(plan, targets=plan.targets[:1])
    assert [Schedule(fewer, 0, 1).prompts(0, seq)[0] for seq in range(20)] == [first for first, _ in alone]


@settings(max_examples=60, deadline=None)
@given(shards=st.integers(1, 20), concurrency=st.integers(1, 70), requests=st.integers(1, 200))
def test_closed_load_is_split_whole(shards: int, concurrency: int, requests: int) -> None:
    plan = plan_of(Stage(name="c", arrivals=Closed(), concurrency=concurrency, requests=requests, ramp_up_s=1))
    schedules = [Schedule(plan, shard, shards) for shard in range(shards)]
    slots = [schedule.slots(0) for schedule in schedules]
    assert sum(map(len, slots)) == concurrency
    assert max(map(len, slots)) - min(len(own) for own in slots if own) <= 1
    assert sorted(start for own in slots for start in own) == pytest.approx(
        [j / concurrency for j in range(concurrency)]
    )
    seqs = [list(schedule.closed(0)) for schedule in schedules]
    assert sorted(seq for own in seqs for seq in own) == list(range(requests))
    assert all(own == sorted(own) for own in seqs)
    assert all(own for own in seqs[: min(shards, concurrency, requests)])
    assert not any(seqs[min(shards, concurrency) :])


def test_seed_and_nonce_decide_everything() -> None:
    stage = Stage(name="s", arrivals=Poisson(rate=30), duration_s=2)
    plan = plan_of(stage, targets=3)
    again, other_nonce, other_seed = (
        whole(plan, 1),
        plan_of(stage, targets=3, nonce="m"),
        plan_of(stage, targets=3, seed=8),
    )
    assert again == whole(plan, 1)
    for mine, others in zip(again, whole(other_nonce, 1), strict=True):
        assert mine[:3] == others[:3]
        assert mine[3] != others[3]
    assert [due for _, due, _, _ in whole(other_seed, 1)] != [due for _, due, _, _ in again]


def test_another_stage_or_prompt_length_moves_no_due_time() -> None:
    stage = Stage(name="s", arrivals=Poisson(rate=30), duration_s=2)
    due = list(Schedule(plan_of(stage), 0, 1).open(0))
    earlier = plan_of(Stage(name="warm-up", arrivals=Poisson(rate=5), requests=3), stage)
    assert list(Schedule(earlier, 0, 1).open(1)) == due
    longer = plan_of(stage, prompts=Synthetic(input_tokens=Tokens(mean=600, stdev=100)))
    assert list(Schedule(longer, 0, 1).open(0)) == due


def test_a_stage_ends_by_duration_or_requests_whichever_is_first() -> None:
    def due(**ends: float) -> list[int]:
        stage = Stage(name="s", arrivals=Constant(rate=10), **ends)  # type: ignore[arg-type]
        return [due_ns for _, due_ns, _ in Schedule(plan_of(stage), 0, 1).open(0)]

    assert due(duration_s=0.5) == [0, 100_000_000, 200_000_000, 300_000_000, 400_000_000]
    assert due(duration_s=0.5, requests=2) == [0, 100_000_000]
    assert due(duration_s=0.2, requests=20) == [0, 100_000_000]
    assert due(requests=3) == [0, 100_000_000, 200_000_000]


@pytest.mark.parametrize(("rate", "duration_s", "requests"), [(0.1, 30, 3), (3, 1, 3), (0.7, 100, 70), (7, 0.3, 3)])
def test_nothing_is_due_at_the_end_itself(rate: float, duration_s: float, requests: int) -> None:
    stage = Stage(name="s", arrivals=Constant(rate=rate), duration_s=duration_s)
    assert len(list(Schedule(plan_of(stage), 0, 1).open(0))) == requests


def test_closed_load_without_a_number_of_requests_never_ends_by_itself() -> None:
    plan = plan_of(Stage(name="c", arrivals=Closed(), concurrency=4, duration_s=10))
    assert list(islice(Schedule(plan, 1, 3).closed(0), 4)) == [1, 4, 7, 10]


def test_slots_ramp_up_over_two_seconds_or_a_tenth_of_the_stage() -> None:
    def stage(**keys: float) -> Stage:
        return Stage(name="c", arrivals=Closed(), concurrency=4, **keys)  # type: ignore[arg-type]

    assert ramp_up_s(stage(duration_s=60)) == 2
    assert ramp_up_s(stage(duration_s=5)) == pytest.approx(0.5)
    assert ramp_up_s(stage(requests=500)) == 2
    assert ramp_up_s(stage(duration_s=60, ramp_up_s=0)) == 0
    assert Schedule(plan_of(stage(duration_s=60)), 0, 1).slots(0) == [0, 0.5, 1, 1.5]
    assert Schedule(plan_of(stage(duration_s=60)), 1, 2).slots(0) == [0.5, 1.5]


@pytest.mark.parametrize("targets", [2, 3, 5])
def test_every_target_takes_every_place_equally_often(targets: int) -> None:
    orders = [target_order(7, "peak", seq, targets) for seq in range(targets * 200)]
    for place in range(targets):
        assert set(Counter(order[place] for order in orders).values()) == {200}


def test_target_orders_follow_no_regular_alternation() -> None:
    first = [target_order(7, "peak", seq, 2)[0] for seq in range(0, 4000, 2)]  # what one of two workers sees
    assert Counter(first)[0] == pytest.approx(1000, abs=100)
    assert sum(a == b for a, b in pairwise(first)) == pytest.approx(1000, abs=100)
    permutations = Counter(target_order(7, "peak", seq, 3) for seq in range(6000))
    assert len(permutations) == 6
    assert all(n == pytest.approx(1000, abs=120) for n in permutations.values())


def test_values_for_a_seed_are_the_same_under_every_python() -> None:
    orders = [target_order(7, "peak", seq, 3) for seq in range(6)]
    assert orders == [(0, 2, 1), (2, 1, 0), (1, 0, 2), (2, 0, 1), (0, 1, 2), (1, 2, 0)]
    stage = Stage(name="peak", arrivals=Poisson(rate=20), requests=2)
    assert list(Schedule(plan_of(stage), 0, 1).open(0)) == [(0, 25434002, (0,)), (1, 119173570, (0,))]


def test_a_dataset_goes_to_shards_as_one_alone_would_send_it(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(f'{{"prompt": "number {i}"}}\n' for i in range(5)))
    stage = Stage(name="s", arrivals=Constant(rate=10), requests=12)
    plan = plan_of(stage, prompts=Dataset(path=str(path), output_tokens=Tokens(mean=9, stdev=4)))
    alone = whole(plan, 1)
    assert whole(plan, 4) == alone
    assert [shot[3].id for shot in alone[:6]] == [f"p.jsonl:{i}" for i in (1, 2, 3, 4, 5, 1)]


def test_what_makes_no_sense_is_refused() -> None:
    plan = plan_of(Stage(name="c", arrivals=Closed(), concurrency=4, requests=4))
    with pytest.raises(ValueError, match="shard is 2; it must be from 0 to 1"):
        Schedule(plan, 2, 2)
    with pytest.raises(ValueError, match="no due times"):
        next(Schedule(plan, 0, 1).open(0))


def test_open_load_has_neither_slots_nor_a_queue() -> None:
    plan = plan_of(Stage(name="s", arrivals=Constant(rate=1), requests=4))
    assert Schedule(plan, 0, 1).slots(0) == []
    assert list(Schedule(plan, 0, 1).closed(0)) == []
