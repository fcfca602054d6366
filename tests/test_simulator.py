"""The simulator: its batching model in simulated time, and what it does on a socket, by the openai package and raw."""

import asyncio
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit
from urllib.request import urlopen

import httptools
import httpx
import msgspec
import openai
import pytest
import trustme

from loadtest.simulator import PROFILES, Profile, Tls, start
from loadtest.simulator import profile as profiles
from loadtest.simulator.engine import Engine, Faults, RateLimit, Sequence
from loadtest.simulator.launch import secret
from loadtest.simulator.prefix_cache import PrefixCache
from loadtest.simulator.profile import Event, StatusFault, StreamFault
from loadtest.simulator.script import FORMS, Script, beats
from loadtest.simulator.server import listen
from loadtest.simulator.truth import Record, Truth
from loadtest.types import ChunkKind

# --- the batching model, in simulated time ---------------------------------------------------------------------------

PLAIN = Profile(
    prefill_tokens_per_s=10_000, decode_base_ms=10, decode_per_sequence_ms=1, step_tokens=2048, max_batch=8
)  # one prompt token is 0.1 ms


class Run:
    """Drives an engine from arrivals, given as (at_ms, sequence); notes when each token came, in ms."""

    def __init__(self, profile: Profile, arrivals: list[tuple[float, Sequence]]) -> None:
        self.engine: Engine[Sequence] = Engine(profile)
        self.tokens_ms: dict[Sequence, list[float]] = {sequence: [] for _, sequence in arrivals}
        self.refused: list[Sequence] = []
        pending = sorted(arrivals, key=lambda arrival: arrival[0])
        now_s = 0.0
        for _ in range(1_000_000):
            while pending and pending[0][0] / 1000 <= now_s:
                self._submit(pending.pop(0)[1])
            end_s = self.engine.begin(now_s)
            if end_s is None and not pending:
                return
            if end_s is None:
                now_s = pending[0][0] / 1000
                continue
            while pending and pending[0][0] / 1000 < end_s:
                self._submit(pending.pop(0)[1])
            for sequence in self.engine.end():
                self.tokens_ms[sequence].append(round(end_s * 1000, 6))
            now_s = end_s
        raise AssertionError("the engine did not come to rest")

    def _submit(self, sequence: Sequence) -> None:
        if not self.engine.submit(sequence):
            self.refused.append(sequence)

    def span_ms(self) -> float:
        return max(times[-1] for times in self.tokens_ms.values() if times)


def test_one_request_alone() -> None:
    one = Sequence(prompt_tokens=100, output_tokens=3)
    # prefill: base 10 + 100 tokens x 0.1; then each step is base 10 + 1 for the one sequence
    assert Run(PLAIN, [(0, one)]).tokens_ms[one] == [20, 31, 42]


def test_two_requests_share_steps() -> None:
    one, two = Sequence(100, 3), Sequence(200, 2)
    run = Run(PLAIN, [(0, one), (0, two)])
    assert run.tokens_ms == {one: [40, 52, 63], two: [40, 52]}


def test_a_prefix_cache_knows_whole_blocks_of_a_common_beginning() -> None:
    cache = PrefixCache(capacity_tokens=10 * 16)
    prompt = [str(i) for i in range(50)]  # 3 blocks and 2 tokens
    assert cache.take(prompt) == 0
    assert cache.take(prompt) == 48
    assert cache.take(prompt[:40] + ["other"] * 20) == 32
    assert cache.take(["other", *prompt]) == 0, "a block is another one after another beginning"
    assert cache.take(prompt[:48]) == 32, "the last token is computed, and with it its block"
    assert cache.take(prompt[:15]) == 0


def test_a_prefix_cache_drops_what_was_used_least_recently() -> None:
    cache = PrefixCache(capacity_tokens=4 * 16)
    first, second, third = ([letter] * 33 for letter in "abc")  # 2 blocks each
    assert [cache.take(prompt) for prompt in (first, second, first, third)] == [0, 0, 32, 0]
    assert [cache.take(prompt) for prompt in (first, second)] == [32, 0]


def test_prefill_of_another_lengthens_the_gap() -> None:
    one, two = Sequence(100, 4), Sequence(500, 1)
    run = Run(PLAIN, [(0, one), (25, two)])
    # two arrives within the step that ends at 31; the next takes 10 + 1 (one decodes) + 50 (two's prompt)
    assert run.tokens_ms == {one: [20, 31, 92, 103], two: [92]}


def test_a_long_prompt_is_processed_in_pieces() -> None:
    profile = msgspec.structs.replace(PLAIN, step_tokens=60)
    one = Sequence(100, 1)
    assert Run(profile, [(0, one)]).tokens_ms[one] == [30]  # 10 + 6, then 10 + 4


