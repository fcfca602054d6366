"""Conversations of several turns: what each turn says, when it is due, on which connection it goes, and how they end."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest import plan as plans
from loadtest.errors import PlanError
from loadtest.prompts import TURN_SEQS, Dataset
from loadtest.rounds import TURN
from loadtest.store import Store
from loadtest.types import Plan, Retries
from tests.conformance.server import Step, serving
from tests.conformance.voices import CHAT, CHUNKED, COMPLETIONS, DONE, LAST, Voice, chunked, document, event
from tests.test_run import KillOnce, Watched, adds_up, drive, rows

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "three"},
]
LINES = [{"conversation": TALK}, {"prompt": "alone"}]
OK = document(CHAT.whole("Hi"))
PLAN = """
name: talk
seed: 3
targets: [{{name: a, url: "{url}/v1", dialect: openai-chat, model: m, stream: false, connections: {connections}}}]
prompts: {{kind: dataset, path: {path}, think_s: {think_s}}}
stages: [{{name: s, {stage}}}]
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def plan(url: str, path: Path, stage: str, connections: str = "conversation", think_s: float = 0) -> Plan:
    return plans.parse(
        PLAN.format(url=url, path=path, stage=stage, connections=connections, think_s=think_s), Path("/")
    )


def test_each_turn_is_sent_with_what_stands_before_it(dataset: Path) -> None:
    source = Dataset(path=str(dataset), think_s=2).open(1, "")
    first, last = source("s", 0), source("s", 0, turn=2)
    assert (first.turns, first.think_s, first.messages) == (3, 2, TALK[:2])
    assert (last.messages, last.id) == (TALK, "talk.jsonl:1 turn 3")
    assert (source("s", 1).turns, source("s", 2).messages) == (1, TALK[:2])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"conversation": [{"role": "system", "content": "x"}]}, "`conversation` has 0 messages of the role user"),
        ({"conversation": [{"content": "x"}]}, r"line 1: conversation\[0\].role is missing; write one of user"),
        ({"conversation": TALK, "prompt": "x"}, "needs one of `prompt`, `messages` and `conversation`"),
    ],
)
def test_a_line_that_is_no_conversation(line: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(PlanError, match=problem):
        Dataset(path=str(path)).open(1, "")


OPEN = "arrivals: {kind: constant, rate: 20}, requests: 8, drain_s: 5"
CLOSED = "arrivals: {kind: closed}, concurrency: 2, requests: 8, ramp_up_s: 0, drain_s: 5"


@pytest.mark.parametrize("stage", [OPEN, CLOSED], ids=["open", "closed"])
def test_a_conversation_has_one_connection_and_its_turns_follow_each_other(
    stage: str, dataset: Path, store: Store, tmp_path: Path
) -> None:
    """Of eight, four have three turns and four one; on two workers."""
    script: list[Step] = [step for _ in range(4) for step in ("read request", OK)]  # type: ignore[misc]
    with serving(script) as server:
        made = plan(f"http://127.0.0.1:{server.port}", dataset, stage, think_s=0.05)
        snapshot, booked = drive(made, store, tmp_path, workers=2)
    assert adds_up(booked)
    assert booked.integrity.sent == booked.integrity.stored == 4 * 3 + 4
    assert server.connections == 8
    talks = defaultdict(list)
    found = rows(store, snapshot, f"seq, {TURN}, worker, reused, error, due_ns, started_ns, done_ns")
    for seq, turn, *facts in found:
        assert turn == seq // TURN_SEQS
        talks[seq % TURN_SEQS].append((turn, *facts))
    assert sorted(talks) == list(range(8))
    for number, turns in talks.items():
        assert [turn for turn, *_ in sorted(turns)] == [0, 1, 2] if number % 2 == 0 else [0]
        assert len({worker for _, worker, *_ in turns}) == 1, "a conversation stays on one worker"
        assert all(reused == (turn > 0) and not error for turn, _, reused, error, *_ in turns)
        ordered = sorted(turns)
        for (*_, done_ns), (*_, due_ns, started_ns, _) in pairwise(ordered):
            assert due_ns == (done_ns + 50_000_000 if stage == OPEN else None)
            assert started_ns >= done_ns + 50_000_000
    asked = [json.loads(request.partition(b"\r\n\r\n")[2])["messages"] for request in server.requests]
    assert sum(messages == TALK for messages in asked) == 4, "the last turn says all of it"


def test_it_ends_where_a_turn_fails(dataset: Path, store: Store, tmp_path: Path) -> None:
    busy = document(b"{}", status="503 Service Unavailable")
    with serving(["read request", OK, "read request", busy, "read request", OK]) as server:
        stage = "arrivals: {kind: closed}, concurrency: 1, requests: 1"
        snapshot, booked = drive(plan(f"http://127.0.0.1:{server.port}", dataset, stage), store, tmp_path)
    assert [error for (error,) in rows(store, snapshot, "error")] == ["", "overloaded"]
    assert (booked.integrity.scheduled, booked.integrity.stored) == (2, 2)


def test_no_turn_begins_after_the_stages_end(dataset: Path, store: Store, tmp_path: Path) -> None:
    """Turns are a second apart, and the stage lasts for half of one: only first turns are sent, and nobody is waited for."""
    script: list[Step] = [step for _ in range(4) for step in ("read request", OK)]  # type: ignore[misc]
    with serving(script) as server:
        stage = "arrivals: {kind: constant, rate: 10}, duration_s: 0.5, drain_s: 30"
        made = plan(f"http://127.0.0.1:{server.port}", dataset, stage, connections="reuse", think_s=1)
        snapshot, booked = drive(made, store, tmp_path)
    assert [turn for (turn,) in rows(store, snapshot, TURN)] == [0] * 5
    assert adds_up(booked)
    assert (snapshot.times[0].drained_ns - snapshot.times[0].end_ns) / 1e9 < 10


def test_a_worker_that_dies_in_the_middle_of_conversations(
    simulator: str, dataset: Path, store: Store, tmp_path: Path
) -> None:
    stage = "arrivals: {kind: constant, rate: 20}, duration_s: 3, drain_s: 5"
    made = plan(simulator, dataset, stage, think_s=0.2)
    made = msgspec.structs.replace(made, targets=[msgspec.structs.replace(made.targets[0], stream=True)])
    snapshot, booked = drive(made, store, tmp_path, workers=2, view=Watched(KillOnce(1)))
    assert adds_up(booked)
    assert booked.generator.workers_restarted == 1
    turns = {turn for (turn,) in rows(store, snapshot, TURN)}
    assert turns == {0, 1, 2}


# The model's own answers as history


CALL = {"index": 0, "id": "x", "function": {"name": "look", "arguments": "{}"}}


def streamed(*pieces: bytes) -> bytes:
    return CHUNKED + b"".join(chunked(event(piece)) for piece in (*pieces, DONE)) + LAST


def talk(path: Path, messages: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"conversation": messages}) + "\n")
    return path


