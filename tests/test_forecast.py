"""What `loadtest validate` says: counts and seconds worked out by hand."""

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


def test_of_closed_load_nobody_knows_the_number() -> None:
    closed = lines("name: c, arrivals: {kind: closed}, concurrency: 4, duration_s: 9")
    assert closed[0].endswith("; closed load, which is as much as is answered, to each target")
    assert closed[1] == "  c       closed, 4 at a time, 9 s, as many requests as are answered to each target"


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
