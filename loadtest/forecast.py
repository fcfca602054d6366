"""What a run of a plan would do, for `loadtest validate`: requests, seconds, addresses, keys, and what looks unwise.

Where a dataset has conversations of several turns, what is due is a conversation, and each of its turns a request.

A number with "about" is the mean of a random one; "at most" is a limit that the endpoint's speed decides about. Under
closed load without `requests` nobody knows how many there will be, so nothing is said of their number.
"""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import fields

from loadtest import dialects
from loadtest.arrivals import Closed, Constant, Pattern
from loadtest.dialects.http import sends_prompts
from loadtest.prompts import Dataset, Prompts, Synthetic, Tokens, contents, mean_turns
from loadtest.types import Plan, Stage, Target


class Expected(NamedTuple):
    """Of one stage, for each target. None: the endpoint decides."""

    requests: int | None
    duration_s: float | None
    words: str


def text(plan: Plan) -> str:
    """A line for the whole, one for each stage, one for each target, one or two for the prompts if any are sent."""
    names = max([len(stage.name) for stage in plan.stages] + [len(target.name) for target in plan.targets])
    due = _due(plan.prompts)
    stages = [f"  {stage.name:{names}}  {_stage_words(stage, due)}" for stage in plan.stages]
    targets = [f"  {target.name:{names}}  {_target_words(target)}" for target in plan.targets]
    heading = f"{plan.name}: {_count(len(plan.stages), 'stage')}, {_count(len(plan.targets), 'target')}"
    heading = f"{heading}; {_total_words(plan, due)}"
    prompts = _prompts_words(plan.prompts) if any(map(sends_prompts, plan.targets)) else ()
    return "\n".join([heading, *stages, "each request goes to", *targets, *prompts])


def warnings(plan: Plan) -> Iterator[str]:
    """What may be meant and is seldom wanted, in the words of plan.py's problems."""
    for i, target in enumerate(plan.targets):
        if target.dialect != "http" and not target.model and "model" not in target.body:
            yield f"targets[{i}].model is missing; most servers refuse a request that does not name one"
    limit_s, place = max(_silences(plan))
    for j, stage in enumerate(plan.stages):
        if stage.drain_s < limit_s:
            yield (
                f"stages[{j}].drain_s is {stage.drain_s:g}, shorter than {place} ({limit_s:g}): a request that hangs when "
                f"the stage ends is cancelled, which is no error of the endpoint; write drain_s: {limit_s:g}, or lower "
                "the timeout"
            )


def _silences(plan: Plan) -> Iterator[tuple[float, str]]:
    """How long a request may hang before it fails, and which timeout says so."""
    for i, target in enumerate(plan.targets):
        for key in ("first_byte_s", "idle_s"):
            yield min(getattr(target.timeouts, key), target.timeouts.total_s), f"targets[{i}].timeouts.{key}"


def _due(prompts: Prompts) -> str:
    """What stages count."""
    return "conversation" if isinstance(prompts, Dataset) and contents(prompts.path).most_turns > 1 else "request"


def _prompts_words(prompts: Prompts) -> Iterator[str]:
    """What is sent, and of conversations how they go on."""
    answers = f", answers of {_tokens(prompts.output_tokens)}" if prompts.output_tokens else ""
    if isinstance(prompts, Synthetic):
        yield f"prompts are synthetic, {_tokens(prompts.input_tokens)} each{answers}"
        return
    held = contents(prompts.path)
    own = " where a line has no max_tokens" if answers else ""
    lines = f"{_count(held.lines, 'line')}, again from the first after the last"
    yield f"prompts are those of {prompts.path}, {lines}{answers}{own}"
    if held.most_turns == 1:
        return
    span = f"{held.least_turns} to {held.most_turns}" if held.least_turns < held.most_turns else f"{held.most_turns}"
    said = "what the model said" if prompts.history == "model" else "as the line has it (scripted)"
    yield (
        f"  {_count(held.conversations, 'conversation')} of {span} turns, {held.mean_turns:.3g} requests a line on average; "
        f"history: {said}; {prompts.think_s:g} s between an answer and the next turn"
    )