def said(*answers: str) -> list[dict[str, Any]]:
    """TALK up to its last turn with these answers."""
    own = iter(answers)
    return [{"role": "assistant", "content": next(own, "")} if m["role"] == "assistant" else m for m in TALK]


ONE_TURN_AT_A_TIME = "arrivals: {kind: closed}, concurrency: 1, requests: 1, ramp_up_s: 0, drain_s: 5"


@pytest.mark.parametrize("voice", [CHAT, COMPLETIONS], ids=lambda voice: voice.dialect)
@pytest.mark.parametrize("stream", [True, False])
def test_the_models_own_answers_are_what_the_next_turn_says(
    voice: Voice, stream: bool, store: Store, tmp_path: Path
) -> None:
    """Reasoning and tool calls are left out, and so is what came before an attempt failed."""
    first = streamed(
        voice.nothing(), voice.delta({"reasoning": "hm"}, ""), voice.content("Grüß"), voice.content(" Gott ☀"),
        voice.delta({"tool_calls": [CALL]}, ""), voice.finish(), voice.usage(5, 4),
    )  # fmt: skip
    second = streamed(voice.content("zwei"), voice.finish())
    if not stream:
        first, second = document(voice.whole("Grüß Gott ☀")), document(voice.whole("zwei"))
    busy = document(b"{}", "Retry-After: 0", status="503 Service Unavailable")
    script: list[Step] = ["read request", first, "read request", busy, "read request", second, "read request", second]
    path = talk(tmp_path / "talk.jsonl", TALK)
    with serving(script) as server:
        made = plan(f"http://127.0.0.1:{server.port}", path, ONE_TURN_AT_A_TIME)
        target = msgspec.structs.replace(
            made.targets[0], stream=stream, dialect=voice.dialect, retries=Retries(max=1), connections="reuse"
        )
        prompts = msgspec.structs.replace(made.prompts, history="model")
        snapshot, booked = drive(
            msgspec.structs.replace(made, targets=[target], prompts=prompts), store, tmp_path / "run"
        )
    assert adds_up(booked)
    assert [error for (error,) in rows(store, snapshot, "error")] == ["", "overloaded", ""]
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    asked = [TALK[:2], said("Grüß Gott ☀")[:4], said("Grüß Gott ☀")[:4], said("Grüß Gott ☀", "zwei")]
    if voice is CHAT:
        assert [body["messages"] for body in bodies] == asked
    else:
        assert [body["prompt"] for body in bodies] == ["\n".join(m["content"] for m in each) for each in asked]


