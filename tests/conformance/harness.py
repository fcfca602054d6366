"""Fires at the scripted server as a worker would."""

from collections.abc import Iterator
from contextlib import contextmanager

from loadtest.arrivals import Closed
from loadtest.fire import Fire
from loadtest.prompts import Prompt, Synthetic, Tokens
from loadtest.types import Plan, Stage, Target

PROMPT = Prompt("p", [{"role": "user", "content": "Say hello"}], None)


def plan_of(*targets: Target) -> Plan:
    return Plan(
        name="conformance",
        targets=list(targets),
        prompts=Synthetic(input_tokens=Tokens(mean=5)),
        stages=[Stage(name="s", arrivals=Closed(), concurrency=1, requests=1)],
    )


@contextmanager
def firing(*targets: Target, keys: dict[str, str] | None = None) -> Iterator[Fire]:
    fire = Fire(plan_of(*targets), keys or {}, "r", 0)
    try:
        yield fire
    finally:
        fire.close()
