"""Every definition of other tools: on rows worked out by hand, and against an oracle in plain Python on random rows."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import definitions, metrics
from loadtest.definitions import DEFINITIONS, TOOLS, Definition, Method
from loadtest.store import Store
from loadtest.types import FAULT_OF, Result
from tests.rows import CONTENT, EMPTY, REASONING, START_NS, TOOL_CALL, USAGE, WINDOW_S, answer, failure, insert, ns

RUN = "run = {run:String} AND NOT warmup"

# Rows worked out by hand

OPENED = {"dns_dur_ns": ns(1), "connect_dur_ns": ns(4), "tls_dur_ns": ns(5)}  # 10 ms before the request was sent
THOUGHT = answer(
    (20, EMPTY),
    (100, REASONING),
    (150, CONTENT),
    (210, CONTENT),  # of two tokens
    (220, EMPTY),
    (230, USAGE),
    done_ms=240,
    at_ms=100,
    due_ms=85,
    tokens=(0, 1, 1, 2, 0, 0),
    output_tokens=4,
    token_source="usage",
    **OPENED,
)
PLAIN = answer(  # five tokens, unknown in which of two chunks
    (50, CONTENT),
    (90, CONTENT),
    (100, USAGE),
    done_ms=110,
    at_ms=100,
    due_ms=90,
    output_tokens=5,
    token_source="usage",
    reused=True,
)
REFUSED = failure("rate_limited", reused=True)  # after 5 ms
SAID_NOTHING = answer(done_ms=1000, error="empty", reused=True)  # not a chunk
BROKE_IN = answer((40, CONTENT), (60, CONTENT), done_ms=70, error="error_event", reused=True)
WHOLE = answer(
    (300, CONTENT), streamed=False, done_ms=300, due_ms=0, output_tokens=3, token_source="usage", reused=True
)
IN_WARM_UP = answer((1, CONTENT), (2, CONTENT), warmup=True, due_ms=0)
OURS = failure("generator", done_ms=1)
NOTHING_BUT_CHUNKS = answer((10, EMPTY), (20, EMPTY), done_ms=30, error="empty", reused=True)

ROWS = [THOUGHT, PLAIN, REFUSED, SAID_NOTHING, BROKE_IN, NOTHING_BUT_CHUNKS, WHOLE, IN_WARM_UP, OURS]

BY_HAND: dict[str, list[float] | list[tuple[float, int]]] = {
    "aiperf.ttft_ms": [10 + 100, 50],
    "aiperf.ttfo_ms": [10 + 150, 50],
    "aiperf.itl_ms": [(210 - 100) / 3, (90 - 50) / 4],
    "aiperf.itl_per_chunk_usage_ms": [110 / (4 - 1)],
    "aiperf.icl_ms": [50, 60, 40],
    "aiperf.e2e_ms": [10 + 210, 90, 300],
    "guidellm.ttft_ms": [100, 50],
    "guidellm.ttfot_ms": [150, 50],
    "guidellm.itl_ms": [(110 / 3, 3), (40 / 4, 4)],
    "guidellm.tpot_ms": [(210 / 4, 4), (90 / 5, 5)],
    "guidellm.e2e_ms": [240, 110, 300],
    "genai_bench.ttft_ms": [10 + 100, 50],
    "genai_bench.tpot_ms": [(230 - 100) / 3, (100 - 50) / 4],
    "genai_bench.e2e_ms": [10 + 230, 100],
    "inference_perf.ttft_ms": [10 + 150, 50, 40],  # the error within the stream goes unnoticed
    "inference_perf.tpot_ms": [(210 - 150) / 2, (90 - 50) / 4],  # three tokens of content; of BROKE_IN they are unknown
    "inference_perf.itl_ms": [60, 0],
    "inference_perf.ntpot_ms": [(10 + 240) / 3, 110 / 5, 300 / 3],
    "inference_perf.e2e_ms": [10 + 240, 110, 1000, 70, 30, 300],
    "vllm.ttft_ms": [10 + 20, 50, 10],
    "vllm.tpot_ms": [(220 - 20) / 3, (90 - 50) / 4],
    "vllm.itl_ms": [80, 50, 60, 10, 40, 10],
    "vllm.e2e_ms": [10 + 220, 90, 20],
    "vllm_033.ttft_ms": [10 + 100, 50],
    "vllm_033.tpot_ms": [(210 - 100) / 3, (90 - 50) / 4],
    "vllm_033.itl_ms": [50, 60, 40],
    "vllm_033.e2e_ms": [10 + 210, 90],
    "evalscope.ttft_ms": [10 + 20, 50, 0, 40, 10],
    "evalscope.tpot_ms": [(230 - 20) / 3, (100 - 50) / 4],
    "evalscope.itl_ms": [80, 50, 60, 10, 40, 20, 10],
    "evalscope.e2e_ms": [10 + 230, 100, 0, 60, 20, 300],
    "evalscope_112.ttft_ms": [10 + 100, 50, 0, 0],
    "evalscope_112.tpot_ms": [(230 - 100) / 3, (100 - 50) / 4],
    "evalscope_112.itl_ms": [50, 60, 40],
    "evalscope_112.e2e_ms": [10 + 230, 100, 0, 20, 300],
    "mlcommons.ttft_ms": [10 + 100, 50, 40],
    "mlcommons.tpot_ms": [(240 - 100) / 3],
    "mlcommons.e2e_ms": [10 + 240, 110, 5, 1000, 70, 30, 300],  # 5: the refusal
    "llmperf.ttft_ms": [10 + 150, 50, 0, 0],
    "llmperf.itl_ms": [(10 + 210) / 5, 90 / 2, 0, 0],
    "llmperf.e2e_ms": [10 + 240, 110, 1000, 30],
    "mlperf_loadgen.ttft_ms": [15 + 100, 10 + 50],
    "mlperf_loadgen.tpot_ms": [(240 - 100) / 3, (110 - 50) / 4],
    "mlperf_loadgen.e2e_ms": [15 + 240, 10 + 110, 300],
    "artificial_analysis.ttft_ms": [100, 50],
    "artificial_analysis.script_ttft_ms": [20, 50],
    "artificial_analysis.output_speed": [],
}
LEVELS = (0.0, 0.25, 0.5, 0.9, 0.99)


@pytest.fixture(scope="module")
def by_hand(store: Store) -> Store:
    insert(store, "definitions", ROWS, {})
    return store


def read(store: Store, run: str, definition: Definition) -> list[dict[str, Any]]:
    return store.query(definitions.figures([definition], RUN, LEVELS), {"run": run})


@pytest.mark.parametrize("name", DEFINITIONS)
def test_answers_worked_out_by_hand(by_hand: Store, name: str) -> None:
    definition, expected = DEFINITIONS[name], BY_HAND[name]
    [row] = read(by_hand, "definitions", definition)
    assert_figures(row, definition, [v if isinstance(v, tuple) else (v, 1) for v in expected])


def test_every_definition_has_an_answer_worked_out_by_hand() -> None:
    assert BY_HAND.keys() == DEFINITIONS.keys()


def assert_figures(row: dict[str, Any], definition: Definition, expected: list[tuple[float, int]]) -> None:
    """The columns of one group, against each value and how many times it counts."""
    column = definition.name.replace(".", "_")
    assert row[f"{column}_n"] == len(expected)
    if not expected:
        return
    values = sorted(v for v, times in expected for _ in range(times))
    assert row[f"{column}_mean"] == pytest.approx(math.fsum(values) / len(values))
    method: Method = "nearest" if definition.kind == "weighted" else TOOLS[definition.tool].method
    assert row[f"{column}_q"] == pytest.approx([read_off(method, values, p) for p in LEVELS])


def read_off(method: Method, values: Sequence[float], p: float) -> float:
    """A percentile of sorted values, each method from its own words."""
    n = len(values)
    if method == "linear":
        position = p * (n - 1)
        below = math.floor(position)
        above = min(below + 1, n - 1)
        return values[below] + (position - below) * (values[above] - values[below])
    if method == "nearest":
        return values[max(math.ceil(p * n - 1e-9), 1) - 1]
    if method == "lower":
        return values[math.floor(p * (n - 1))]
    return values[min(math.floor(p * n), n - 1)]


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("aiperf", [25, 37, 39.7]),  # between the second and third; 0.7 and 0.97 of the way from 30 to 40
        ("evalscope_112", [20, 40, 40]),  # ranks 2, 4, 4
        ("mlcommons", [20, 30, 30]),  # indices 1.5, 2.7, 2.97 rounded down
        ("mlperf_loadgen", [30, 40, 40]),  # indices 2, 3.6, 3.96 rounded down
    ],
)
def test_percentiles_are_read_off_as_the_tool_does(store: Store, tool: str, expected: list[float]) -> None:
    run = f"percentiles-{tool}"
    insert(store, run, [answer((ms, CONTENT), due_ms=0, reused=True) for ms in (40, 10, 30, 20)], {})
    definition = DEFINITIONS[f"{tool}.ttft_ms"]
    [row] = store.query(definitions.figures([definition], RUN, (0.5, 0.9, 0.99)), {"run": run})
    assert row[f"{tool}_ttft_ms_q"] == pytest.approx(expected)


def test_a_weighted_percentile_counts_a_request_by_its_tokens(store: Store) -> None:
    """10 ms a token over two tokens after the first, 40 ms over eight: the median token took 40 ms."""
    slow = answer((100, CONTENT), (420, CONTENT), output_tokens=9, token_source="usage")
    quick = answer((100, CONTENT), (120, CONTENT), output_tokens=3, token_source="usage")
    insert(store, "weighted", [quick, slow], {})
    [row] = store.query(
        definitions.figures([DEFINITIONS["guidellm.itl_ms"]], RUN, (0.2, 0.21, 0.5)), {"run": "weighted"}
    )
    assert row["guidellm_itl_ms_q"] == [10, 40, 40]
    assert row["guidellm_itl_ms_mean"] == pytest.approx((2 * 10 + 8 * 40) / 10)


@given(
    values=st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=400),
    percent=st.integers(0, 999),
    tool=st.sampled_from(["aiperf", "evalscope_112", "mlcommons", "mlperf_loadgen"]),
)
@settings(max_examples=60, deadline=None)
def test_any_percentile_of_any_values(store: Store, values: list[float], percent: int, tool: str) -> None:
    p = percent / 1000
    sql = definitions.quantiles(TOOLS[tool].method, "", "v", (p,))
    listed = ", ".join(map(repr, values))
    [row] = store.query(f"SELECT {sql} AS q FROM (SELECT arrayJoin([{listed}]) AS v)")
    n = len(values)
    exact = {  # in whole numbers, which do not round
        "evalscope_112": max(-(-percent * n // 1000), 1) - 1,
        "mlcommons": percent * (n - 1) // 1000,
        "mlperf_loadgen": percent * n // 1000,
    }
    expected = sorted(values)[exact[tool]] if tool in exact else read_off("linear", sorted(values), p)
    assert row["q"] == pytest.approx([expected])


# The oracle: the tools' own arithmetic, over Results


class Stream:
    """One answer as a client sees it, in ms from the start of the request."""

    def __init__(self, r: Result) -> None:
        assert r.sent_ns is not None
        self.r = r
        self.opening = ((r.dns_dur_ns or 0) + (r.connect_dur_ns or 0) + (r.tls_dur_ns or 0)) / 1e6
        self.done = (r.done_ns - r.sent_ns) / 1e6
        tokens = list(r.chunk_tokens) or [None] * len(r.chunk_kind)
        if r.token_source == "usage_matched":
            tokens = [int(kind in (1, 2, 3, 4)) for kind in r.chunk_kind]
        self.chunks = [
            ((at - r.sent_ns) / 1e6, kind, n) for at, kind, n in zip(r.chunk_ns, r.chunk_kind, tokens, strict=True)
        ]

    def times(self, *kinds: int) -> list[float]:
        return [at for at, kind, _ in self.chunks if kind in kinds]

    @property
    def tokens_known(self) -> bool:
        return self.r.token_source == "usage_matched" or bool(self.r.chunk_tokens)

    @property
    def streamed_tokens(self) -> int | None:
        if self.r.output_tokens is None:
            return None
        hidden = 0 if REASONING in self.r.chunk_kind or not self.r.streamed else self.r.reasoning_tokens or 0
        return self.r.output_tokens - hidden

    def content_times(self) -> list[float]:
        """Of each token of content where they are known, else of each chunk."""
        if not self.tokens_known:
            return self.times(2)
        return [at for at, kind, n in self.chunks if kind == 2 for _ in range(n or 0)]

    def content_tokens(self) -> int | None:
        if self.tokens_known:
            return len(self.content_times())
        kinds = set(self.r.chunk_kind)
        if kinds & {3, 4} or self.r.output_tokens is None or (1 in kinds and self.r.reasoning_tokens is None):
            return None
        return self.r.output_tokens - (self.r.reasoning_tokens or 0)


Value = float | list[float] | tuple[float, int] | None


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in pairwise(times)]


def pace(first: float | None, end: float | None, n: int | None) -> float | None:
    return None if first is None or end is None or n is None or n <= 1 else (end - first) / (n - 1)


def first_of(times: list[float]) -> float | None:
    return times[0] if times else None


def last_of(times: list[float]) -> float | None:
    return times[-1] if times else None


def plus(a: float | None, b: float) -> float | None:
    return None if a is None else a + b


def aiperf(s: Stream) -> dict[str, Value]:
    out, ok, n = s.times(1, 2, 3), s.r.error is None, s.r.output_tokens
    end = last_of(out) if s.r.streamed else s.done
    k = next((c for _, kind, c in s.chunks if kind in (1, 2, 3, 4)), 1)
    decoded = None if n is None else n - (k if k is not None and 1 <= k < n else 1)
    known = ok and s.r.streamed and s.tokens_known and n is not None and n > 1 and out
    streamed = ok and s.r.streamed
    return {
        "ttft_ms": plus(first_of(out), s.opening) if streamed else None,
        "ttfo_ms": plus(first_of(s.times(2, 3)), s.opening) if streamed else None,
        "itl_ms": pace(first_of(out), last_of(out), s.streamed_tokens) if streamed else None,
        "itl_per_chunk_usage_ms": (out[-1] - out[0]) / decoded if known and decoded else None,
        "icl_ms": gaps(out) if streamed else [],
        "e2e_ms": plus(end, s.opening) if ok else None,
    }


def guidellm(s: Stream) -> dict[str, Value]:
    out, ok = s.times(1, 2, 3), s.r.error is None
    n = s.r.output_tokens if s.r.token_source in ("usage", "usage_matched") else len(out) or None
    ok_stream = ok and s.r.streamed
    itl = pace(first_of(out), last_of(out), n)
    return {
        "ttft_ms": first_of(out) if ok_stream else None,
        "ttfot_ms": first_of(s.times(2, 3)) if ok_stream else None,
        "itl_ms": (itl, n - 1) if ok_stream and itl is not None and n else None,
        "tpot_ms": (out[-1] / n, n) if ok_stream and out and n else None,
        "e2e_ms": s.done if ok else None,
    }


def genai_bench(s: Stream) -> dict[str, Value]:
    text = s.times(1, 2)
    if s.r.error or not s.r.streamed or not text:
        return {"ttft_ms": None, "tpot_ms": None, "e2e_ms": None}
    end = s.times(5)[-1] if s.times(5) else s.done
    slow_enough = end - text[0] >= 1
    return {
        "ttft_ms": text[0] + s.opening,
        "tpot_ms": pace(text[0], end, s.r.output_tokens) if slow_enough else None,
        "e2e_ms": end + s.opening,
    }


def inference_perf(s: Stream) -> dict[str, Value]:
    if s.r.error not in (None, "error_event", "empty"):
        return {}
    times, n = s.content_times() if s.r.streamed else [], s.content_tokens()
    several = len(times) > 1
    return {
        "ttft_ms": times[0] + s.opening if several else None,
        "tpot_ms": pace(times[0], times[-1], n) if several else None,
        "itl_ms": gaps(times) if s.tokens_known else [],
        "ntpot_ms": None if n is None or n < 0 else (s.done + s.opening) / n if n else 0,
        "e2e_ms": s.done + s.opening,
    }


def vllm(s: Stream, kinds: tuple[int, ...], unnoticed: tuple[str, ...]) -> dict[str, Value]:
    if not s.r.streamed or (s.r.error and s.r.error not in unnoticed):
        return {}
    times = s.times(*kinds)
    return {
        "ttft_ms": plus(first_of(times), s.opening),
        "tpot_ms": pace(first_of(times), last_of(times), s.r.output_tokens),
        "itl_ms": gaps(times),
        "e2e_ms": plus(last_of(times), s.opening),
    }


def evalscope(s: Stream, kinds: tuple[int, ...], unnoticed: tuple[str, ...]) -> dict[str, Value]:
    if s.r.error and s.r.error not in unnoticed:
        return {}
    if not s.r.streamed:
        return {"e2e_ms": s.done + s.opening}
    times, every = s.times(*kinds), s.times(0, 1, 2, 3, 4, 5)
    first = times[0] + s.opening if times else 0
    end = every[-1] + s.opening if every else 0
    return {"ttft_ms": first, "tpot_ms": pace(first, end, s.r.output_tokens), "itl_ms": gaps(times), "e2e_ms": end}


def mlcommons(s: Stream) -> dict[str, Value]:
    if s.r.error and FAULT_OF[s.r.error] not in ("endpoint", "network"):
        return {}
    out = s.times(1, 2, 3) if s.r.streamed else []
    counts = [n or 0 for _, kind, n in s.chunks if kind in (1, 2, 3, 4)]
    after = sum(counts[1:])
    known = s.r.error is None and s.tokens_known and after > 0 and out
    return {
        "ttft_ms": plus(first_of(out), s.opening),
        "tpot_ms": (s.done - out[0]) / after if known else None,
        "e2e_ms": s.done + s.opening,
    }


def llmperf(s: Stream) -> dict[str, Value]:
    if not s.r.streamed or s.r.error not in (None, "empty"):
        return {}
    content, chunks = s.times(2), len(s.times(0, 1, 2, 3, 4))
    return {
        "ttft_ms": content[0] + s.opening if content else 0,
        "itl_ms": (content[-1] + s.opening) / chunks if content else 0,
        "e2e_ms": s.done + s.opening,
    }


def mlperf_loadgen(s: Stream) -> dict[str, Value]:
    if s.r.error:
        return {}
    assert s.r.sent_ns is not None
    late = (s.r.sent_ns - (s.r.started_ns if s.r.due_ns is None else s.r.due_ns)) / 1e6
    first = first_of(s.times(1, 2, 3, 4)) if s.r.streamed else None
    return {
        "ttft_ms": plus(first, late),
        "tpot_ms": pace(first, s.done, s.r.output_tokens),
        "e2e_ms": s.done + late,
    }


def artificial_analysis(s: Stream) -> dict[str, Value]:
    if s.r.error or not s.r.streamed:
        return {}
    return {"ttft_ms": first_of(s.times(1, 2, 3, 4)), "script_ttft_ms": first_of(s.times(0, 1, 2, 3, 4, 5))}


ORACLE: dict[str, Callable[[Stream], dict[str, Value]]] = {
    "aiperf": aiperf,
    "guidellm": guidellm,
    "genai_bench": genai_bench,
    "inference_perf": inference_perf,
    "vllm": lambda s: vllm(s, (0, 1, 2, 3, 4), ("empty",)),
    "vllm_033": lambda s: vllm(s, (1, 2, 3), ()),
    "evalscope": lambda s: evalscope(s, (0, 1, 2, 3, 4), ("error_event", "empty")),
    "evalscope_112": lambda s: evalscope(s, (1, 2, 3), ("empty",)),
    "mlcommons": mlcommons,
    "llmperf": llmperf,
    "mlperf_loadgen": mlperf_loadgen,
    "artificial_analysis": artificial_analysis,
}


def values_of(definition: Definition, rows: Sequence[Result]) -> list[tuple[float, int]]:
    figure = definition.name.partition(".")[2]
    out: list[tuple[float, int]] = []
    for row in rows:
        match ORACLE[definition.tool](Stream(row)).get(figure):
            case list() as many:
                out += [(v, 1) for v in many]
            case (v, times):
                out.append((v, times))
            case None:
                pass
            case v:
                out.append((v, 1))
    return out


def random_result(rng: Random, stage: str, target: str) -> Result:
    source = rng.choice(["usage", "usage_matched", "tokenizer", "unknown"])
    error = rng.choice([None] * 8 + ["empty", "error_event", rng.choice(list(FAULT_OF))])
    kinds = [rng.choice([EMPTY, REASONING, CONTENT, CONTENT, CONTENT, TOOL_CALL]) for _ in range(rng.randrange(0, 8))]
    kinds = [kind for kind in kinds if kind is EMPTY] if error == "empty" else kinds
    kinds += [CONTENT] if error is None else []
    kinds += [USAGE] if rng.random() < 0.5 else []
    carries = [kind in (REASONING, CONTENT, TOOL_CALL) for kind in kinds]
    tokens = [rng.randrange(0, 4) if some else 0 for some in carries] if source in ("tokenizer", "usage") else []
    tokens = [] if source == "usage" and rng.random() < 0.5 else tokens
    counted = {
        "usage": sum(tokens) if tokens else rng.randrange(0, 30),
        "usage_matched": sum(carries),
        "tokenizer": sum(tokens),
        "unknown": None,
    }
    times = sorted(rng.uniform(20, 1200) for _ in kinds)
    at_ms = rng.uniform(0, WINDOW_S * 1000)
    return answer(
        *zip(times, kinds, strict=True),
        stage=stage,
        target=target,
        warmup=stage == "warm-up",
        at_ms=at_ms,
        due_ms=at_ms - rng.uniform(0, 20) if stage == "open" else None,
        started_ns=START_NS + ns(at_ms - rng.uniform(0, 5)),
        done_ms=(times[-1] if times else 0) + rng.uniform(1, 50),
        streamed=rng.random() < 0.9,
        error=error,
        tokens=tokens,
        token_source=source,
        output_tokens=counted[source],
        reasoning_tokens=rng.choice([None, 0, 2]),
        dns_dur_ns=rng.choice([None, 1000]),
        connect_dur_ns=rng.choice([None, 20_000, 30_000_000]),
        tls_dur_ns=rng.choice([None, 400_000]),
    )


GROUPS = [(stage, target) for stage in ("open", "closed") for target in ("a", "b")]


@pytest.fixture(scope="module")
def by_group(store: Store) -> dict[tuple[str, str], list[Result]]:
    rng = Random(11)
    out = {
        (stage, target): [random_result(rng, stage, target) for _ in range(150)]
        for stage, target in [*GROUPS, ("warm-up", "a")]
    }
    insert(store, "definitions-random", [row for rows in out.values() for row in rows], {})
    return out


@pytest.mark.parametrize("name", DEFINITIONS)
def test_figures_against_the_oracle(store: Store, by_group: dict[tuple[str, str], list[Result]], name: str) -> None:
    definition = DEFINITIONS[name]
    rows = read(store, "definitions-random", definition)
    assert [(row["stage"], row["target"]) for row in rows] == sorted(GROUPS)
    for row in rows:
        assert_figures(row, definition, values_of(definition, by_group[row["stage"], row["target"]]))


def test_a_tools_figures_come_in_one_query(store: Store, by_group: object) -> None:  # noqa: ARG001
    for tool in TOOLS:
        mine = definitions.of_tool(tool)
        together = store.query(definitions.figures(mine, RUN, LEVELS), {"run": "definitions-random"})
        for definition in mine:
            for one, every in zip(read(store, "definitions-random", definition), together, strict=True):
                assert {key: every[key] for key in one} == {k: close(v) for k, v in one.items()}


def close(value: Any) -> Any:
    return pytest.approx(value, nan_ok=True) if isinstance(value, float | list) else value


# The table


def test_a_name_begins_with_its_tool() -> None:
    assert {definition.tool for definition in DEFINITIONS.values()} == TOOLS.keys()
    assert DEFINITIONS.keys().isdisjoint(metrics.METRICS)


def test_a_tool_is_asked_for_with_its_later_versions() -> None:
    assert [tool.name for tool in definitions.versions_of("vllm")] == ["vllm", "vllm_033"]
    assert [tool.name for tool in definitions.versions_of("vllm_033")] == ["vllm_033"]
    assert definitions.versions_of("vlm") == []


def test_every_definition_is_explained() -> None:
    assert [
        d.name for d in DEFINITIONS.values() if not d.doc.endswith(".") or (d.kind == "weighted") != bool(d.weight)
    ] == []
    assert [tool.name for tool in TOOLS.values() if not tool.differs.endswith(".") or not tool.source] == []


def test_the_page_of_metrics_has_the_definitions() -> None:
    page = Path(__file__).parent.parent / "docs" / "metrics.md"
    assert page.read_text().endswith(definitions.catalogue()), "run: python -m loadtest.definitions > docs/metrics.md"