@pytest.mark.parametrize("voice", [CHAT, COMPLETIONS], ids=lambda voice: voice.dialect)
@pytest.mark.parametrize("stream", [True, False])
def test_of_several_choices_the_first_one_is_told_on(voice: Voice, stream: bool, store: Store, tmp_path: Path) -> None:
    """In a stream each chunk is of one choice, in any order."""

    def of(index: int, data: bytes) -> bytes:
        value = json.loads(data)
        value["choices"] = [{**choice, "index": index} for choice in value["choices"]]
        return json.dumps(value).encode()

    ends = [of(0, voice.finish()), of(1, voice.finish())]
    words = [
        of(1, voice.content("two")),
        of(0, voice.content("o")),
        of(1, voice.content("!")),
        of(0, voice.content("ne")),
    ]
    answer = streamed(*words, *ends)
    if not stream:
        one, two = json.loads(of(0, voice.whole("one"))), json.loads(of(1, voice.whole("two")))
        answer = document(json.dumps({**one, "choices": two["choices"] + one["choices"]}).encode())
    path = talk(tmp_path / "talk.jsonl", TALK)
    with serving(["read request", answer] * 3) as server:
        made = plan(f"http://127.0.0.1:{server.port}", path, ONE_TURN_AT_A_TIME)
        target = msgspec.structs.replace(
            made.targets[0], stream=stream, dialect=voice.dialect, body={"n": 2}, connections="reuse"
        )
        prompts = msgspec.structs.replace(made.prompts, history="model")
        drive(msgspec.structs.replace(made, targets=[target], prompts=prompts), store, tmp_path / "run")
    last = json.loads(server.requests[-1].partition(b"\r\n\r\n")[2])
    if voice is CHAT:
        assert last["messages"] == said("one", "one")
    else:
        assert last["prompt"] == "\n".join(m["content"] for m in said("one", "one"))


def test_what_the_script_says_for_the_model_and_its_tools_is_left_out(tmp_path: Path) -> None:
    example = {"role": "assistant", "content": "an example, before anybody asked"}
    one, two, three = ({"role": "user", "content": text} for text in ("one", "two", "three"))
    scripted = [
        example, one, {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "seven"}, two, {"role": "system", "content": "now"}, three,
    ]  # fmt: skip
    source = Dataset(path=str(talk(tmp_path / "t.jsonl", scripted)), history="model").open(1, "")
    assert source("s", 0).messages == [example, one]
    first, second = ({"role": "assistant", "content": text} for text in ("1", ""))
    assert source("s", 0, turn=1, answers={0: "1"}).messages == [example, one, first, two]
    found = source("s", 0, turn=2, answers={0: "1", 1: ""}).messages
    assert found == [example, one, first, two, second, {"role": "system", "content": "now"}, three]
    assert source("s", 0, turn=2).messages == scripted, "what is said does not change the line"


def test_on_the_simulator_each_turn_brings_what_was_answered(simulator: str, store: Store, tmp_path: Path) -> None:
    """Its input tokens are those of the messages: of a long answer more than of the short one in the line."""
    path = talk(tmp_path / "talk.jsonl", TALK)
    made = plan(simulator, path, "arrivals: {kind: constant, rate: 20}, requests: 6, drain_s: 5", think_s=0.01)
    target = msgspec.structs.replace(made.targets[0], stream=True, body={"max_tokens": 40})
    grown = {}
    for history in ("scripted", "model"):
        prompts = msgspec.structs.replace(made.prompts, history=history)
        changed = msgspec.structs.replace(made, targets=[target], prompts=prompts)
        snapshot, booked = drive(changed, store, tmp_path / history, workers=2)
        assert adds_up(booked)
        found = rows(store, snapshot, f"{TURN}, input_tokens, output_tokens, error")
        assert sorted(turn for turn, *_ in found) == [0] * 6 + [1] * 6 + [2] * 6
        assert {(output, error) for *_, output, error in found} == {(40, "")}
        grown[history] = [{tokens for turn, tokens, *_ in found if turn == t} for t in range(3)]
    assert all(len(each) == 1 for each in grown["scripted"]), "the same for each conversation"
    assert grown["model"][0] == grown["scripted"][0]
    assert min(grown["model"][1]) >= max(grown["scripted"][1]) + 20
    assert min(grown["model"][2]) >= max(grown["scripted"][2]) + 40


def test_whose_answers_nobody_reads_or_that_has_no_turns_is_no_history(tmp_path: Path, dataset: Path) -> None:
    text = PLAN.format(url="http://h", path=dataset, stage=OPEN, connections="reuse", think_s=0)
    text = text.replace("think_s: 0", "history: model")
    with pytest.raises(PlanError, match=r"nobody reads what an answer to targets\[0\] says: its dialect is http"):
        plans.parse(text.replace("openai-chat", "http"), "/")
    dataset.write_text('{"prompt": "alone"}\n')
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(PlanError, match=r"no line of .*talk.jsonl has a conversation of several turns"):
        plans.load(file)


def test_synthetic_prompts_have_no_conversations() -> None:
    with pytest.raises(PlanError, match="synthetic prompts belong to none"):
        plans.parse(
            "{name: p, targets: [{name: a, url: 'http://h', dialect: http, connections: conversation}], "
            "prompts: {kind: synthetic, input_tokens: 5}, "
            "stages: [{name: s, arrivals: {kind: constant, rate: 1}, requests: 1}]}",
            "/",
        )
