"""One sound stream, cut into reads at every byte: whatever the cut, the same chunks, each at the read that completes it."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import pytest

from tests.conformance import cases
from tests.conformance.cases import sound
from tests.conformance.harness import PROMPT, firing
from tests.conformance.server import Step, serving
from tests.conformance.test_conformance import check_stamps, found
from tests.conformance.voices import CHAT, CHUNKED, COMPLETIONS, LAST, Voice, chunked, head

FRAMINGS = ("chunked", "sized", "until closed")


def framed(framing: str, parts: Sequence[bytes]) -> list[bytes]:
    """Head, one part an event, and whatever follows the last."""
    if framing == "chunked":
        return [CHUNKED, *map(chunked, parts), LAST]
    return [head(*([f"Content-Length: {sum(map(len, parts))}"] if framing == "sized" else [])), *parts, b""]


def completions(framing: str, end: bytes, parts: Sequence[bytes]) -> list[int]:
    """Offset just past the byte that completes each event: the line end of its blank line, of CRLF the CR."""
    behind = len(b"\r\n") * (framing == "chunked") + (end == b"\r\n")
    return [offset - behind for offset in list(accumulate(map(len, framed(framing, parts))))[1:-1]]


@pytest.mark.parametrize("voice", [CHAT, COMPLETIONS], ids=lambda voice: voice.dialect)
@pytest.mark.parametrize(
    ("framing", "end"),
    [("chunked", b"\n"), ("chunked", b"\r\n"), ("chunked", b"\r"), ("sized", b"\n"), ("until closed", b"\r\n")],
    ids=str,
)
def test_each_byte_is_a_read_of_its_own(voice: Voice, framing: str, end: bytes) -> None:
    parts = cases.events(voice, end)
    answer = b"".join(framed(framing, parts))
    *chunks_end, done_end = completions(framing, end, parts)
    expect = sound(at=[offset - 1 for offset in chunks_end], done_at=done_end - 1)
    script: list[Step] = ["read request", *(answer[i : i + 1] for i in range(len(answer))), "close"]
    with serving(script) as server, firing(voice.target(f"http://127.0.0.1:{server.port}/v1")) as fire:
        result = fire(0, 0, 0, None, PROMPT)
    assert found(result, expect) == {}, result.error_detail
    check_stamps(result, expect, server.sent_ns)


@pytest.mark.parametrize("voice", [CHAT, COMPLETIONS], ids=lambda voice: voice.dialect)
def test_one_cut_at_each_byte(voice: Voice) -> None:
    """On one connection, kept alive: also the head, the framing and the end are cut."""
    parts = cases.events(voice)
    answer = b"".join(framed("chunked", parts))
    cuts = range(1, len(answer))
    script: list[Step] = [step for cut in cuts for step in ("read request", answer[:cut], answer[cut:])]  # type: ignore[misc]
    *chunks_end, done_end = completions("chunked", b"\n", parts)
    with serving(script) as server, firing(voice.target(f"http://127.0.0.1:{server.port}/v1")) as fire:
        results = [fire(0, seq, 0, None, PROMPT) for seq in range(len(cuts))]
    for index, (cut, result) in enumerate(zip(cuts, results, strict=True)):
        expect = sound(at=[bisect_right([cut], end - 1) for end in chunks_end], done_at=int(done_end > cut))
        assert found(result, expect) == {}, (cut, result.error_detail)
        check_stamps(result, expect, server.sent_ns[2 * index : 2 * index + 2])
    assert [result.reused for result in results] == [False] + [True] * (len(cuts) - 1)
