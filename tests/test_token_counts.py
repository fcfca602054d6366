"""Who counts the tokens of an answer: the server's usage, its usage as it goes, or a tokenizer; and what is stored of it.

The simulated server is told in the request what to answer, so the right counts are known before it answers.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_tokenizers as made
import pytest
from test_run import drive, rows

from loadtest import plan as plans
from loadtest import tokens
from loadtest.arrivals import Closed
from loadtest.counts import LONG_CHARACTERS
from loadtest.fire import Fire
from loadtest.prompts import Prompt, Synthetic, Tokens
from loadtest.simulator import Profile, start
from loadtest.store import Store
from loadtest.types import ChunkKind, Plan, Result, Stage, Target

PROMPT = Prompt("p", [{"role": "system", "content": "the house"}, {"role": "user", "content": "about"}], 8)
EMPTY, REASONING, CONTENT, TOOL_CALL, _, USAGE = map(int, ChunkKind)

Ask = Callable[..., Result]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A token for each of the common words, with and without the space before it."""
    return str(made.save(made.byte_level(2000), tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def ask(simulator: str) -> Iterator[Ask]:
    fires: list[Fire] = []

    def ask(
        *, prompt: Prompt = PROMPT, dialect: str = "openai-chat", plan_tokenizer: str | None = None,
        simulate: dict[str, Any] | None = None, **target: Any,
    ) -> Result:  # fmt: skip
        body = {"simulate": simulate} if simulate is not None else {}
        aim = Target(name="t", url=f"{simulator}/v1", dialect=dialect, model="m", body=body, **target)
        plan = Plan(
            name="tokens",
            targets=[aim],
            prompts=Synthetic(input_tokens=Tokens(mean=5)),
            stages=[Stage(name="s", arrivals=Closed(), concurrency=1, requests=1)],
            tokenizer=plan_tokenizer,
        )
        fires.append(Fire(plan, {}, "r", 0))
        result = fires[-1](0, 0, 0, None, prompt)
        assert result.error is None, result.error_detail
        return result

    yield ask
    for fire in fires:
        fire.close()


def carried(result: Result) -> list[int]:
    """The tokens of the token chunks."""
    pairs = zip(result.chunk_tokens, result.chunk_kind, strict=True)
    return [tokens for tokens, kind in pairs if kind in (REASONING, CONTENT, TOOL_CALL)]


# "about act after": three tokens, in two chunks
TWO_CHUNKS = {"chunks": ["about a", "ct after"], "tokens_per_chunk": [2, 4]}


def test_without_usage_and_tokenizer_nothing_is_known(ask: Ask) -> None:
    result = ask(simulate=TWO_CHUNKS | {"usage": False})
    assert (result.input_tokens, result.output_tokens, result.token_source) == (None, None, "unknown")
    assert result.chunk_tokens == []


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions"])
def test_without_usage_the_tokenizer_counts(ask: Ask, tokenizer: str, dialect: str) -> None:
    result = ask(simulate=TWO_CHUNKS | {"usage": False}, plan_tokenizer=tokenizer, dialect=dialect)
    assert result.token_source == "tokenizer"
    assert result.output_tokens == 3
    assert carried(result) == [1, 2]
    assert result.input_tokens == 4  # "the house", a line break, "about"
    assert sum(result.chunk_tokens) == 3


@pytest.mark.parametrize(
    ("counted", "known"),
    [
        (3, [1, 2]),
        (4, [1, 2]),  # one more, as for the token that ends a turn
        (5, []),  # two more: it counts something else
        (2, []),  # and two chunks: one each, see below
    ],
)
def test_the_servers_usage_stands_and_a_tokenizer_that_agrees_says_where(
    ask: Ask, tokenizer: str, counted: int, known: list[int]
) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": counted, "total_tokens": 3 + counted}
    script = {"chunks": ["about", " a", "ct after"], "usage": usage} if counted == 2 else TWO_CHUNKS | {"usage": usage}
    result = ask(simulate=script, tokenizer=tokenizer)
    assert (result.input_tokens, result.output_tokens, result.token_source) == (3, counted, "usage")
    assert carried(result) == known if known else result.chunk_tokens == []
    assert ask(simulate=script).chunk_tokens == [], "without a tokenizer that is not known"


def test_of_many_tokens_two_in_a_hundred_may_have_no_text(ask: Ask, tokenizer: str) -> None:
    chunks = ["about act"] + [" after all"] * 99  # 200 tokens
    for counted, known in ((204, True), (205, False), (199, False)):
        usage = {"prompt_tokens": 3, "completion_tokens": counted, "total_tokens": 3 + counted}
        result = ask(simulate={"chunks": chunks, "usage": usage}, tokenizer=tokenizer)
        assert (result.output_tokens, sum(result.chunk_tokens)) == (counted, 200 if known else 0)


def test_reasoning_that_was_counted_and_never_sent_is_not_missed_in_the_text(ask: Ask, tokenizer: str) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 53, "completion_tokens_details": {"reasoning_tokens": 50}}
    result = ask(simulate=TWO_CHUNKS | {"usage": usage}, tokenizer=tokenizer)
    assert (result.output_tokens, result.reasoning_tokens, carried(result)) == (53, 50, [1, 2])


def test_chunks_that_match_the_usage_are_one_token_each(ask: Ask, tokenizer: str) -> None:
    result = ask(simulate=TWO_CHUNKS | {"tokens_per_chunk": 1}, tokenizer=tokenizer)
    assert (result.output_tokens, result.token_source, carried(result)) == (2, "usage_matched", [1, 1])


def test_usage_so_far_says_where_before_the_tokenizer_does(ask: Ask, tokenizer: str) -> None:
    for name in (None, tokenizer):
        result = ask(simulate=TWO_CHUNKS, continuous_usage=True, tokenizer=name)
        assert (result.output_tokens, result.token_source, carried(result)) == (6, "usage", [2, 4])


def test_usage_so_far_of_chunks_that_carry_nothing_belongs_to_the_next(ask: Ask) -> None:
    script = {"chunks": ["about", "", " act"], "tokens_per_chunk": [1, 1, 2]}
    result = ask(simulate=script, continuous_usage=True)
    assert (result.output_tokens, carried(result), sum(result.chunk_tokens)) == (4, [1, 3], 4)


def test_usage_so_far_of_a_stream_that_breaks_is_what_it_had_said(simulator: str) -> None:
    broken = {"chunks": 5, "tokens_per_chunk": 3, "error": "truncated", "error_after": 2}
    target = Target(
        name="t",
        url=f"{simulator}/v1",
        dialect="openai-chat",
        model="m",
        body={"simulate": broken},
        continuous_usage=True,
    )
    stage = Stage(name="s", arrivals=Closed(), concurrency=1, requests=1)
    fire = Fire(
        Plan(name="p", targets=[target], prompts=Synthetic(input_tokens=Tokens(mean=5)), stages=[stage]), {}, "r", 0
    )
    result = fire(0, 0, 0, None, PROMPT)
    fire.close()
    assert (result.error, result.output_tokens, carried(result)) == ("truncated", 6, [3, 3])


def test_one_chunk_of_many_tokens_is_all_of_them(ask: Ask) -> None:
    result = ask(simulate={"chunks": 1, "tokens_per_chunk": 20}, continuous_usage=True)
    assert (result.output_tokens, carried(result)) == (20, [20])


def test_reasoning_and_tool_calls_are_counted_too(ask: Ask, tokenizer: str) -> None:
    script = {"reasoning": ["about", " act"], "chunks": ["after", " all"], "tool_calls": ["about"], "usage": False}
    result = ask(simulate=script, tokenizer=tokenizer)
    name = tokens.Tokenizer(tokenizer).count("simulated" + "about")  # the function's name, then its arguments
    assert name > 1
    assert carried(result) == [1, 1, 1, 1, name]
    assert result.output_tokens == 4 + name


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions"])
def test_an_answer_in_one_piece_is_counted_as_well(ask: Ask, tokenizer: str, dialect: str) -> None:
    result = ask(simulate=TWO_CHUNKS | {"usage": False}, tokenizer=tokenizer, stream=False, dialect=dialect)
    assert (result.output_tokens, result.token_source, result.chunk_tokens) == (3, "tokenizer", [3])
    result = ask(simulate=TWO_CHUNKS, tokenizer=tokenizer, stream=False, dialect=dialect)
    assert (result.output_tokens, result.token_source, result.chunk_tokens) == (6, "usage", [6])


def test_a_long_prompt_is_counted_like_a_short_one(ask: Ask, tokenizer: str) -> None:
    words = LONG_CHARACTERS // 5
    prompt = Prompt("p", [{"role": "user", "content": "about" + " about" * (words - 1)}], 1)
    assert ask(prompt=prompt, simulate={"chunks": 1, "usage": False}, tokenizer=tokenizer).input_tokens == words


def test_a_tokenizer_of_the_target_comes_before_the_plans(ask: Ask, tokenizer: str, tmp_path: Path) -> None:
    path = str(made.save(made.byte_level(257), tmp_path))  # every byte is a token
    result = ask(simulate=TWO_CHUNKS | {"usage": False}, tokenizer=path, plan_tokenizer=tokenizer)
    assert (result.output_tokens, carried(result)) == (15, [7, 8])


# End to end


PLAN = """
name: tokens
seed: 3
nonce: fixed
targets:
  - {{name: mute, url: "{url}/v1", dialect: openai-chat, model: m, body: {{simulate: {{chunks: 4, usage: false}}}}}}
  - {{name: cached, url: "{url}/v1", dialect: openai-completions, model: m, CONTINUOUS}}
prompts: {{kind: synthetic, input_tokens: 60, output_tokens: 4, CACHE}}
stages:
  - {{name: s, arrivals: {{kind: closed}}, concurrency: 2, requests: 6, ramp_up_s: 0.1}}
TOKENIZER
"""


@pytest.fixture(scope="module")
def caching() -> Iterator[str]:
    """A simulated provider with a prefix cache."""
    with start(Profile(name="caching", decode_base_ms=1, prefix_cache_tokens=100_000)) as url:
        yield url


def run_rows(
    url: str, store: Store, directory: Path, cache: str = "", tokenizer: str = "", workers: int = 1
) -> dict[str, list[tuple[Any, ...]]]:
    """(input, cached, output tokens, source, tokens of chunks) of each request, by target."""
    text = PLAN.replace("CACHE", cache).replace("CONTINUOUS", "continuous_usage: true")
    text = text.replace("TOKENIZER", f"tokenizer: {tokenizer}" if tokenizer else "").format(url=url)
    plan = plans.parse(text, directory)
    snapshot, _ = drive(plan, store, directory, workers=workers)
    found = rows(
        store, snapshot, "target, input_tokens, cached_tokens, output_tokens, token_source, arraySum(chunk_tokens)"
    )
    return {name: [row[1:] for row in found if row[0] == name] for name in ("mute", "cached")}


def test_what_was_counted_is_stored(caching: str, store: Store, tmp_path: Path, tokenizer: str) -> None:
    found = run_rows(caching, store, tmp_path, tokenizer=tokenizer)
    output = tokens.Tokenizer(tokenizer).count(" the load rises and")
    assert found["mute"] == [(60, None, output, "tokenizer", output)] * 6
    assert found["cached"] == [(60, 0, 4, "usage_matched", 4)] * 6


def test_cached_tokens_are_stored_and_a_salt_leaves_none(caching: str, store: Store, tmp_path: Path) -> None:
    shared = run_rows(caching, store, tmp_path / "a", cache="cache: {{shared_prefix_tokens: 40}}")["cached"]
    # of 40 shared tokens two blocks of 16 are whole; the first requests, up to two at a time, find nothing
    assert sorted({row[1] for row in shared}) == [0, 32]
    assert sum(row[1] == 0 for row in shared) <= 2
    plain = run_rows(caching, store, tmp_path / "b")["cached"]
    again = run_rows(caching, store, tmp_path / "c")["cached"]
    assert {row[1] for row in plain} == {0}
    assert {row[1] for row in again} == {48}, "the same seed and nonce say the same: 60 tokens are 3 blocks and 12"
    salted = run_rows(caching, store, tmp_path / "d", cache="cache: defeat", workers=2)["cached"]
    assert {row[1] for row in salted} == {0}


def test_a_worker_without_a_tokenizer_does_not_load_the_library() -> None:
    code = (
        "import locust, sys; import loadtest.worker, loadtest.fire, loadtest.schedule, loadtest.tokens; "
        "sys.exit('tokenizers' in sys.modules or 'huggingface_hub' in sys.modules)"
    )
    assert importlib.util.find_spec("tokenizers")
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=200).returncode == 0