def _tokens(tokens: Tokens) -> str:
    return f"{tokens.mean:g} tokens" if not tokens.stdev else f"about {tokens.mean:g} tokens (stdev {tokens.stdev:g})"


def expected(stage: Stage, due: str) -> Expected:
    if isinstance(stage.arrivals, Closed):
        words = f"as many {due}s as are answered"
        if stage.requests:
            words = ("at most " if stage.duration_s else "") + _count(stage.requests, due)
        return Expected(stage.requests, stage.duration_s, words)
    if stage.duration_s is None:
        assert stage.requests, "rules.py wants one of the two"
        return Expected(stage.requests, stage.requests / stage.arrivals.expected(1), _count(stage.requests, due))
    mean = ceil(stage.arrivals.expected(stage.duration_s))
    if stage.requests is not None and stage.requests <= mean:
        return Expected(stage.requests, stage.duration_s, f"at most {_count(stage.requests, due)}")
    exact = isinstance(stage.arrivals, Constant)
    return Expected(mean, stage.duration_s, ("" if exact else "about ") + _count(mean, due))


def url(target: Target) -> str:
    """The address of each request to a target; its key is in no URL."""
    head = dialects.load(target.dialect).head(target, None)
    parts = urlsplit(target.url)
    return f"{head.method} {parts.scheme}://{parts.netloc}{head.path}"


def _total_words(plan: Plan, due: str) -> str:
    stages = [expected(stage, due) for stage in plan.stages]
    rounds = [stage.rounds for stage in plan.stages]
    known_s = sum((each.duration_s or 0) * n for each, n in zip(stages, rounds, strict=True))
    requests = sum((each.requests or 0) * n for each, n in zip(stages, rounds, strict=True))
    open_end = any(each.duration_s is None for each in stages)
    unknown = any(each.requests is None for each in stages)
    drain_s = sum(stage.drain_s * stage.rounds for stage in plan.stages)
    time = f"{'at least' if open_end else 'about'} {known_s:,.4g} s, and up to {drain_s:,.4g} s to drain"
    if unknown:
        rest = "closed load, which is as much as is answered"
        return f"{time}; {f'about {_count(requests, due)} and ' if requests else ''}{rest}, to each target"
    exact = all(isinstance(stage.arrivals, Constant) and not stage.requests for stage in plan.stages)
    turns = ceil(requests * mean_turns(plan.prompts))
    of_turns = "" if due == "request" else f" with about {_count(turns, 'request')}, if all are answered,"
    return f"{time}; {'' if exact else 'about '}{_count(requests, due)}{of_turns} to each target"


def _stage_words(stage: Stage, due: str) -> str:
    words = [_pattern_words(stage.arrivals)]
    if stage.concurrency:
        words.append(f"{stage.concurrency:,} at a time")
    each = expected(stage, due)
    if each.duration_s is None:
        words.append("until they are answered")
    else:
        about = "about " if stage.duration_s is None else "at most " if stage.requests else ""
        words.append(f"{about}{each.duration_s:,.4g} s")
    words.append(f"{each.words} to each target")
    if rule := stage.stop_when:
        figure = f"{rule.metric} {rule.stat}" if rule.stat else rule.metric
        words.append(f"or until {figure} is known to {100 * rule.relative_width:g}% of it")
    if stage.rounds > 1:
        words.append(f"in each of {stage.rounds} rounds")
    if stage.warmup:
        words.append("warm-up")
    return ", ".join(words)


def _target_words(target: Target) -> str:
    words = [url(target)]
    if target.model:
        words.append(f"model {target.model}")
    words.append(f"key {target.key}" if target.key else "no key")
    return ", ".join(words)


def _pattern_words(pattern: Pattern) -> str:
    values = [f"{field.encode_name} {getattr(pattern, field.name):g}" for field in fields(pattern)]
    return " ".join([str(pattern.__struct_config__.tag), *values])


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
