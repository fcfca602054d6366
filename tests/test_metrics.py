"""Every metric on rows whose answer was worked out by hand, and against an independent oracle on random rows.

Rows are Results that take the whole way: span columns, otel_traces, the materialized view, `requests`, the SQL.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import Struct, field

from loadtest import metrics
from loadtest.metrics import METRICS
from loadtest.rounds import SEQS
from loadtest.store import Store
from loadtest.types import FAULT_OF, TOKEN_KINDS, Metric, Result
from tests.rows import (
    CONTENT,
    EMPTY,
    MEDIA,
    REASONING,
    START_NS,
    TOOL_CALL,
    USAGE,
    WINDOW_S,
    Sample,
    answer,
    failure,
    insert,
    matched,
    ns,
    sample,
    usage,
)

RUN = "run = {run:String} AND NOT warmup"


class Case(Struct, kw_only=True):
    """Requests of one stage and target, and what must come of them."""

    rows: list[Result]
    expect: dict[str, Any]
    with_failures: dict[str, Any] = {}
    goodput: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = []


REFUSED = failure("rate_limited")
WRONG_KEY = failure("http_4xx")
OURS = failure("generator")
IN_WARM_UP = answer((1, CONTENT), warmup=True, due_ms=0)
NOT_STREAMED = answer((500, CONTENT), streamed=False, done_ms=500)

WITH_TOKENS = answer(
    (50, CONTENT), (110, CONTENT), (120, CONTENT), tokens=(1, 3, 1), output_tokens=5, token_source="usage"
)
MATCHED = matched((50, CONTENT), (90, CONTENT), output_tokens=2)
UNKNOWN = answer((50, CONTENT), (95, CONTENT), token_source="unknown")

CASES: dict[str, list[Case]] = {
    "ttft_ms": [
        Case(
            rows=[
                answer((10, EMPTY), (40, REASONING), (90, CONTENT)),  # 40: reasoning counts, a role does not
                answer((60, CONTENT)),
                answer((5, EMPTY), (80, TOOL_CALL)),
                answer((100, MEDIA), (120, USAGE)),
                NOT_STREAMED,
                REFUSED,
                WRONG_KEY,
                OURS,
                IN_WARM_UP,
            ],
            expect={"n": 4, "p50": 80, "p90": 100, "p99": 100, "mean": 70},  # 40 60 80 100; floor(0.5 * 4) = 2
            with_failures={"n": 5, "p50": 80, "p90": math.inf, "mean": math.inf},  # 40 60 80 100 inf
        ),
        Case(rows=[REFUSED, REFUSED], expect={"n": 0, "p50": None}, with_failures={"n": 2, "p50": math.inf}),
        Case(
            rows=[NOT_STREAMED, failure("reset", streamed=False)],
            expect={"n": 0, "p50": None, "mean": None},
            with_failures={"n": 0, "p50": None, "mean": None},
        ),
    ],
    "ttfo_ms": [
        Case(
            rows=[
                answer((40, REASONING), (90, CONTENT), (95, CONTENT)),
                answer((40, REASONING), (50, TOOL_CALL)),  # no content at all
                answer((60, CONTENT)),
                NOT_STREAMED,
            ],
            expect={"n": 2, "p50": 90, "mean": 75},
        )
    ],
    "icl_ms": [
        Case(
            rows=[
                # 20 and 30: neither the empty nor the usage chunk ends a gap
                answer((10, EMPTY), (50, CONTENT), (55, EMPTY), (70, REASONING), (100, CONTENT), (200, USAGE)),
                answer((50, CONTENT), (90, CONTENT)),  # 40
                NOT_STREAMED,
                REFUSED,
            ],
            expect={"n": 3, "p50": 30, "p90": 40, "mean": 30},
            # 3 gaps in 2 successes: the failed request counts round(1.5) = 2 times. 20 30 40 inf inf
            with_failures={"n": 5, "p50": 40, "p90": math.inf},
        ),
        Case(rows=[REFUSED], expect={"n": 0, "p50": None}, with_failures={"n": 1, "p50": math.inf}),
        Case(rows=[answer((50, CONTENT)), REFUSED], expect={"n": 0, "p50": None}, with_failures={"n": 0, "p50": None}),
    ],
    "itl_ms": [
        Case(
            rows=[
                WITH_TOKENS,  # 60 ms for 3 tokens: 20 20 20; 10 ms for 1: 10
                MATCHED,  # 40
                UNKNOWN,  # none: its 45 ms are of no known number of tokens
                REFUSED,
            ],
            expect={"n": 5, "p50": 20, "p90": 40, "mean": 22},
            # the three successes have 5 values: the failed request counts round(5 / 3) = 2 times
            with_failures={"n": 7, "p50": 20, "p90": math.inf},  # 10 20 20 20 40 inf inf
        ),
        Case(
            rows=[UNKNOWN, REFUSED],
            expect={"n": 0, "p50": None, "mean": None},
            with_failures={"n": 0, "p50": None, "mean": None},
        ),
        Case(
            rows=[answer((50, CONTENT), (60, CONTENT), (80, CONTENT), tokens=(1, 0, 2), token_source="tokenizer")],
            expect={"n": 2, "p50": 10},  # a chunk of no token has no value; 20 ms for 2 tokens
        ),
    ],
    "tpot_ms": [
        Case(
            rows=[
                WITH_TOKENS,  # 70 / (5 - 1) = 17.5
                answer((50, CONTENT), (80, CONTENT), (110, CONTENT), tokens=(2, 1, 1), output_tokens=4),  # 60 / 2 = 30
                usage((100, CONTENT), (300, CONTENT), output_tokens=11),  # k taken as 1: 200 / 10
                matched((50, CONTENT), output_tokens=1),  # n = k: null
                # ten reasoning tokens that were never streamed: 200 / (21 - 10 - 1)
                usage((50, CONTENT), (250, CONTENT), output_tokens=21, reasoning_tokens=10),
                # the same, but streamed: 200 / (21 - 1)
                usage((50, REASONING), (250, CONTENT), output_tokens=21, reasoning_tokens=10),
                UNKNOWN,
                NOT_STREAMED,
            ],
            expect={"n": 5, "p50": 20, "p90": 30, "mean": 19.5},  # 10 17.5 20 20 30
        )
    ],
    "e2e_ms": [
        Case(
            rows=[NOT_STREAMED, answer((50, CONTENT), done_ms=1000), answer((50, CONTENT), done_ms=750), REFUSED],
            expect={"n": 3, "p50": 750, "mean": 750, "sd": 250},
            with_failures={"n": 4, "p50": 1000, "p90": math.inf},
        )
    ],
    "due_ttft_ms": [
        Case(
            rows=[
                answer((40, CONTENT), at_ms=100, due_ms=90),  # 10 + 40
                answer((60, CONTENT), at_ms=100, due_ms=95),  # 5 + 60
                failure("timeout_total", at_ms=100, due_ms=95),
                NOT_STREAMED,
            ],
            expect={"n": 2, "p50": 65, "mean": 57.5},
            with_failures={"n": 3, "p50": 65, "p99": math.inf},
        ),
        Case(  # closed load: nothing was due
            rows=[answer((40, CONTENT)), REFUSED],
            expect={"n": 0, "p50": None},
            with_failures={"n": 0, "p50": None},
        ),
    ],
    "due_e2e_ms": [
        Case(
            rows=[answer((40, CONTENT), at_ms=100, due_ms=90, done_ms=200), failure("reset", at_ms=5, due_ms=5)],
            expect={"n": 1, "p50": 210},
            with_failures={"n": 2, "p50": math.inf},
        ),
        Case(rows=[answer((40, CONTENT)), REFUSED], expect={"n": 0}, with_failures={"n": 0, "mean": None}),
    ],
    "output_speed": [
        Case(
            rows=[
                usage((100, CONTENT), (300, CONTENT), output_tokens=11),  # 20 ms a token: 50/s
                usage((100, CONTENT), (500, CONTENT), output_tokens=11),  # 40 ms: 25/s
                usage((100, CONTENT), (100, CONTENT), output_tokens=11),  # 0 ms: null
                REFUSED,
            ],
            expect={"n": 2, "p50": 50, "mean": 37.5},
            with_failures={"n": 3, "p50": 25, "p10": 0, "mean": 25},  # a failure has no speed: 0 25 50
        )
    ],
    "output_tokens_per_s": [
        Case(
            rows=[
                # one token a chunk, the third arrives 100 ms after the end of arrivals: 2
                matched((50, CONTENT), (90, CONTENT), (200, CONTENT), at_ms=9900, output_tokens=3),
                # 10 tokens, unknown in which of 4 chunks, one of them too late: 2.5 each, 7.5
                usage((1, CONTENT), (2, CONTENT), (3, CONTENT), (50, CONTENT), at_ms=9990, output_tokens=10),
                usage((400, CONTENT), streamed=False, done_ms=400, output_tokens=20),
                usage((600, REASONING), (600, CONTENT), streamed=False, done_ms=600, tokens=(1, 1), output_tokens=1),
                usage((400, CONTENT), at_ms=9800, streamed=False, done_ms=400, output_tokens=9),
                failure("truncated", tokens=()),
                answer((1, CONTENT), (2, CONTENT), tokens=(1, 2), error="reset", token_source="tokenizer"),  # 3
                # 30 tokens, of which 20 of reasoning were never streamed: 10
                usage((1, CONTENT), (2, CONTENT), output_tokens=30, reasoning_tokens=20),
            ],
            # 2 + 7.5 + 20 + 1 + 3 + 10 in 10 s
            expect={"": 4.35, "total": 43.5, "squares": 4 + 56.25 + 400 + 1 + 9 + 100},
        ),
        Case(rows=[MATCHED, UNKNOWN], expect={"": None, "total": None, "squares": None}),
        Case(rows=[MATCHED, answer((50, CONTENT), at_ms=9999)], expect={"": 0.2, "total": 2}),  # unknown, but too late
    ],
    "requests_per_s": [
        Case(
            rows=[
                answer((1, CONTENT), done_ms=5),
                NOT_STREAMED,
                answer((1, CONTENT), at_ms=9000, done_ms=1000),  # at the very end of arrivals
                answer((1, CONTENT), at_ms=9000, done_ms=1001),  # too late
                REFUSED,
                WRONG_KEY,
            ],
            expect={"": 0.3, "total": 3, "squares": 3},
        )
    ],
    "error_rate": [
        Case(
            rows=[*[answer((1, CONTENT))] * 6, REFUSED, failure("empty"), failure("dns"), WRONG_KEY, OURS],
            expect={"": 3 / 9, "n": 9, "hits": 3},
        ),
        Case(rows=[WRONG_KEY, failure("cancelled")], expect={"": None, "n": 0}),
    ],
    "success_rate": [
        Case(rows=[answer((1, CONTENT)), REFUSED, failure("tls"), OURS], expect={"": 1 / 3, "n": 3, "hits": 1})
    ],
    "goodput": [
        Case(
            goodput={"ttft_ms": 100, "tpot_ms": 20},
            rows=[
                usage((100, CONTENT), (300, CONTENT), output_tokens=11),  # both at their limits
                usage((100, CONTENT), output_tokens=1),  # no pace to be too slow: met
                usage((101, CONTENT), output_tokens=1),  # late
                usage((50, CONTENT), (251, CONTENT), output_tokens=11),  # slow
                answer((101, CONTENT), (102, CONTENT)),  # tokens unknown, but it is late in any case
                answer((50, CONTENT), (51, CONTENT), at_ms=9999),  # unknown, but not within the window
                REFUSED,
                OURS,
            ],
            expect={"": 0.2, "total": 2, "squares": 2},
        ),
        Case(  # how many tokens the second has, and so its pace, is unknown
            goodput={"ttft_ms": 100, "tpot_ms": 20},
            rows=[MATCHED, UNKNOWN],
            expect={"": None, "total": None},
        ),
        Case(goodput={"ttft_ms": 100}, rows=[NOT_STREAMED], expect={"": None}),
        Case(goodput={"e2e_ms": 500, "output_speed": 30}, rows=[NOT_STREAMED], expect={"": None}),
        Case(  # 50/s and 25/s, 30/s wanted
            goodput={"output_speed": 30},
            rows=[
                usage((100, CONTENT), (300, CONTENT), output_tokens=11),
                usage((100, CONTENT), (500, CONTENT), output_tokens=11),
            ],
            expect={"": 0.1},
        ),
        Case(  # due 90 ms before it was sent
            goodput={"due_ttft_ms": 100, "due_e2e_ms": 1000, "ttfo_ms": 40},
            rows=[
                answer((9, REASONING), (10, CONTENT), at_ms=90, due_ms=0, done_ms=910),
                answer((11, CONTENT), at_ms=90, due_ms=0),
                answer((9, REASONING), (41, CONTENT), at_ms=90, due_ms=0, done_ms=910),
            ],
            expect={"": 0.1},
        ),
        Case(rows=[MATCHED], expect={"": None}),  # no limits, no goodput
    ],
    "schedule_lag_ms": [
        Case(
            rows=[
                answer(due_ms=10, started_ns=START_NS + ns(11)),
                answer(due_ms=10, started_ns=START_NS + ns(12)),
                failure("generator", due_ms=10, started_ns=START_NS + ns(50)),  # all requests, whatever became of them
                answer(),
            ],
            expect={"n": 3, "p50": 2, "p99": 40},
            with_failures={"n": 3, "p50": 2, "p99": 40},
        )
    ],
    "connect_ms": [
        Case(
            rows=[
                answer(dns_dur_ns=ns(5), connect_dur_ns=ns(10), tls_dur_ns=ns(20)),  # 35
                answer(connect_dur_ns=ns(10)),  # an address, and no TLS: 10
                answer(reused=True),
                failure("connect", dns_dur_ns=ns(5)),
                failure("overloaded", reused=True),
            ],
            expect={"n": 2, "p50": 35, "mean": 22.5},
            with_failures={"n": 3, "p50": 35, "p99": math.inf},
        )
    ],
    "read_lag_ms": [
        Case(
            rows=[answer(read_lag_ns=ns(0.5)), failure("reset", read_lag_ns=ns(1.5)), answer(clock="user")],
            expect={"n": 2, "p50": 1.5, "mean": 1},
        )
    ],
    "uncertainty_ms": [
        Case(
            rows=[answer(), answer(), failure("reset", uncertainty_ns=ns(30))],
            expect={"n": 3, "p50": 0, "p99": 30},
        )
    ],
    "energy_per_token": [
        Case(  # two GPUs of 100 W and of 200 W, in one second 210: 301 W together, on average; 2 tokens in ten seconds
            rows=[MATCHED, REFUSED],
            samples=[
                *(Sample(1000 * s + 500, 100, "0", name="hw.power") for s in range(10)),
                *(Sample(1000 * s + 500, 210 if s == 3 else 200, "1", name="hw.power") for s in range(10)),
                *(Sample(1000 * s + 500, 9999, name="hw.power", targets="another") for s in range(10)),
                Sample(10_500, 9999, name="hw.power"),  # after the stage
            ],
            expect={"": 301 / 0.2, "total": 2},
        ),
        Case(  # half of the stage is no stage
            rows=[MATCHED],
            samples=[Sample(1000 * s + 500, 100, name="hw.power") for s in range(5)],
            expect={"": None, "total": 2},
        ),
        Case(  # no token: no energy per token, rather than infinite energy
            rows=[REFUSED],
            samples=[Sample(1000 * s + 500, 100, name="hw.power") for s in range(10)],
            expect={"": None, "total": 0},
        ),
        Case(rows=[MATCHED], expect={"": None, "total": 2}),  # nothing was sampled
    ],
    "gpu_utilization": [
        Case(  # steps of a second with 0.2, 0.4 (of two devices), none, 0.8: means of 0.3, 0.4 and 0.8
            rows=[
                answer(at_ms=900, done_ms=200),
                answer(at_ms=1200, done_ms=100),
                answer(at_ms=1500, done_ms=2000),  # over the step without a sample: the mean of 0.4 and 0.8
                answer(at_ms=2100, done_ms=500),  # within it: none
                failure("reset", at_ms=3999, done_ms=1),
                answer(at_ms=8000, done_ms=500),  # long after the last
            ],
            samples=[
                Sample(500, 0.2),
                Sample(1500, 0.3, "0"),
                Sample(1501, 0.5, "1"),
                Sample(3500, 0.8),
                Sample(3500, 0.1, targets="another"),
            ],
            expect={"n": 4, "p1": 30, "p50": 60, "p99": 80, "mean": (30 + 40 + 60 + 80) / 4},
        ),
        Case(  # a device that serves two targets, and a value that is too old
            rows=[answer(at_ms=100, done_ms=100), answer(at_ms=1100, done_ms=100)],
            samples=[Sample(500, 0.5, targets="other,t", age_ms=5000), Sample(1500, 0.7, age_ms=5001)],
            expect={"n": 1, "mean": 50},
        ),
        Case(rows=[answer()], expect={"n": 0, "p50": None, "mean": None}),
    ],
}


NUMBERED = [(name, number, case) for name, cases in CASES.items() for number, case in enumerate(cases)]


@pytest.fixture(scope="module")
def hand_worked(store: Store) -> Store:
    for name, number, case in NUMBERED:
        insert(store, f"{name}-{number}", case.rows, case.goodput)
        if case.samples:
            sample(store, f"{name}-{number}", case.samples)
    return store


def figures_of(store: Store, run: str, name: str, expect: dict[str, Any], failures: bool) -> dict[str, Any]:
    stats = [stat for stat in expect if stat.startswith("p") or stat == "mean"] + (["mean"] if "sd" in expect else [])
    sql = metrics.figures([name], RUN, stats=stats or ["p50"], failures=failures)
    [row] = store.query(sql, {"run": run})
    assert (row.pop("stage"), row.pop("target")) == ("s", "t")
    return {stat: row[f"{name}_{stat}" if stat else name] for stat in expect}


@pytest.mark.parametrize(("name", "number", "case"), NUMBERED, ids=[f"{name}-{n}" for name, n, _ in NUMBERED])
def test_answers_worked_out_by_hand(hand_worked: Store, name: str, number: int, case: Case) -> None:
    run = f"{name}-{number}"
    assert figures_of(hand_worked, run, name, case.expect, failures=False) == pytest.approx(case.expect)
    if case.with_failures:
        assert figures_of(hand_worked, run, name, case.with_failures, failures=True) == pytest.approx(
            case.with_failures
        )


def test_every_metric_has_a_case_worked_out_by_hand() -> None:
    assert CASES.keys() == METRICS.keys()


# The oracle: METRICS.md in plain Python, over the Results


def token_chunks(r: Result) -> list[tuple[int, int | None]]:
    """(arrival, tokens or None) of each token chunk."""
    if r.token_source == "usage_matched":
        counts: list[int | None] = [1] * len(r.chunk_kind)
    else:
        counts = list(r.chunk_tokens) or [None] * len(r.chunk_kind)
    return [
        (at, count) for at, kind, count in zip(r.chunk_ns, r.chunk_kind, counts, strict=True) if kind in TOKEN_KINDS
    ]


def known_n(r: Result) -> int | None:
    if r.output_tokens is None:
        return None
    unseen = (r.reasoning_tokens or 0) if r.streamed and REASONING not in r.chunk_kind else 0
    return r.output_tokens - unseen


def ttft(r: Result) -> float | None:
    return (token_chunks(r)[0][0] - r.sent_ns) / 1e6 if r.streamed and token_chunks(r) else None


def ttfo(r: Result) -> float | None:
    content = [at for at, kind in zip(r.chunk_ns, r.chunk_kind, strict=True) if kind == CONTENT]
    return (content[0] - r.sent_ns) / 1e6 if r.streamed and content else None


def icl(r: Result) -> list[float]:
    chunks = token_chunks(r) if r.streamed else []
    return [(b - a) / 1e6 for (a, _), (b, _) in pairwise(chunks)]


def itl(r: Result) -> list[float]:
    chunks = token_chunks(r) if r.streamed else []
    out = []
    for (a, _), (b, tokens) in pairwise(chunks):
        out += [(b - a) / 1e6 / tokens] * tokens if tokens else []
    return out


def tpot(r: Result) -> float | None:
    chunks, n = token_chunks(r), known_n(r)
    if not r.streamed or not chunks or n is None:
        return None
    k = chunks[0][1] if chunks[0][1] is not None else 1
    return (chunks[-1][0] - chunks[0][0]) / 1e6 / (n - k) if n > k else None


def e2e(r: Result) -> float | None:
    return (r.done_ns - r.sent_ns) / 1e6


def since_due(figure: float | None, r: Result) -> float | None:
    return None if figure is None or r.due_ns is None else figure + (r.sent_ns - r.due_ns) / 1e6


def connect(r: Result) -> float | None:
    if r.reused or r.connect_dur_ns is None:
        return None
    return ((r.dns_dur_ns or 0) + r.connect_dur_ns + (r.tls_dur_ns or 0)) / 1e6


def speed(r: Result) -> float | None:
    pace = tpot(r)
    return 1000 / pace if pace else None


VALUES = {
    "ttft_ms": ttft,
    "ttfo_ms": ttfo,
    "icl_ms": icl,
    "itl_ms": itl,
    "tpot_ms": tpot,
    "e2e_ms": e2e,
    "due_ttft_ms": lambda r: since_due(ttft(r), r),
    "due_e2e_ms": lambda r: since_due(e2e(r), r),
    "output_speed": speed,
    "connect_ms": connect,
}


def sampled(r: Result) -> float | None:
    """The mean over the steps that overlap the request, of those that have a value."""
    first, last = ((at - START_NS) // STEP_NS for at in (r.sent_ns, r.done_ns))
    means = [math.fsum(some) / len(some) for s in range(first, last + 1) if (some := utilizations(r.target, s))]
    return 100 * math.fsum(means) / len(means) if means else None


STEP_NS = 1_000_000_000


def utilizations(target: str, step: int) -> list[float]:
    """Of each device that answered in a step; in one of five none did."""
    if step % 5 == 3 or not 0 <= step < WINDOW_S:
        return []
    return [(step * 7 + device * 3 + len(target)) % 10 / 10 for device in range(1 + step % 2)]


OF_ALL_REQUESTS = {
    "gpu_utilization": sampled,
    "schedule_lag_ms": lambda r: None if r.due_ns is None else (r.started_ns - r.due_ns) / 1e6,
    "read_lag_ms": lambda r: r.read_lag_ns / 1e6 if r.clock == "kernel" else None,
    "uncertainty_ms": lambda r: None if r.first_byte_ns is None and not r.uncertainty_ns else r.uncertainty_ns / 1e6,
}
APPLIES = {
    "due_ttft_ms": lambda r: r.streamed and r.due_ns is not None,
    "due_e2e_ms": lambda r: r.due_ns is not None,
    "connect_ms": lambda r: not r.reused,
    "e2e_ms": lambda _: True,
}


def values(name: str, rows: Sequence[Result], failures: bool) -> list[float]:
    if name in OF_ALL_REQUESTS:
        return sorted(v for r in rows if (v := OF_ALL_REQUESTS[name](r)) is not None)
    applies = APPLIES.get(name, lambda r: r.streamed)
    each = [VALUES[name](r) for r in rows if r.error is None and applies(r)]
    lists = [v if isinstance(v, list) else [] if v is None else [v] for v in each]
    out = [v for some in lists for v in some]
    if failures and not (lists and not out):
        copies = max(1, round(len(out) / len(lists))) if lists and name in ("icl_ms", "itl_ms") else 1
        failed = [r for r in rows if r.error and FAULT_OF[r.error] in ("endpoint", "network") and applies(r)]
        out += [0.0 if name == "output_speed" else math.inf] * copies * len(failed)
    return sorted(out)


def arrived(r: Result) -> list[tuple[int, float]] | None:
    """(instant, tokens) of one request; None where they are unknown."""
    chunks, n = token_chunks(r) if r.streamed else [], known_n(r)
    if chunks and chunks[0][1] is not None:
        return [(at, tokens or 0) for at, tokens in chunks]
    if n is None:
        return [] if r.error else None
    return [(at, n / len(chunks)) for at, _ in chunks] or [(r.done_ns, n)]


def within(instant: int) -> bool:
    return START_NS <= instant <= START_NS + WINDOW_S * 1_000_000_000


def good(r: Result, limits: dict[str, float]) -> float | None:
    if r.error:
        return 0
    unknown = False
    for name, limit in limits.items():
        figure = VALUES[name](r)
        chunks, n = token_chunks(r), known_n(r)
        k = chunks[0][1] if chunks and chunks[0][1] is not None else 1
        if name in ("tpot_ms", "output_speed") and n is not None and n <= k:
            continue
        if figure is None:
            unknown = True
        elif figure < limit if name == "output_speed" else figure > limit:
            return 0
    return None if unknown else 1


LIMITS = {"ttft_ms": 150.0, "tpot_ms": 150.0, "e2e_ms": 900.0}


def amounts(name: str, rows: Sequence[Result]) -> list[list[tuple[int, float]] | None]:
    """Each request's (instant, amount); None where unknown."""
    if name == "requests_per_s":
        return [[(r.done_ns, 1)] for r in rows if r.error is None]
    if name == "output_tokens_per_s":
        return [arrived(r) for r in rows]
    judged = [(r, good(r, LIMITS)) for r in rows if within(r.done_ns)]
    return [None if met is None else [(r.done_ns, met)] for r, met in judged]


