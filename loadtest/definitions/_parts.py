"""What definitions are made of: their form, and pieces of SQL over one row of `requests`."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from loadtest.metrics import OK
from loadtest.types import ChunkKind

Method = Literal["linear", "nearest", "lower", "floor"]

METHODS: dict[Method, str] = {
    "linear": "interpolated linearly, as numpy does",
    "nearest": "by nearest rank, ceil(p n)",
    "lower": "at index floor(p (n - 1)), rounded down",
    "floor": "at index floor(p n), as here",
}
"""How a percentile is read off n sorted values."""


class Tool(Struct, frozen=True, kw_only=True):
    """Whose definitions, at which version, and how its figures are made of the values."""

    name: str  # before the dot of a definition's name, and what --as takes
    title: str
    version: str
    source: str
    method: Method
    stats: tuple[str, ...]  # that it prints, in its order
    differs: str  # the short answer to why its figures are not ours
    after: str = ""  # the tool of an earlier version, whose definitions these replaced


class Definition(Struct, frozen=True, kw_only=True):
    """One figure of one tool."""

    name: str
    calls: str  # what the tool itself calls it
    of: Literal["first", "token", "end"]  # the question it answers: the first token, each token, the whole answer
    kind: Literal["request", "pooled", "weighted"] = "request"
    sql: str
    weight: str = ""
    among: str
    doc: str
    unit: str = "ms"

    @property
    def tool(self) -> str:
        return self.name.partition(".")[0]


_EMPTY, _REASONING, _CONTENT, _TOOL_CALL, _MEDIA, _USAGE = map(int, ChunkKind)


def where(kinds: Sequence[int]) -> str:
    return f"k IN ({', '.join(map(str, kinds))})"


def first(*kinds: int) -> str:
    return f"arrayFirstOrNull((t, k) -> {where(kinds)}, chunk_offset_ns, chunk_kind)"


def last(*kinds: int) -> str:
    return f"arrayLastOrNull((t, k) -> {where(kinds)}, chunk_offset_ns, chunk_kind)"


def offsets(*kinds: int) -> str:
    return f"arrayFilter((t, k) -> {where(kinds)}, chunk_offset_ns, chunk_kind)"


def counts(*kinds: int) -> str:
    """Tokens of each chunk of these kinds, where they are known."""
    counted = f"arrayFilter((c, k) -> {where(kinds)}, arrayResize(chunk_tokens, length(chunk_kind)), chunk_kind)"
    one_each = f"arrayMap(k -> 1, arrayFilter(k -> {where(kinds)}, chunk_kind))"
    return f"if(token_source = 'usage_matched', {one_each}, {counted})"


def gaps_ms(offsets: str) -> str:
    return f"arrayMap(t -> t / 1e6, arrayPopFront(arrayDifference({offsets})))"


_OUTPUT = (_REASONING, _CONTENT, _TOOL_CALL)
_CHOICE = (_EMPTY, *_OUTPUT, _MEDIA)

PIECES = {
    "connecting_ns": "ifNull(dns_dur_ns, 0) + ifNull(connect_dur_ns, 0) + ifNull(tls_dur_ns, 0)",
    "answered_ns": "done_ns - sent_ns",
    "n": "toInt64(output_tokens)",
    "first_chunk_ns": first(*_CHOICE, _USAGE),
    "last_chunk_ns": last(*_CHOICE, _USAGE),
    "first_choice_ns": first(*_CHOICE),
    "last_choice_ns": last(*_CHOICE),
    "choice_gaps_ms": gaps_ms(offsets(*_CHOICE)),
    "choices": f"arrayCount(k -> {where(_CHOICE)}, chunk_kind)",
    "first_output_ns": first(*_OUTPUT),
    "last_output_ns": last(*_OUTPUT),
    "output_gaps_ms": gaps_ms(offsets(*_OUTPUT)),
    "tokens_after_first": f"arraySum(arrayPopFront({counts(*_OUTPUT, _MEDIA)}))",
    "tokens_or_chunks": "if(token_source IN ('usage', 'usage_matched'), n, "
    f"nullIf(toInt64(arrayCount(k -> {where(_OUTPUT)}, chunk_kind)), 0))",
    "first_answer_ns": first(_CONTENT, _TOOL_CALL),
    "first_text_ns": first(_REASONING, _CONTENT),
    "last_content_ns": last(_CONTENT),
    "content_times_ns": "if(tokens_known, arrayFlatten(arrayMap((t, c) -> arrayWithConstant(c, t), "
    f"{offsets(_CONTENT)}, {counts(_CONTENT)})), {offsets(_CONTENT)})",
    "content_tokens": "multiIf(tokens_known, toNullable(toInt64(length(content_times_ns))), "
    f"hasAny(chunk_kind, [{_TOOL_CALL}, {_MEDIA}]) OR has(chunk_kind, {_REASONING}) AND reasoning_tokens IS NULL, "
    "NULL, n - ifNull(reasoning_tokens, 0))",
    "until_usage_ns": f"ifNull({last(_USAGE)}, answered_ns)",
    "due_or_begun_ns": "ifNull(due_ns, started_ns)",
}
"""Names that the definitions use, beside the columns of `requests`, and their SQL. Offsets are from `sent_ns`.

A *choice* is a chunk that carries no usage alone, *output* reasoning, content or a tool call, an *answer* content or a
tool call, *text* reasoning or content. `n` is the run's own count of output tokens.
"""

COLUMNS = (
    "fault",
    "error",
    "streamed",
    "token_source",
    "tokens_known",
    "due_ns",
    "started_ns",
    "sent_ns",
    "done_ns",
    "streamed_tokens",
    "output_tokens",
    "first_token_ns",
    "first_content_ns",
    "first_chunk_tokens",
)
"""The columns of `requests` that definitions use. What no definition asked for uses is not read."""

STREAMED = f"{OK} AND streamed"
FROM_CONNECTING = "From before DNS, connect and TLS, where the request opened a connection"


def successes_and(*words: str) -> str:
    """Successes, and failures of these words, which the tool does not notice."""
    return f"(fault = '' OR error IN ({', '.join(map(repr, words))}))"


def ms(ns: str) -> str:
    return f"({ns}) / 1e6"


def connected_ms(ns: str) -> str:
    """Of an offset from `sent_ns`, with what connecting took before."""
    return ms(f"{ns} + connecting_ns")


def per_token(first: str, last: str, n: str) -> str:
    """The average over the n - 1 tokens after the first one."""
    return f"if({n} > 1, ({last} - {first}) / 1e6 / ({n} - 1), NULL)"
