"""`"simulate": {...}` in a request's body: exactly what the answer shall be, so that a test knows the right figures
before it runs. A scripted request bypasses the batching model, the rate limit and the profile's faults.
"""

import re
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from loadtest.simulator.profile import STATUS_FAULTS, Fault
from loadtest.types import ChunkKind

FORMS: dict[str, tuple[str, ...]] = {
    # the message ends properly but the stream has no marker and no finish reason; or the connection just closes
    "truncated": ("clean", "eof"),
    # an event that is not JSON; not UTF-8; a status line that is not HTTP; a chunk size that is no number
    "malformed": ("json", "utf8", "http", "chunk"),
    # `data: {"error": ...}`; or the same under `event: error`
    "error_event": ("data", "event"),
    # role, finish reason and marker without any token; the marker alone; a body of 0 bytes
    "empty": ("events", "done", "body"),
    "reset": ("mid_body", "after_headers", "before_headers"),
}
"""Error word -> the forms it can take, the default first. Words that are not here take one form."""

LARGEST = {
    "ttft_ms": 3_600_000, "role_ms": 3_600_000, "gaps_ms": 3_600_000, "end_ms": 3_600_000, "stall_s": 3_600,
    "chunks": 100_000, "reasoning": 100_000, "tool_calls": 100_000, "tokens_per_chunk": 1_000, "error_after": 100_000,
    "retry_after_s": 3_600,
}  # fmt: skip
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE = re.compile(r"[\t -~\xa0-\xff]*")

DEFAULT_CHUNKS = 16
STATUS_OF = {"rate_limited": 429, "overloaded": 503, "http_5xx": 500, "http_4xx": 400, "redirect": 307}