def test_first_come_first_served() -> None:
    profile = msgspec.structs.replace(PLAIN, max_batch=2)
    line = [Sequence(10 + 7 * (i % 3), 5) for i in range(9)]
    run = Run(profile, [(i * 0.5, sequence) for i, sequence in enumerate(line)])
    firsts = [run.tokens_ms[sequence][0] for sequence in line]
    assert firsts == sorted(firsts)
    assert firsts[-1] > 4 * firsts[0]


def test_the_queue_is_bounded_and_cancelled_requests_leave_it() -> None:
    engine: Engine[Sequence] = Engine(msgspec.structs.replace(PLAIN, max_batch=1, max_waiting=2))
    line = [Sequence(10, 5) for _ in range(4)]
    assert [engine.submit(sequence) for sequence in line] == [True, True, True, False]
    assert engine.begin(0.0) == pytest.approx(0.011)
    assert (engine.running, len(engine.waiting)) == (1, 2)
    engine.cancel(line[0])
    assert engine.end() == []
    engine.begin(0.011)
    assert (engine.running, list(engine.waiting)) == (1, [line[2]])
    assert engine.end() == [line[1]]


def test_latency_rises_with_load_and_throughput_saturates_at_the_analytic_figure() -> None:
    outputs, prompt = 20, 100

    def run(requests: int) -> tuple[float, float]:
        line = [Sequence(prompt, outputs) for _ in range(requests)]
        done = Run(PLAIN, [(0, sequence) for sequence in line])
        mean_ms = sum(done.tokens_ms[sequence][-1] for sequence in line) / requests
        return mean_ms, requests * outputs / (done.span_ms() / 1000)

    latency_ms, tokens_per_s = zip(*(run(requests) for requests in (1, 4, 8, 160)), strict=True)
    assert list(latency_ms) == sorted(latency_ms)
    assert latency_ms[2] > 1.5 * latency_ms[0]
    # 8 / (10 ms + 1 ms x 8 x 19/20 + 8/20 x 100 x 0.1 ms) = 8 / 21.6 ms
    assert tokens_per_s[3] == pytest.approx(370.4, rel=0.02)
    assert tokens_per_s[2] == pytest.approx(tokens_per_s[3], rel=0.1)
    assert tokens_per_s[0] < 0.3 * tokens_per_s[3]


def test_jitter_is_seeded_and_has_mean_one() -> None:
    def gaps(seed: int) -> list[float]:
        one = Sequence(1, 4001)
        times = Run(msgspec.structs.replace(PLAIN, jitter=0.3, seed=seed), [(0, one)]).tokens_ms[one]
        return [later - earlier for earlier, later in pairwise(times)]

    first = gaps(1)
    mean = sum(first) / len(first)
    deviation = (sum((gap - mean) ** 2 for gap in first) / len(first)) ** 0.5
    assert first == gaps(1)
    assert first != gaps(2)
    assert mean == pytest.approx(11, rel=0.02)
    assert deviation / mean == pytest.approx(0.3, rel=0.1)


def test_a_cold_start_delays_the_first_request_after_a_rest() -> None:
    profile = msgspec.structs.replace(PLAIN, cold_start_s=2, cold_after_s=10)
    first, soon, late = Sequence(10, 1), Sequence(10, 1), Sequence(10, 1)
    run = Run(profile, [(0, first), (5_000, soon), (30_000, late)])
    assert [run.tokens_ms[sequence] for sequence in (first, soon, late)] == [[2_011], [5_011], [32_011]]


def test_rate_limit_says_when_to_come_back() -> None:
    limit = RateLimit(per_s=2, burst=2)
    waits_s = [limit.wait_s(now_s) for now_s in (0, 0, 0, 0.25, 0.5, 0.5, 100, 100, 100)]
    assert waits_s == [0, 0, 0.5, 0.25, 0, 0.5, 0, 0, 0.5]
    assert [RateLimit(None, 1).wait_s(0) for _ in range(3)] == [0, 0, 0]


def test_faults_are_seeded_and_as_frequent_as_asked() -> None:
    profile = Profile(error_rate=0.04, faults={"overloaded": 3, "reset": 1}, seed=5)

    def drawn() -> list[tuple[str, int] | None]:
        faults = Faults(profile)
        return [faults.draw(10) for _ in range(20_000)]

    faulty = [fault for fault in drawn() if fault]
    words = Counter(word for word, _ in faulty)
    assert drawn() == drawn()
    assert len(faulty) == pytest.approx(800, abs=90)
    assert words["overloaded"] / words["reset"] == pytest.approx(3, rel=0.3)
    assert {at for _, at in faulty} == set(range(1, 10))


# --- profiles, scripts, truth ----------------------------------------------------------------------------------------


