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
from loadtest.types import Plan
from tests.conformance.server import Step, serving
from tests.conformance.voices import CHAT, document
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
        ({"conversation": [{"content": "x"}]}, "every one of `conversation` needs a `role`"),
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


def test_synthetic_prompts_have_no_conversations() -> None:
    with pytest.raises(PlanError, match="synthetic prompts belong to none"):
        plans.parse(
            "{name: p, targets: [{name: a, url: 'http://h', dialect: http, connections: conversation}], "
            "prompts: {kind: synthetic, input_tokens: 5}, "
            "stages: [{name: s, arrivals: {kind: constant, rate: 1}, requests: 1}]}",
            "/",
        )