class Script(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the answer shall be. Times count from the moment the request was read.

    `gaps_ms` are the gaps between writes, and `events_per_write` puts several events into one. A number of `chunks`,
    `reasoning` or `tool_calls` means so many chunks of made-up text; a list gives their texts. Where a list of gaps or
    tokens is shorter than what it describes, its last value repeats.
    """

    # when
    ttft_ms: float = 0  # the first token chunk, or the whole answer where nothing is streamed
    role_ms: float | None = None  # the role-only chunk; None: just before the first token chunk
    gaps_ms: float | list[float] = 0
    end_ms: float = 0  # from the last token chunk to finish reason, usage and marker
    # what
    chunks: int | list[str] | None = None  # None: as many as max_tokens, or 16; none where there are tool calls
    tokens_per_chunk: int | list[int] = 1
    reasoning: int | list[str] = 0  # chunks before the content
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    tool_calls: int | list[str] = 0  # chunks after the content: pieces of one call's arguments
    role_chunk: bool = True
    events_per_write: int = 1
    finish_reason: str | UnsetType | None = UNSET  # not given: "tool_calls" or "stop"; null: none at all
    finish_in_last_chunk: bool = False  # instead of an event of its own
    usage: bool | dict[str, Any] | None = None  # None: if asked for; an object: these figures, right or wrong
    done: bool = True  # the marker [DONE]
    # another answer than 200
    status: int | None = None
    headers: dict[str, str] = {}
    body: str | dict[str, Any] | None = None
    retry_after_s: int | None = None
    retry_after_form: Literal["seconds", "date"] = "seconds"
    # a fault
    error: Fault | None = None
    error_form: str | None = None
    error_after: int = 1  # token chunks that still come before the fault
    stall_s: float = 600  # longest time that a stalled or endless answer is kept up

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            _check_range(name, getattr(self, name), largest)
        if self.role_ms is not None and self.role_ms > self.ttft_ms:
            raise ValueError(f"role_ms is {self.role_ms}; it must not exceed ttft_ms ({self.ttft_ms})")
        if self.events_per_write < 1:
            raise ValueError(f"events_per_write is {self.events_per_write}; it must be at least 1")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status is {self.status}; it must be between 200 and 599")
        _check_headers(self.headers)
        self._check_error()

    def _check_error(self) -> None:
        if self.error not in STATUS_FAULTS and self.error is not None and (self.status, self.body) != (None, None):
            raise ValueError(f"error {self.error} is a fault of an answer with status 200; leave status and body out")
        forms = FORMS.get(self.error or "", ())
        if self.error_form is not None and self.error_form not in forms:
            allowed = f"it can be {' or '.join(forms)}" if forms else "leave it out"
            raise ValueError(f"error_form is {self.error_form}; with error {self.error} {allowed}")
        if self.error is None or self.chunks is None or self.comes_before_head or self.plain_status is not None:
            return
        total = sum(len(part) if isinstance(part, list) else part for part in self._parts())
        if self.chunks_before_error > total:
            raise ValueError(f"error_after is {self.error_after}, but there are {total} chunks; lower it or add chunks")

    def _parts(self) -> tuple[int | list[str], int | list[str], int | list[str]]:
        return self.reasoning, self.chunks or 0, self.tool_calls

    @property
    def form(self) -> str:
        return self.error_form or FORMS.get(self.error or "", ("",))[0]

    @property
    def plain_status(self) -> int | None:
        """The status of an answer that is not a generation at all, else None."""
        if self.error in STATUS_FAULTS:
            return self.status or STATUS_OF[self.error]
        if self.body is not None or self.status not in (None, 200):
            return self.status or 200
        return None

    @property
    def comes_before_head(self) -> bool:
        """The fault takes the place of the answer's head."""
        faults = {("timeout_first_byte", ""), ("reset", "before_headers"), ("malformed", "http")}
        return (self.error, self.form) in faults

    @property
    def is_silent(self) -> bool:
        """The fault allows no chunk at all, not even a role."""
        return (self.error, self.form) in {("empty", "done"), ("empty", "body"), ("reset", "after_headers")}

    @property
    def chunks_before_error(self) -> int:
        return 0 if self.is_silent or self.error == "empty" else self.error_after

    @property
    def reason(self) -> str | None:
        if self.finish_reason is UNSET:
            return "tool_calls" if self.tool_calls else "stop"
        return self.finish_reason


def _check_range(name: str, value: object, largest: float) -> None:
    if value == [] and name in ("gaps_ms", "tokens_per_chunk"):
        raise ValueError(f"{name} is empty; give a number, or a list of at least one")
    for number in value if isinstance(value, list) else (value,):
        if isinstance(number, int | float) and not 0 <= number <= largest:
            raise ValueError(f"{name} is {number:g}; it must be between 0 and {largest}")


def _check_headers(headers: dict[str, str]) -> None:
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise ValueError(f"header {name!r}: {value!r} cannot be written; use a plain name and printable latin-1")
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ValueError(f"header {name} is the server's own; script what it frames with error instead")


class Beat(Struct, frozen=True):
    """One token chunk of a scripted answer."""

    kind: ChunkKind
    text: str
    tokens: int


TEXT = "the load rises and each token waits its turn in line for time to pass on"
WORDS = tuple(TEXT.split())


def words(start: int, count: int) -> str:
    """Made-up text of `count` words, each with a space before it, beginning at word number `start`."""
    return "".join(" " + WORDS[i % len(WORDS)] for i in range(start, start + count))


def beats(script: Script, max_tokens: int | None) -> list[Beat]:
    """The token chunks in order: reasoning, content, tool call."""
    chunks = script.chunks
    if chunks is None:
        chunks = 0 if script.tool_calls else max(max_tokens or DEFAULT_CHUNKS, script.error_after)
    parts = (
        (ChunkKind.REASONING, script.reasoning),
        (ChunkKind.CONTENT, chunks),
        (ChunkKind.TOOL_CALL, script.tool_calls),
    )
    out: list[Beat] = []
    for kind, texts in parts:
        for text in texts if isinstance(texts, list) else [None] * texts:
            tokens = nth(script.tokens_per_chunk, len(out))
            out.append(Beat(kind, words(len(out), tokens) if text is None else text, tokens))
    return out


def nth(values: int | list[int], index: int) -> int:
    """Value number `index`; a list's last value repeats."""
    return values[min(index, len(values) - 1)] if isinstance(values, list) else values


def last(values: float | list[float]) -> float:
    return values[-1] if isinstance(values, list) else values


def write_times_ms(script: Script) -> Iterator[float]:
    """When each write of token chunks is due, without end, from the moment the request was read."""
    gaps = script.gaps_ms if isinstance(script.gaps_ms, list) else [script.gaps_ms]
    at_ms = script.ttft_ms
    for gap_ms in chain(gaps, repeat(gaps[-1])):
        yield at_ms
        at_ms += gap_ms
