"""Every case of cases.py, as a real server sends it over a real socket."""

import msgspec
import pytest

from loadtest.types import Result, Target
from tests.conformance import cases
from tests.conformance.cases import Case, Expect
from tests.conformance.harness import PROMPT, firing
from tests.conformance.server import Step, serving
from tests.conformance.voices import CHAT, COMPLETIONS, HTTP, Voice, document

ALL = [(voice, case) for voice in (CHAT, COMPLETIONS, HTTP) for case in cases.of(voice)]


@pytest.mark.parametrize(("voice", "case"), ALL, ids=[f"{voice.dialect}: {case}" for voice, case in ALL])
def test_an_answer_becomes_its_result(voice: Voice, case: Case) -> None:
    again: Step = document(voice.whole("Hi"))
    with serving(["read request", *case.sends, "read request", again], ["read request", again]) as server:
        target = msgspec.convert(
            {
                "name": "t",
                "url": f"http://127.0.0.1:{server.port}/v1",
                "dialect": voice.dialect,
                "model": "m",
                **case.target,
            },
            Target,
        )
        with firing(target) as fire:
            result = fire(0, 0, 0, None, PROMPT)
            next_one = fire(0, 1, 0, None, PROMPT)
    assert found(result, case.expect) == {}, result.error_detail
    assert next_one.reused == case.expect.kept
    assert case.expect.detail in result.error_detail
    check_stamps(result, case.expect, server.sent_ns)
    assert not server.problems


FACTS = [name for name in Expect.__struct_fields__ if hasattr(Result, name)]


def found(result: Result, expect: Expect) -> dict[str, object]:
    """What differs from the expectation."""
    facts = {name: getattr(result, name) for name in FACTS}
    facts |= {"kinds": result.chunk_kind, "sizes": result.chunk_bytes, "tokens": result.chunk_tokens}
    return {name: value for name, value in facts.items() if value != _listed(getattr(expect, name))}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def check_stamps(result: Result, expect: Expect, sent_ns: list[int]) -> None:
    """Each instant lies between the sending of what brought it and the sending of what came next."""
    assert result.sent_ns is not None
    ordered = [
        result.started_ns,
        result.sent_ns,
        *([result.first_byte_ns] if result.first_byte_ns else []),
        *result.chunk_ns,
    ]
    assert ordered == sorted(ordered)
    assert max(ordered) <= result.done_ns
    bounds = [*sent_ns, result.done_ns + 10**9]
    assert len(result.chunk_ns) == len(expect.at)
    instants = [
        *zip(result.chunk_ns, expect.at, strict=True),
        *([(result.done_ns, expect.done_at)] if expect.done_at is not None else []),
    ]
    for instant_ns, read in instants:
        assert bounds[read] <= instant_ns < bounds[read + 1], (read, instant_ns, bounds)