def random_result(rng: Random, seq: int, stage: str, target: str) -> Result:
    open_load, streamed = stage != "closed", rng.random() < 0.9
    source = rng.choice(["usage", "usage_matched", "usage_matched", "tokenizer", "unknown"])
    if (stage, target) == ("open", "b"):  # a group in which everything is known
        source, streamed = "usage_matched", True
    error = rng.choice([None] * 8 + [rng.choice(list(FAULT_OF))])
    at_ms = rng.uniform(0, WINDOW_S * 1000)
    kinds = [rng.choice([EMPTY, REASONING, CONTENT, CONTENT, CONTENT, TOOL_CALL]) for _ in range(rng.randrange(0, 9))]
    if error is None:
        kinds.append(CONTENT)
    times = sorted(rng.uniform(20, 1200) for _ in kinds)
    n_chunks = sum(kind in TOKEN_KINDS for kind in kinds)
    tokens = [rng.randrange(0, 4) if kind in TOKEN_KINDS else 0 for kind in kinds] if source == "tokenizer" else []
    counted = {"usage": rng.randrange(0, 30), "usage_matched": n_chunks, "tokenizer": sum(tokens), "unknown": None}
    return answer(
        *zip(times, kinds, strict=True),
        stage=stage,
        target=target,
        seq=seq,
        warmup=stage == "warm-up",
        at_ms=at_ms,
        due_ms=at_ms - rng.uniform(0, 20) if open_load else None,
        done_ms=(times[-1] if times else 0) + rng.uniform(1, 50),
        streamed=streamed,
        error=error,
        tokens=tokens,
        token_source=source,
        output_tokens=counted[source],
        reasoning_tokens=rng.choice([None, 0, 3]) if source == "usage" else None,
        reused=rng.random() < 0.5,
        dns_dur_ns=rng.choice([None, 1000]),
        connect_dur_ns=rng.choice([None, 20_000, 30_000]),
        tls_dur_ns=rng.choice([None, 400_000]),
        clock=rng.choice(["kernel", "kernel", "user"]),
        read_lag_ns=rng.randrange(10_000_000),
        uncertainty_ns=rng.choice([0, 0, 5_000_000]),
    )


