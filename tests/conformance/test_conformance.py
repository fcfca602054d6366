"""Every case of cases.py, as a real server sends it over a real socket."""

import ssl

import msgspec
import pytest
import trustme

from loadtest.types import Result, Target
from tests.conformance import cases
from tests.conformance.cases import Case, Expect
from tests.conformance.harness import PROMPT, firing
from tests.conformance.server import Step, serving
from tests.conformance.voices import CHAT, COMPLETIONS, HTTP, Voice, document

ALL = [(voice, case) for voice in (CHAT, COMPLETIONS, HTTP) for case in cases.of(voice)]


OVER_TLS = [
    case
    for case in cases.of(CHAT)
    if not case.name.startswith(("status", "message", "delta", "odd JSON", "a ", "many"))
]
"""Where it matters: framing, line ends, codings, and each way a connection may end."""


@pytest.mark.parametrize(("voice", "case"), ALL, ids=[f"{voice.dialect}: {case}" for voice, case in ALL])
def test_an_answer_becomes_its_result(voice: Voice, case: Case) -> None:
    check(voice, case)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's side, and the file in which a client finds whom to trust."""
    ca, path = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(path))
    return context, str(path)


@pytest.mark.parametrize("case", OVER_TLS, ids=str)
def test_and_so_it_does_over_tls(case: Case, authority: tuple[ssl.SSLContext, str]) -> None:
    check(CHAT, case, *authority)


def check(voice: Voice, case: Case, tls: ssl.SSLContext | None = None, ca_file: str | None = None) -> None:
    again: Step = document(voice.whole("Hi"))
    scripts: list[list[Step]] = [["read request", *case.sends, "read request", again], ["read request", again]]
    with serving(*scripts, tls=tls) as server:
        target = msgspec.convert(
            {
                "name": "t",
                "url": f"http{'s' * (tls is not None)}://127.0.0.1:{server.port}/v1",
                "ca_file": ca_file,
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