def test_profiles_differ_in_speed_and_reliability() -> None:
    assert PROFILES["fast"].decode_base_ms < PROFILES["slow"].decode_base_ms
    assert PROFILES["fast"].error_rate == PROFILES["slow"].error_rate == 0 < PROFILES["flaky"].error_rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"max_batch: 0", "max_batch is 0; it must be at least 1"),
        (b"error_rate: 0.5", "with an error_rate it must give at least one error word a weight"),
        (b"step_tokens: 64", "step_tokens is 64; it must exceed max_batch (64)"),
        (b"decode_ms: 3", "unknown field `decode_ms`"),
        (b"faults: {dns: 1}", "Invalid enum value 'dns'"),
    ],
)
def test_a_wrong_profile_is_refused_with_advice(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "profile.yaml"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=r"profile\.yaml: ") as caught:
        profiles.load(str(file))
    assert message in str(caught.value)


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="'quick' is neither a file nor one of: fast, slow, flaky"):
        profiles.load("quick")


def test_script_chunks_in_order() -> None:
    script = Script(reasoning=["hm"], chunks=2, tool_calls=["{}"], tokens_per_chunk=[1, 3])
    assert [(beat.kind, beat.text, beat.tokens) for beat in beats(script, None)] == [
        (ChunkKind.REASONING, "hm", 1),
        (ChunkKind.CONTENT, " load rises and", 3),
        (ChunkKind.CONTENT, " rises and each", 3),
        (ChunkKind.TOOL_CALL, "{}", 3),
    ]
    assert len(beats(Script(), 7)) == 7


def test_truth_keeps_the_latest_only() -> None:
    truth = Truth(2)
    for name in "abc":
        truth.add(Record(id=name, trace_id=f"trace {name}", read_ns=1))
    assert [record.id for record in truth.all()] == ["b", "c"]
    assert truth.get("trace a") is None
    found = truth.get("trace c")
    assert found is not None
    assert found.id == "c"


def test_a_key_is_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("SIMULATOR_KEY", "other")
    assert secret(f"file:{tmp_path / 'key'}") == "s3cret"
    assert secret("env:SIMULATOR_KEY") == "other"
    with pytest.raises(ValueError, match="env:NAME or file:PATH") as caught:
        secret("sk-123")
    assert "sk-123" not in str(caught.value)


# --- with the openai package -----------------------------------------------------------------------------------------

MESSAGES: Any = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def client(simulator: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{simulator}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=4)
    assert answer.object == "chat.completion"
    assert answer.model == "m"
    assert answer.choices[0].message.content == " the load rises and"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 4, 7)


