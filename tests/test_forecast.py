"""What `loadtest validate` says: counts and seconds worked out by hand."""

import json
from pathlib import Path

from loadtest import forecast, plan

HEAD = """
name: words
targets:
  - {name: a, url: "http://127.0.0.1:1/v1", dialect: openai-chat, model: m, key: "env:ACME"}
  - {name: longer, url: "https://127.0.0.1/x?y=1", dialect: http, method: GET}
prompts: {kind: synthetic, input_tokens: 5}
stages:
"""


def lines(*stages: str) -> list[str]:
    return forecast.text(plan.parse(HEAD + "".join(f"  - {{{stage}}}\n" for stage in stages), "/")).split("\n")


def test_what_each_stage_and_target_gets() -> None:
    assert lines(
        "name: warm, arrivals: {kind: constant, rate: 2}, duration_s: 10, warmup: true",
        "name: climb, arrivals: {kind: ramp, from: 0, to: 300}, duration_s: 60, requests: 5000",
        "name: crowd, arrivals: {kind: poisson, rate: 20}, duration_s: 2.5, drain_s: 5",
        "name: few, arrivals: {kind: poisson, rate: 0.5}, requests: 7",
        "name: full, arrivals: {kind: closed}, concurrency: 64, requests: 500",
    ) == [
        "words: 5 stages, 2 targets; at least 86.5 s, and up to 245 s to drain; about 5,577 requests to each target",
        "  warm    constant rate 2, 10 s, 20 requests to each target, warm-up",
        "  climb   ramp from 0 to 300, at most 60 s, at most 5,000 requests to each target",
        "  crowd   poisson rate 20, 2.5 s, about 50 requests to each target",
        "  few     poisson rate 0.5, about 14 s, 7 requests to each target",
        "  full    closed, 64 at a time, until they are answered, 500 requests to each target",
        "each request goes to",
        "  a       POST http://127.0.0.1:1/v1/chat/completions, model m, key env:ACME",
        "  longer  GET https://127.0.0.1/x?y=1, no key",
        "prompts are synthetic, 5 tokens each",
    ]


def test_one_of_each_is_not_plural() -> None:
    one = "name: s, arrivals: {kind: constant, rate: 1}, duration_s: 1"
    assert lines(one)[0] == "words: 1 stage, 2 targets; about 1 s, and up to 60 s to drain; 1 request to each target"


def test_rounds_count_for_as_many_stages() -> None:
    rounds = "name: s, arrivals: {kind: constant, rate: 5}, duration_s: 4, drain_s: 3, rounds: 10"
    assert lines(rounds)[:2] == [
        "words: 1 stage, 2 targets; about 40 s, and up to 30 s to drain; 200 requests to each target",
        "  s       constant rate 5, 4 s, 20 requests to each target, in each of 10 rounds",
    ]


def test_nothing_is_told_of_prompts_that_are_not_sent() -> None:
    plain = "\n".join(line for line in HEAD.split("\n") if "openai-chat" not in line)
    text = forecast.text(
        plan.parse(f"{plain}  - {{name: s, arrivals: {{kind: constant, rate: 2}}, duration_s: 5}}", "/")
    )
    assert text.split("\n")[-1] == "  longer  GET https://127.0.0.1/x?y=1, no key"


def test_of_closed_load_nobody_knows_the_number() -> None:
    closed = lines("name: c, arrivals: {kind: closed}, concurrency: 4, duration_s: 9")
    assert closed[0].endswith("; closed load, which is as much as is answered, to each target")
    assert closed[1] == "  c       closed, 4 at a time, 9 s, as many requests as are answered to each target"


def of_dataset(path: Path, keys: str, *stages: str) -> list[str]:
    dataset = f"{{kind: dataset, path: {path.name}{keys}}}"
    head = HEAD.replace("{kind: synthetic, input_tokens: 5}", dataset).replace(
        "http, method: GET", "openai-chat, model: m"
    )
    text = head + "".join(f"  - {{{stage}}}\n" for stage in stages)
    return forecast.text(plan.parse(text, path.parent)).split("\n")


def test_conversations_are_counted_as_such_and_their_turns_are_told(tmp_path: Path) -> None:
    """Lines of 3, 1 and 2 turns: 10 conversations are 20 requests, if all are answered."""
    ask, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    talks = [{"conversation": [ask, answer] * turns} for turns in (3, 1, 2)]
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    few = "name: s, arrivals: {kind: constant, rate: 2}, duration_s: 5"
    told = of_dataset(path, ", think_s: 2, history: model, output_tokens: {mean: 50, stdev: 5}", few)
    heading = "words: 1 stage, 2 targets; about 5 s, and up to 60 s to drain; "
    assert told[:2] == [
        f"{heading}10 conversations with about 20 requests, if all are answered, to each target",
        "  s       constant rate 2, 5 s, 10 conversations to each target",
    ]
    assert told[-2:] == [
        f"prompts are those of {path}, 3 lines, again from the first after the last, answers of about 50 tokens (stdev 5) "
        "where a line has no max_tokens",
        "  3 conversations of 1 to 3 turns, 2 requests a line on average; history: what the model said; 2 s between an answer "
        "and the next turn",
    ]
    assert of_dataset(path, "", few)[-1].endswith(
        "history: as the line has it (scripted); 0 s between an answer and the next turn"
    )
    closed = of_dataset(path, "", "name: s, arrivals: {kind: closed}, concurrency: 4, duration_s: 9")
    assert closed[1] == "  s       closed, 4 at a time, 9 s, as many conversations as are answered to each target"


def test_lines_of_one_turn_are_requests(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"prompt": "a"}\n' * 4)
    told = of_dataset(path, "", "name: s, arrivals: {kind: constant, rate: 2}, duration_s: 5")
    assert told[0].endswith("; 10 requests to each target")
    assert told[-1] == f"prompts are those of {path}, 4 lines, again from the first after the last"


def test_what_is_seldom_meant_is_warned_of() -> None:
    def warned(stage: str = "", target: str = ", model: m") -> list[str]:
        text = HEAD.replace(", model: m", target)
        text += f"  - {{name: s, arrivals: {{kind: constant, rate: 1}}, duration_s: 1{stage}}}"
        return list(forecast.warnings(plan.parse(text, "/")))

    assert warned() == []
    assert warned(target=", body: {model: m}") == []
    assert warned(target="") == ["targets[0].model is missing; most servers refuse a request that does not name one"]
    assert warned(stage=", drain_s: 59") == [
        "stages[0].drain_s is 59, shorter than targets[1].timeouts.first_byte_s (60): a request that hangs when the stage "
        "ends is cancelled, which is no error of the endpoint; write drain_s: 60, or lower the timeout"
    ]
