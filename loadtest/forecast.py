"""What a run of a plan would do, for `loadtest validate`: requests, seconds, addresses, keys, and what looks unwise.

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
from loadtest.types import Plan, Stage, Target


class Expected(NamedTuple):
    """Of one stage, for each target. None: the endpoint decides."""

    requests: int | None
    duration_s: float | None
    words: str


def text(plan: Plan) -> str:
    """A line for the whole, one for each stage, one for each target."""
    names = max([len(stage.name) for stage in plan.stages] + [len(target.name) for target in plan.targets])
    stages = [f"  {stage.name:{names}}  {_stage_words(stage)}" for stage in plan.stages]
    targets = [f"  {target.name:{names}}  {_target_words(target)}" for target in plan.targets]
    heading = f"{plan.name}: {_count(len(plan.stages), 'stage')}, {_count(len(plan.targets), 'target')}"
    return "\n".join([f"{heading}; {_total_words(plan)}", *stages, "each request goes to", *targets])


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


def expected(stage: Stage) -> Expected:
    if isinstance(stage.arrivals, Closed):
        words = "as many requests as are answered"
        if stage.requests:
            words = ("at most " if stage.duration_s else "") + _count(stage.requests, "request")
        return Expected(stage.requests, stage.duration_s, words)
    if stage.duration_s is None:
        assert stage.requests, "rules.py wants one of the two"
        return Expected(stage.requests, stage.requests / stage.arrivals.expected(1), _count(stage.requests, "request"))
    mean = ceil(stage.arrivals.expected(stage.duration_s))
    if stage.requests is not None and stage.requests <= mean:
        return Expected(stage.requests, stage.duration_s, f"at most {_count(stage.requests, 'request')}")
    exact = isinstance(stage.arrivals, Constant)
    return Expected(mean, stage.duration_s, ("" if exact else "about ") + _count(mean, "request"))


def url(target: Target) -> str:
    """The address of each request to a target; its key is in no URL."""
    head = dialects.load(target.dialect).head(target, None)
    parts = urlsplit(target.url)
    return f"{head.method} {parts.scheme}://{parts.netloc}{head.path}"


def _total_words(plan: Plan) -> str:
    stages = [expected(stage) for stage in plan.stages]
    rounds = [stage.rounds for stage in plan.stages]
    known_s = sum((each.duration_s or 0) * n for each, n in zip(stages, rounds, strict=True))
    requests = sum((each.requests or 0) * n for each, n in zip(stages, rounds, strict=True))
    open_end = any(each.duration_s is None for each in stages)
    unknown = any(each.requests is None for each in stages)
    drain_s = sum(stage.drain_s * stage.rounds for stage in plan.stages)
    time = f"{'at least' if open_end else 'about'} {known_s:,.4g} s, and up to {drain_s:,.4g} s to drain"
    if unknown:
        rest = "closed load, which is as much as is answered"
        return f"{time}; {f'about {requests:,} requests and ' if requests else ''}{rest}, to each target"
    exact = all(isinstance(stage.arrivals, Constant) and not stage.requests for stage in plan.stages)
    return f"{time}; {'' if exact else 'about '}{_count(requests, 'request')} to each target"


def _stage_words(stage: Stage) -> str:
    words = [_pattern_words(stage.arrivals)]
    if stage.concurrency:
        words.append(f"{stage.concurrency:,} at a time")
    each = expected(stage)
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