GROUPS = [(stage, target) for stage in ("open", "closed") for target in ("a", "b")]


@pytest.fixture(scope="module")
def by_group(store: Store) -> dict[tuple[str, str], list[Result]]:
    rng = Random(7)
    out = {
        (stage, target): [random_result(rng, seq, stage, target) for seq in range(150)]
        for stage, target in [*GROUPS, ("warm-up", "a")]
    }
    insert(store, "random", [row for rows in out.values() for row in rows], LIMITS)
    samples = [
        Sample(1000 * step + 500 + device, value, str(device), target)
        for target in ("a", "b")
        for step in range(WINDOW_S)
        for device, value in enumerate(utilizations(target, step))
    ]
    sample(store, "random", samples)
    return out


def close(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("failures", [False, True])
@pytest.mark.parametrize("name", [m.name for m in METRICS.values() if m.kind in ("request", "pooled")])
def test_percentiles_against_the_oracle(
    store: Store, by_group: dict[tuple[str, str], list[Result]], name: str, failures: bool
) -> None:
    stats = ("p1", "p50", "p90", "p99", "p99.9", "mean")
    rows = store.query(metrics.figures([name], RUN, stats=stats, failures=failures), {"run": "random"})
    assert [(row["stage"], row["target"]) for row in rows] == sorted(GROUPS)
    for row in rows:
        expected = values(name, by_group[row["stage"], row["target"]], failures)
        n = len(expected)
        assert row[f"{name}_n"] == n
        for level, label in ((0.01, "p1"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p999")):
            assert row[f"{name}_{label}"] == close(expected[math.floor(level * n)] if n else None)
        assert row[f"{name}_mean"] == close(math.fsum(expected) / n if n else None)


@pytest.mark.parametrize("name", [m.name for m in METRICS.values() if m.kind == "rate"])
def test_rates_against_the_oracle(store: Store, by_group: dict[tuple[str, str], list[Result]], name: str) -> None:
    seen = []
    for row in store.query(metrics.figures([name], RUN), {"run": "random"}):
        each = amounts(name, by_group[row["stage"], row["target"]])
        per_request = [None if some is None else sum(v for at, v in some if within(at)) for some in each]
        unknown = None in per_request
        total = None if unknown else math.fsum(v for v in per_request if v is not None)
        seen.append(total)
        assert row[f"{name}_total"] == close(total)
        assert row[name] == close(None if total is None else total / WINDOW_S)
        assert row[f"{name}_squares"] == close(None if unknown else math.fsum((v or 0) ** 2 for v in per_request))
    assert any(seen)  # the sample must not be so poor that everything is unknown


def test_shares_against_the_oracle(store: Store, by_group: dict[tuple[str, str], list[Result]]) -> None:
    for row in store.query(metrics.figures(["error_rate", "success_rate"], RUN), {"run": "random"}):
        rows = by_group[row["stage"], row["target"]]
        ended = [r for r in rows if r.error is None or FAULT_OF[r.error] in ("endpoint", "network")]
        errors = sum(r.error is not None for r in ended)
        assert (row["error_rate_hits"], row["error_rate_n"]) == (errors, len(ended))
        assert row["error_rate"] == close(errors / len(ended))
        assert row["success_rate"] == close(1 - errors / len(ended))


def test_a_series_is_bucketed_by_the_time_of_sending(
    store: Store, by_group: dict[tuple[str, str], list[Result]]
) -> None:
    step_ns, origin_ns = 3_000_000_000, START_NS + 2_000_000_000
    sql = metrics.series("ttft_ms", RUN, step_ns, stats=["p50", "mean"], failures=True, origin_ns=str(origin_ns))
    found = {(r["stage"], r["target"], r["t_ns"]): r for r in store.query(sql, {"run": "random"})}
    expected = set()
    for (stage, target), rows in by_group.items():
        for t_ns in range(origin_ns - step_ns, START_NS + WINDOW_S * 1_000_000_000, step_ns):
            within_bucket = values("ttft_ms", [r for r in rows if t_ns <= r.sent_ns < t_ns + step_ns], True)
            if stage == "warm-up":
                continue
            expected.add((stage, target, t_ns))
            n = len(within_bucket)
            row = found[stage, target, t_ns]
            assert (row["ttft_ms_n"], row["ttft_ms_p50"]) == (
                n,
                close(within_bucket[math.floor(0.5 * n)] if n else None),
            )
    assert found.keys() == expected


def test_a_target_that_had_sent_all_its_requests_sooner_has_a_window_of_its_own(store: Store) -> None:
    rows = [
        answer(target=t, seq=n * SEQS, at_ms=at + 20_000 * n) for t in "ab" for n in (0, 1) for at in (0, 3000, 7000)
    ]
    insert(store, "own-windows", rows, {}, {"a": 6000})
    found = store.query(metrics.figures(["requests_per_s"], RUN), {"run": "own-windows"})
    assert {row["target"]: row["requests_per_s"] for row in found} == {"a": close(4 / 8), "b": close(6 / 20)}
    assert {row["target"]: row["requests_per_s_window_s"] for row in found} == {"a": 8, "b": 20}
    by = (*metrics.BY, metrics.BY_ROUND)
    found = store.query(metrics.figures(["requests_per_s"], RUN, by=by), {"run": "own-windows"})
    rates = {"a": close(2 / 4), "b": close(3 / 10)}
    assert [(row["target"], row["requests_per_s"]) for row in found] == [(t, rates[t]) for t in "aabb"]


@pytest.mark.parametrize("name", ["requests_per_s", "output_tokens_per_s"])
def test_a_series_of_a_rate_is_bucketed_by_the_instants_of_its_amounts(
    store: Store, by_group: dict[tuple[str, str], list[Result]], name: str
) -> None:
    step_ns = 2_000_000_000
    sql = metrics.series(name, f"{RUN} AND stage = 'open' AND target = 'b'", step_ns, origin_ns="{origin:Int64}")
    found = {r["t_ns"]: r for r in store.query(sql, {"run": "random", "origin": START_NS})}
    expected: dict[int, float] = {}
    for some in amounts(name, by_group["open", "b"]):
        for at, amount in some or []:
            t_ns = at - (at - START_NS) % step_ns
            expected[t_ns] = expected.get(t_ns, 0) + amount
    assert {t_ns: row[f"{name}_total"] for t_ns, row in found.items()} == {t: close(v) for t, v in expected.items()}
    assert {t_ns: row[name] for t_ns, row in found.items()} == {t: close(v / 2) for t, v in expected.items()}


def test_order_statistics_are_read_off_by_rank(store: Store, by_group: dict[tuple[str, str], list[Result]]) -> None:
    every = values("e2e_ms", by_group["open", "a"], True)
    n = len(every)
    where = f"{RUN} AND stage = 'open' AND target = 'a'"
    ranks = (0, 3, n // 2, n - 1)
    sql = metrics.order_statistics("e2e_ms", [(rank + 0.5) / n for rank in ranks], 600, where)
    [row] = store.query(sql, {"run": "random"})
    assert row["q"] == [close(every[rank]) for rank in ranks]
    assert (row["n"], row["worse"]) == (n, sum(v > 600 for v in every))


def test_blocks_deal_out_every_value_once(store: Store, by_group: dict[tuple[str, str], list[Result]]) -> None:
    every = values("icl_ms", by_group["open", "b"], True)
    where = f"{RUN} AND stage = 'open' AND target = 'b'"
    rows = store.query(metrics.blocks("icl_ms", 100, where, 12), {"run": "random"})
    assert 2 <= len(rows) <= 12
    assert sum(row["n"] for row in rows) == len(every)
    assert sum(row["below"] for row in rows) == sum(v < 100 for v in every)


def test_rows_are_the_requests_behind_a_figure(store: Store, by_group: dict[tuple[str, str], list[Result]]) -> None:
    where = f"{RUN} AND stage = 'open' AND target = 'b'"
    names = ["ttft_ms", "icl_ms", "error_rate", "requests_per_s"]
    found = store.query(metrics.rows(names, where), {"run": "random"})
    expected = sorted(by_group["open", "b"], key=lambda r: r.sent_ns)
    assert [row["t_ns"] for row in found] == [r.sent_ns for r in expected]
    for row, r in zip(found, expected, strict=True):
        ok = r.error is None
        assert row["ttft_ms"] == close(ttft(r) if ok else None)
        assert row["icl_ms"] == [close(v) for v in (icl(r) if ok else [])]
        assert row["requests_per_s"] == (ok and within(r.done_ns))
        assert row["error_rate"] == (None if r.error and FAULT_OF[r.error] in ("client", "generator") else not ok)


def test_figures_of_several_metrics_come_in_one_query(store: Store, by_group: object) -> None:  # noqa: ARG001
    together = store.query(metrics.figures(list(METRICS), RUN, failures=True), {"run": "random"})
    for name in METRICS:
        alone = store.query(metrics.figures([name], RUN, failures=True), {"run": "random"})
        for one, all_of_them in zip(alone, together, strict=True):
            assert {key: all_of_them[key] for key in one} == {key: close_or_same(value) for key, value in one.items()}


def close_or_same(value: Any) -> Any:
    return close(value) if isinstance(value, float) else value


def test_the_endpoints_figures_are_never_mixed() -> None:
    with pytest.raises(ValueError, match="ttft_ms cannot be taken across stages or targets"):
        metrics.figures(["ttft_ms", "read_lag_ms"], "true", by=("target",))
    assert "GROUP BY" not in metrics.figures(["read_lag_ms"], "true", by=())


def test_rates_and_shares_need_no_stat() -> None:
    assert {name for name in METRICS if not metrics.needs_stat(name)} == {
        "output_tokens_per_s",
        "requests_per_s",
        "goodput",
        "error_rate",
        "success_rate",
        "energy_per_token",
    }


def test_a_goodput_limit_is_on_one_figure_of_one_request() -> None:
    assert all(METRICS[name].kind == "request" for name in metrics.GOODPUT_LIMITS)


def test_the_catalogue_in_the_docs_is_this_one() -> None:
    page = Path(__file__).parent.parent / "docs" / "metrics.md"
    assert page.read_text().startswith(metrics.catalogue()), "run: python -m loadtest.definitions > docs/metrics.md"


def test_every_metric_is_explained() -> None:
    def lacks(m: Metric) -> bool:
        return (
            not m.doc.endswith(".")
            or not m.unit
            or (m.kind in ("rate", "ratio")) != bool(m.at)
            or (m.kind == "ratio" and not m.sampled)
            or (m.kind == "pooled") != bool(m.count)
        )

    assert [m.name for m in METRICS.values() if lacks(m)] == []


def test_no_column_of_the_table_is_hidden_by_a_figure(store: Store) -> None:
    """ClickHouse prefers an alias to a column of its name, everywhere in the query."""
    names = {row["name"] for row in store.query("DESCRIBE TABLE requests")}
    names |= {"start_ns", "end_ns", "goodput_limits"}
    assert names.isdisjoint(METRICS)