def test_chat_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="m", messages=MESSAGES, max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [[(c.delta.role, c.delta.content, c.finish_reason) for c in chunk.choices] for chunk in chunks] == [
        [("assistant", "", None)],
        [(None, " the", None)],
        [(None, " load", None)],
        [(None, " rises", None)],
        [(None, None, "length")],
        [],
    ]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_comes_only_when_asked_for(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=3, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_usage_so_far_in_each_chunk(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = client.chat.completions.create(
        model="m", messages=MESSAGES, max_tokens=3, stream=True, stream_options=options
    )
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [0, 1, 2, 3, 3, 3]


def test_what_a_prefix_cache_knows_is_reported_and_costs_nothing() -> None:
    profile = Profile(name="cached", decode_base_ms=1, prefill_tokens_per_s=200, prefix_cache_tokens=1000)
    prompt = " ".join(map(str, range(200)))  # 12 blocks and 8 tokens; a second of prefill, or 40 ms

    def ask(client: openai.OpenAI, prompt: str) -> tuple[int, float]:
        before = time.monotonic()
        answer = client.completions.create(model="m", prompt=prompt, max_tokens=1)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0, time.monotonic() - before

    with start(profile) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        cached, seconds = ask(client, prompt)
        assert cached == 0
        assert seconds > 1
        cached, seconds = ask(client, prompt)
        assert cached == 192
        assert seconds < 1
        assert ask(client, "another beginning " + prompt[:90])[0] == 0  # more than a block of it


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="m", prompt="one two", max_tokens=2)
    assert answer.choices[0].text == " the load"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 4
    chunks = list(client.completions.create(model="m", prompt=[1, 2, 3], max_tokens=2, stream=True))
    assert [(chunk.choices[0].text, chunk.choices[0].finish_reason) for chunk in chunks] == [
        (" the", None),
        (" load", None),
        ("", "length"),
    ]


def test_a_default_length_ends_with_stop(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_reasoning_and_tool_calls(client: openai.OpenAI) -> None:
    script = {"reasoning": ["let ", "me"], "chunks": ["so"], "tool_calls": ['{"a":', "1}"]}
    answer = client.chat.completions.create(model="m", messages=MESSAGES, extra_body={"simulate": script})
    message = answer.choices[0].message
    assert message.content == "so"
    assert message.model_extra == {"reasoning_content": "let me"}
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("simulated", '{"a":1}')
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2

    stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True, extra_body={"simulate": script})
    deltas = [chunk.choices[0].delta for chunk in stream]
    pieces = [delta.tool_calls[0].function for delta in deltas if delta.tool_calls]
    assert [piece.arguments for piece in pieces if piece] == ['{"a":', "1}"]
    assert [delta.model_extra for delta in deltas if delta.model_extra] == [
        {"reasoning_content": "let "},
        {"reasoning_content": "me"},
    ]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["test"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ({"error": "rate_limited"}, openai.RateLimitError),
        ({"error": "overloaded"}, openai.InternalServerError),
        ({"error": "http_4xx"}, openai.BadRequestError),
        ({"status": 403}, openai.PermissionDeniedError),
        ({"status": 404}, openai.NotFoundError),
        ({"status": 422}, openai.UnprocessableEntityError),
        ({"status": 502, "body": "<html>Bad Gateway</html>"}, openai.InternalServerError),
        ({"error": "reset", "error_form": "before_headers"}, openai.APIConnectionError),
    ],
)
def test_errors_as_the_client_maps_them(client: openai.OpenAI, script: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        client.chat.completions.create(model="m", messages=MESSAGES, extra_body={"simulate": script})


def test_an_error_event_is_raised_by_the_client(client: openai.OpenAI) -> None:
    body = {"simulate": {"error": "error_event", "error_after": 2}}
    stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True, extra_body=body)
    with pytest.raises(openai.APIError, match="The engine stopped while it generated"):
        list(stream)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "truncated"),
        (b'{"messages": [{"role": "user"}]}', 400, "missing required field `model`"),
        (b'{"model": "m", "messages": []}', 400, "messages is empty"),
        (b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": "9"}', 400, "Expected `int | null`, got `str`"),
        (b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": 0}', 400, "max_tokens is 0; it must be"),
        (b'{"model": "m", "messages": [{"role": "user"}], "n": 2}', 400, "n is 2; this server gives one choice"),
        (b'{"model": "m", "messages": [{"role": "user"}], "simulate": {"tfft_ms": 1}}', 400, "unknown field `tfft_ms`"),
    ],
)
def test_a_wrong_request_is_refused_in_openais_form(simulator: str, body: bytes, status: int, message: str) -> None:
    answer = httpx.post(f"{simulator}/v1/chat/completions", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ({"gaps": 3}, "its keys are ttft_ms, role_ms"),
        ({"gaps_ms": [5, -1]}, "gaps_ms is -1; it must be between 0 and 3600000"),
        ({"gaps_ms": []}, "gaps_ms is empty"),
        ({"role_ms": 20, "ttft_ms": 10}, "role_ms is 20"),
        ({"error": "truncated", "error_form": "http"}, "it can be clean or eof"),
        ({"error": "truncated", "status": 500}, "leave status and body out"),
        ({"error": "truncated", "chunks": ["a"], "error_after": 2}, "error_after is 2, but there are 1 chunks"),
        ({"headers": {"x": "a\nb"}}, "cannot be written"),
        ({"headers": {"Content-Length": "9"}}, "the server's own"),
        ({"status": 101}, "status is 101; it must be between 200 and 599"),
    ],
)
def test_a_wrong_script_is_refused_with_advice(simulator: str, script: dict[str, Any], message: str) -> None:
    body = {"model": "m", "messages": MESSAGES, "simulate": script}
    answer = httpx.post(f"{simulator}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("simulate")
    assert message in answer.json()["error"]["message"]


def test_unknown_paths_and_methods(simulator: str) -> None:
    lost, wrong = httpx.post(f"{simulator}/v1/chat"), httpx.get(f"{simulator}/v1/completions")
    assert (lost.status_code, wrong.status_code) == (404, 405)
    assert lost.json()["error"]["message"] == "Not Found: POST /v1/chat"


# --- on a raw socket -------------------------------------------------------------------------------------------------


class Seen:
    """What came back on a connection: its bytes and how it ended."""

    def __init__(self, raw: bytes, end: str, took_s: float) -> None:
        self.raw = raw
        self.end = end  # "fin" or "reset"
        self.took_s = took_s
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self.error: Exception | None = None
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(raw)
            self.status = parser.get_status_code()
        except httptools.HttpParserError as error:
            self.error = error

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def events(self) -> list[str]:
        return self.body.decode().removesuffix("\n\n").split("\n\n") if self.body else []

    @property
    def texts(self) -> list[str]:
        deltas = [msgspec.json.decode(event[6:])["choices"][0]["delta"] for event in self.events if "delta" in event]
        return [delta["content"] for delta in deltas if "content" in delta]


def address(url: str) -> tuple[str, int]:
    host, port = urlsplit(url).netloc.split(":")
    return host, int(port)


def request(headers: dict[str, str] | None = None, **fields: Any) -> bytes:
    """A chat request, streamed unless `fields` say otherwise, and the last on its connection."""
    body = msgspec.json.encode({"model": "m", "messages": MESSAGES, "stream": True, **fields})
    lines = {"Host": "x", "Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    head = "POST /v1/chat/completions HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    return head.encode() + body


def ask(url: str, script: dict[str, Any] | None, *, headers: dict[str, str] | None = None, **fields: Any) -> Seen:
    """Send one request on a connection of its own and read until it ends."""
    with socket.create_connection(address(url), timeout=60) as connection:
        return ask_on(connection, script, headers=headers, **fields)


def ask_on(
    connection: socket.socket, script: dict[str, Any] | None, *, headers: dict[str, str] | None = None, **fields: Any
) -> Seen:
    scripted = {} if script is None else {"simulate": script}
    started_s = time.monotonic()
    connection.sendall(request(headers, **fields, **scripted))
    raw, end = read_to_end(connection)
    return Seen(raw, end, time.monotonic() - started_s)


def read_to_end(connection: socket.socket) -> tuple[bytes, str]:
    raw = b""
    try:
        while data := connection.recv(65536):
            raw += data
    except ConnectionResetError:
        return raw, "reset"
    return raw, "fin"


def truth_of(url: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = fetch(f"{url}/truth/{key}")
    return found


def fetch(url: str) -> Any:
    with urlopen(url, timeout=60) as answer:  # httpx loads the system's certificates for each such call: 40 ms
        return msgspec.json.decode(answer.read())


def test_script_as_written(simulator: str) -> None:
    seen = ask(simulator, {"chunks": ["a", "", "é"], "finish_reason": "length"})
    assert seen.status == 200
    assert seen.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert seen.texts == ["", "a", "", "é"]
    assert '"finish_reason":"length"' in seen.events[4]
    assert seen.events[5] == "data: [DONE]"
    assert (seen.complete, seen.end) == (True, "fin")


def test_script_leaves_out_what_it_is_told_to(simulator: str) -> None:
    seen = ask(simulator, {"chunks": ["a", "b"], "role_chunk": False, "finish_reason": None, "done": False})
    assert seen.texts == ["a", "b"]
    assert (len(seen.events), seen.complete) == (2, True)
    assert "role" not in seen.body.decode()
    last = ask(simulator, {"chunks": ["a", "b"], "role_chunk": False, "finish_in_last_chunk": True})
    assert ['"finish_reason":"stop"' in event for event in last.events] == [False, True, False]


@pytest.mark.parametrize(
    ("usage", "asked", "figures"),
    [
        (None, True, [5]),
        (None, False, []),
        (True, False, [5]),
        (False, True, []),
        ({"completion_tokens": 99}, True, [99]),
    ],
)
def test_script_usage(simulator: str, usage: object, asked: bool, figures: list[int]) -> None:
    script = {"chunks": 2, "tokens_per_chunk": [2, 3], "usage": usage}
    seen = ask(simulator, script, stream_options={"include_usage": asked})
    events = [msgspec.json.decode(event[6:]) for event in seen.events[:-1]]
    assert [event["usage"]["completion_tokens"] for event in events if not event["choices"]] == figures


def test_truth_of_a_script(simulator: str) -> None:
    script = {
        "role_ms": 10,
        "ttft_ms": 30,
        "gaps_ms": [20, 5],
        "end_ms": 15,
        "reasoning": 1,
        "chunks": 3,
        "tokens_per_chunk": 2,
    }
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"x-request-id": "mine-1", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    before_ns = time.time_ns()
    seen = ask(simulator, script, headers=headers, stream_options={"include_usage": True})
    after_ns = time.time_ns()
    assert seen.headers["x-request-id"] == "mine-1"
    truth = truth_of(simulator, "mine-1")
    assert truth == truth_of(simulator, trace_id)
    assert before_ns < truth["read_ns"] <= truth["head_ns"] < truth["done_ns"] < after_ns
    assert truth["chunk_kind"] == [0, 1, 2, 2, 2, 0, 5]  # role, reasoning, content, finish reason, usage
    assert truth["chunk_tokens"] == [0, 2, 2, 2, 2, 0, 0]
    assert (truth["input_tokens"], truth["output_tokens"]) == (3, 8)
    offsets_ms = [(chunk_ns - truth["read_ns"]) / 1e6 for chunk_ns in truth["chunk_ns"]]
    late_ms = [at_ms - due_ms for at_ms, due_ms in zip(offsets_ms, [10, 30, 50, 55, 60, 75, 75], strict=True)]
    assert min(late_ms) > -1
    assert max(late_ms) < 1000


def test_truth_of_a_generation(simulator: str) -> None:
    seen = ask(
        simulator, None, headers={"x-request-id": "plain"}, max_tokens=20, stream_options={"include_usage": True}
    )
    truth = truth_of(simulator, "plain")
    assert seen.texts[0] == ""
    assert len(seen.texts) == 21
    assert truth["chunk_kind"] == [0, *[2] * 20, 0, 5]
    assert sum(truth["chunk_tokens"]) == truth["output_tokens"] == 20
    # 20 steps of at least the profile's 1 ms, less what the timer may catch up
    assert 18 < (truth["done_ns"] - truth["read_ns"]) / 1e6 < 5000


def test_several_events_in_one_write(simulator: str) -> None:
    script = {"chunks": 5, "gaps_ms": 10, "events_per_write": 3}
    ask(simulator, script, headers={"x-request-id": "several"})
    times = Counter(truth_of(simulator, "several")["chunk_ns"])
    assert list(times.values()) == [3, 3, 1]  # role and two tokens, three tokens, finish reason


def test_the_fault_comes_when_the_next_write_was_due(simulator: str) -> None:
    script = {"error": "reset", "error_after": 2, "ttft_ms": 10, "gaps_ms": 20}
    ask(simulator, script, headers={"x-request-id": "late"})
    truth = truth_of(simulator, "late")
    assert (truth["done_ns"] - truth["read_ns"]) / 1e6 > 49  # 10, 30, 50: whenever the machine let the chunks go out
    assert truth["error"] == "reset"


@pytest.mark.parametrize(
    ("form", "complete", "end"), [("clean", True, "fin"), ("eof", False, "fin")]
)  # fmt: skip
def test_truncated_stream(simulator: str, form: str, complete: bool, end: str) -> None:
    seen = ask(simulator, {"error": "truncated", "error_form": form, "chunks": ["a", "b", "c"], "error_after": 2})
    assert seen.texts == ["", "a", "b"]
    assert b"[DONE]" not in seen.body
    assert '"finish_reason":"' not in seen.body.decode()
    assert (seen.complete, seen.end) == (complete, end)


@pytest.mark.parametrize(
    ("form", "status", "body"),
    [("before_headers", None, b""), ("after_headers", 200, b""), ("mid_body", 200, b'"content":" the"')],
)
def test_reset(simulator: str, form: str, status: int | None, body: bytes) -> None:
    seen = ask(simulator, {"error": "reset", "error_form": form})
    assert seen.end == "reset"
    assert (seen.status or None) == status
    assert body in seen.body
    assert bool(seen.body) == bool(body)


def test_a_reset_loses_nothing_that_was_written(simulator: str) -> None:
    # more small segments than a fresh connection may have in flight, and none held back to be joined with the next
    seen = ask(simulator, {"error": "reset", "error_after": 60})
    assert (len(seen.texts), seen.end) == (61, "reset")


def test_a_request_that_cannot_be_written(simulator: str) -> None:
    length = 64_000_000  # more than the buffers of both ends hold
    with socket.create_connection(address(simulator), timeout=60) as connection:
        connection.sendall(request({"x-simulate-error": "write", "Content-Length": str(length)}))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(bytes(length))


def test_chunks_are_not_held_back() -> None:
    async def nagle_is_off() -> bool:
        accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            raw = writer.get_extra_info("socket")
            accepted.set_result(bool(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        async with await asyncio.start_server(note, sock=listen("127.0.0.1", 0)) as server:
            with socket.create_connection(server.sockets[0].getsockname(), 10):
                return await accepted

    assert asyncio.run(nagle_is_off())


def test_a_port_in_use_is_said() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: .*; take another port"):
            listen("127.0.0.1", port)


def test_malformed(simulator: str) -> None:
    assert ask(simulator, {"error": "malformed", "error_form": "http"}).raw.startswith(b"HTTQ/9")
    broken = ask(simulator, {"error": "malformed", "error_form": "json"})
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(broken.events[-2][6:])
    assert broken.events[-1] == "data: [DONE]"
    with pytest.raises(UnicodeDecodeError):
        ask(simulator, {"error": "malformed", "error_form": "utf8"}).body.decode()
    assert isinstance(ask(simulator, {"error": "malformed", "error_form": "chunk"}).error, httptools.HttpParserError)


def test_error_event(simulator: str) -> None:
    plain = ask(simulator, {"error": "error_event"})
    assert plain.status == 200
    assert plain.events[-2].startswith('data: {"error":{"message":"The engine stopped')
    named = ask(simulator, {"error": "error_event", "error_form": "event"})
    assert named.events[-1].startswith('event: error\ndata: {"error":')


def test_empty(simulator: str) -> None:
    usage = {"include_usage": True}
    events = ask(simulator, {"error": "empty"}, stream_options=usage)
    assert events.texts == [""]
    assert '"completion_tokens":0' in events.events[-2]
    assert ask(simulator, {"error": "empty", "error_form": "done"}).events == ["data: [DONE]"]
    nothing = ask(simulator, {"error": "empty", "error_form": "body"})
    assert (nothing.status, nothing.body, nothing.complete) == (200, b"", True)


def test_stalls_and_endless_streams_are_kept_up_as_long_as_asked(simulator: str) -> None:
    silent = ask(simulator, {"error": "timeout_first_byte", "stall_s": 0.2})
    assert (silent.raw, silent.end) == (b"", "fin")
    assert silent.took_s > 0.2
    stalled = ask(simulator, {"error": "timeout_idle", "stall_s": 0.2, "error_after": 3})
    assert (len(stalled.texts), stalled.complete) == (4, False)
    assert stalled.took_s > 0.2
    endless = ask(simulator, {"error": "timeout_total", "stall_s": 0.2, "gaps_ms": 10, "error_after": 0})
    assert 10 < len(endless.texts) <= 21
    assert not endless.complete
    assert endless.took_s > 0.2


@pytest.mark.parametrize(
    ("script", "complete", "body"),
    [
        ({"error": "truncated"}, False, b'"object":"chat.completion"'),
        ({"error": "malformed"}, True, b'"object":"chat.completion"'),
        ({"error": "error_event"}, True, b'{"error":'),
        ({"error": "empty"}, True, b'"content":""'),
        ({"error": "empty", "error_form": "body"}, True, b""),
        ({"error": "timeout_idle", "stall_s": 0.1}, False, b'"object":"chat.completion"'),
        ({"error": "timeout_total", "stall_s": 0.1}, False, b"    "),
        ({"error": "reset"}, False, b'"object":"chat.completion"'),
        ({"error": "reset", "error_form": "after_headers"}, False, b""),
    ],
)
def test_faults_without_streaming(simulator: str, script: dict[str, Any], complete: bool, body: bytes) -> None:
    seen = ask(simulator, script, stream=False)
    assert seen.status == 200
    assert seen.complete == complete
    assert body in seen.body
    assert seen.end == ("reset" if script["error"] == "reset" else "fin")


@pytest.mark.parametrize(
    ("script", "status", "headers"),
    [
        ({"error": "rate_limited", "retry_after_s": 7}, 429, {"retry-after": "7"}),
        ({"error": "overloaded"}, 503, {}),
        ({"error": "overloaded", "status": 529}, 529, {}),
        ({"error": "http_5xx"}, 500, {}),
        ({"error": "redirect"}, 307, {"location": "/elsewhere"}),
        ({"status": 302, "headers": {"Location": "/there"}}, 302, {"location": "/there"}),
        ({"status": 200, "body": "<html></html>"}, 200, {"content-type": "text/html; charset=utf-8"}),
        ({"status": 418, "body": {"a": 1}}, 418, {"content-type": "application/json"}),
        ({"status": 204}, 204, {"content-length": "0"}),
    ],
)
def test_scripted_statuses(simulator: str, script: dict[str, Any], status: int, headers: dict[str, str]) -> None:
    seen = ask(simulator, script)
    assert (seen.status, seen.complete) == (status, True)
    assert headers.items() <= seen.headers.items()


def test_retry_after_as_a_date(simulator: str) -> None:
    seen = ask(simulator, {"status": 503, "retry_after_s": 90, "retry_after_form": "date"})
    at = time.strptime(seen.headers["retry-after"], "%a, %d %b %Y %H:%M:%S GMT")
    assert time.mktime(at) - time.timezone - time.time() == pytest.approx(90, abs=10)


def test_a_connection_is_used_again_after_a_stream(simulator: str) -> None:
    body = {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 2}
    with httpx.Client(limits=httpx.Limits(max_connections=1)) as client:
        ports = set()
        for _ in range(3):
            with client.stream("POST", f"{simulator}/v1/chat/completions", json=body) as answer:
                assert answer.read().endswith(b"data: [DONE]\n\n")
                ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(ports) == 1


def test_a_client_that_leaves_frees_its_place(simulator: str) -> None:
    with socket.create_connection(address(simulator), timeout=60) as connection:
        connection.sendall(request(max_tokens=90_000))
        assert connection.recv(100)
        assert fetch(f"{simulator}/health")["running"] >= 1
    until_health(simulator, {"status": "ok", "running": 0, "waiting": 0})


def until_health(url: str, expected: dict[str, object], within_s: float = 60) -> None:
    deadline_s = time.monotonic() + within_s
    while (health := fetch(f"{url}/health")) != expected:
        assert time.monotonic() < deadline_s, health
        time.sleep(0.01)


# --- other profiles --------------------------------------------------------------------------------------------------


def test_a_full_queue_is_overloaded() -> None:
    profile = Profile(max_batch=1, max_waiting=1, decode_base_ms=60_000)
    with start(profile) as url:
        first, second = (socket.create_connection(address(url), timeout=60) for _ in range(2))
        with first, second:
            first.sendall(request())
            second.sendall(request())
            until_health(url, {"status": "ok", "running": 1, "waiting": 1})
            refused = ask(url, None)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert b'"code":"overloaded"' in refused.body


def test_models_keys_and_rate_limits(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("right")
    profile = Profile(models=("a", "b"), rate_limit_per_s=0.5, rate_limit_burst=1, decode_base_ms=1)
    with (
        start(profile, key=f"file:{key}") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="right", max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["a", "b"]
        with pytest.raises(openai.NotFoundError, match="this server has a, b"):
            client.chat.completions.create(model="c", messages=MESSAGES)
        client.chat.completions.create(model="a", messages=MESSAGES, max_tokens=1)
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(model="a", messages=MESSAGES, max_tokens=1)
        assert limited.value.response.headers["retry-after"] in ("1", "2")
        with pytest.raises(openai.AuthenticationError) as refused:
            client.with_options(api_key="wrong").chat.completions.create(model="a", messages=MESSAGES)
        assert "wrong" not in refused.value.message
        assert httpx.get(f"{url}/v1/models", headers=[(b"Authorization", b"Bearer \xff")]).status_code == 401
        assert httpx.post(f"{url}/v1/completions").status_code == 401
        assert httpx.get(f"{url}/v1/models").json()["error"]["code"] == "missing_api_key"


def test_faults_of_a_profile_on_the_wire() -> None:
    profile = Profile(
        decode_base_ms=1, error_rate=1, stall_s=0.05, step_tokens=200,
        faults=dict.fromkeys(("rate_limited", "overloaded", "truncated", "reset", "empty", "malformed", "error_event",
                              "timeout_first_byte", "timeout_idle", "timeout_total"), 1),
    )  # fmt: skip
    with start(profile) as url:
        for number in range(60):
            seen = ask(url, None, headers={"x-request-id": str(number)}, stream=number % 2 == 0, max_tokens=5)
            error = truth_of(url, str(number))["error"]
            assert (
                seen.status == {"rate_limited": 429, "overloaded": 503, "timeout_first_byte": None}.get(error, 200)
                or not seen.raw
            )
            assert (seen.end == "reset") == (error == "reset")
            sound = seen.complete and b'"finish_reason":"length"' in seen.body and b'"content":""' not in seen.body
            assert not sound, error
        words = {record["error"] for record in fetch(f"{url}/truth")}
        assert words == set(profile.faults)
        until_health(url, {"status": "ok", "running": 0, "waiting": 0})


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = Tls(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(files.certificate)
    certificate.private_key_pem.write_to_path(str(files.key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with start(Profile(decode_base_ms=1), tls=files) as url, httpx.Client(verify=context) as client:
        assert url.startswith("https://")
        body: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 3}
        assert client.post(f"{url}/v1/chat/completions", json=body).text.count("data: ") == 6
        with context.wrap_socket(socket.create_connection(address(url), 10), server_hostname="127.0.0.1") as connection:
            seen = ask_on(connection, {"error": "reset", "error_after": 20})
        assert (len(seen.texts), seen.complete) == (21, False)  # ssl takes a reset for an end


# --- the process -----------------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "loadtest.simulator"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_a_stream_in_flight(number: int) -> None:
    with subprocess.Popen([*COMMAND, "--profile", "fast"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline().decode()
        assert line.startswith("simulated provider 'fast' is ready at http://127.0.0.1:")
        url = line.split()[-1]
        body = {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 50_000}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            chunks = answer.iter_raw()
            next(chunks)
            process.send_signal(number)
            with pytest.raises(httpx.RemoteProtocolError):
                list(chunks)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_it_ends_with_whoever_started_it() -> None:
    with subprocess.Popen([*COMMAND, "--profile", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"name": "mine"}\n')
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"simulated provider 'mine' is ready")
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "none"], "profile 'none' is neither a file nor one of: fast, slow, flaky"),
        (["--key", "sk-1"], "the key must be a reference"),
        (["--tls-key", "x.pem"], "without a certificate"),
    ],
)
def test_a_wrong_call_exits_2(arguments: list[str], message: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert done.stderr.startswith("simulate: ")
    assert message in done.stderr


def test_it_imports_nothing_heavy() -> None:
    heavy = {"locust", "gevent", "ray", "chdb", "clickhouse_connect"}
    code = f"import sys, loadtest.simulator; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_each_key_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "simulator.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\|$", page, re.MULTILINE))
    assert documented == {*Script.__struct_fields__, *Profile.__struct_fields__, *Event.__struct_fields__}
    forms = {word for words in FORMS.values() for word in words}
    assert {
        word for word in (*get_args(StatusFault), *get_args(StreamFault), *forms) if f"`{word}`" not in page
    } == set()
