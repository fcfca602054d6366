"""Validity rule by rule: on facts worked out by hand, and provoked in real runs."""

from pathlib import Path

import msgspec
import pytest

from loadtest import validity as rules
from loadtest.validity import Account, Facts, Generator, Group, Integrity, validity

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


HERE = "in stage peak, target acme"
PROVOKED: dict[str, list[tuple[Facts, Facts, str]]] = {
    # rule: (still valid, INVALID, what the reason must say)
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
    "uncertainty": [(facts(uncertainty_p99_ms=25.0), facts(uncertainty_p99_ms=31.0), f"uncertain by 31 ms {HERE}")],
    "worker_cpu": [(generator(busiest=0.9), generator(busiest=0.97), "97% of the time, for seconds on end (limit 90%)")],
    "throttled": [(generator(throttled=0.01), generator(throttled=0.2), "20.00% of the time")],
    "stolen": [(generator(stolen=0.05), generator(stolen=0.123), "12.30% of a machine's CPU time")],
    "start_spread": [(generator(start_spread_ms=100), generator(start_spread_ms=140), "started 140 ms apart")],
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
