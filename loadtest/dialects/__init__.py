"""One module a wire dialect; its file name, with dashes, is its name in a plan. Pure functions, no I/O.

A dialect says how a prompt becomes an HTTP request and what the answer's bytes mean; sockets and clocks are the wire's.
`load` returns the module itself, which has what `Dialect` lists; a name that begins with an underscore is shared code.
"""

import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Literal, Protocol, cast
from urllib.parse import urlsplit

from msgspec import Struct, field

from loadtest.prompts import Prompt
from loadtest.types import Target


class Head(Struct, frozen=True):
    """What is the same in all requests to a target, whatever they ask."""

    method: str
    path: str  # with the query
    headers: list[tuple[str, str]]


class Decoded(Struct):
    """What an answer said. Chunks are three arrays of one length; `chunk_at` is the index of the piece that ended
    each."""

    chunk_at: list[int] = field(default_factory=list)
    chunk_kind: list[int] = field(default_factory=list)
    chunk_bytes: list[int] = field(default_factory=list)  # of the text or tool call it carried, as UTF-8
    texts: list[str] = field(default_factory=list)  # of each chunk, where they were asked for
    answer: list[str] = field(default_factory=list)  # as `texts`, without reasoning and tool calls: what is told on
    totals: list[tuple[int, int]] = field(default_factory=list)  # (chunk, output tokens up to it) where it told
    terminal_at: int | None = None  # index of the piece that ended the terminal marker
    finish_reason: str = ""
    response_id: str = ""
    response_model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    error: tuple[Literal["error_event", "malformed", "truncated", "empty"], str] | None = None


class Dialect(Protocol):
    OPERATION: str
    """gen_ai.operation.name of the spans"""
    TERMINAL: bytes
    """The data of the event after which a stream has nothing more to say; empty where there is none."""

    def check(self, target: Target) -> list[str]:
        """What is wrong with a target of a plan: sentences that begin with the key's name."""

    def head(self, target: Target, key: str | None) -> Head: ...

    def body(self, target: Target, prompt: Prompt) -> bytes:
        """The same bytes for the same arguments, always."""

    def streams(self, target: Target) -> bool:
        """Whether the answer is asked for as a stream of events."""

    def accepts(self, target: Target, status: int) -> bool:
        """Whether this HTTP status is the one of a success."""

    def decode_stream(self, pieces: Sequence[bytes], keep_texts: bool = False) -> Decoded:
        """`keep_texts` for whoever wants to tokenise them, or to go on with the answer."""

    def decode_body(self, body: bytes, keep_texts: bool = False) -> Decoded: ...


def names() -> list[str]:
    """As they are written in a plan."""
    modules = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return sorted(name.replace("_", "-") for name in modules)


@cache
def load(name: str) -> Dialect:
    """The module of a dialect; ValueError for a name that has none."""
    if name not in names():
        raise ValueError(f"dialect {name!r} is not known; it must be one of {', '.join(names())}")
    return cast(Dialect, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def check(target: Target) -> list[str]:
    """What no request to this target could survive, found before the first: its dialect, address, headers and body."""
    if target.dialect not in names():
        close = get_close_matches(target.dialect.lower(), names(), n=1, cutoff=0.8)
        meant = f"; did you mean {close[0]}?" if close else ""
        return [f"dialect is {target.dialect!r}; it must be one of {', '.join(names())}{meant}"]
    return _check_url(target.url) + _check_headers(target) + load(target.dialect).check(target)


def _check_url(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        port_is_usable = parts.port != 0
    except ValueError as e:
        return [f"url is {url!r}, which cannot be read ({e}); write https://host[:port]/path"]
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_usable:
        return [f"url is {url!r}; it must be http:// or https://, a host, and a path"]
    if parts.username is not None:
        return ["url holds a user name; put credentials into `key` (env:NAME or file:PATH) and headers"]
    if not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
        return [f"url is {url!r}; characters other than printable ASCII must be percent-encoded (the host as punycode)"]
    return []


def _check_headers(target: Target) -> list[str]:
    problems = []
    for name, value in target.headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            problems.append(f"headers has {name!r}, which is not a name of an HTTP header")
        elif name.lower() in ("content-length", "transfer-encoding", "connection", "expect", "traceparent"):
            problems.append(f"headers.{name} cannot be set: it is written for each request")
        elif re.search(r"[^\t\x20-\x7e\x80-\xff]", value):
            problems.append(f"headers.{name} holds a character that an HTTP header cannot carry")
        elif "{key}" in value and target.key is None:
            problems.append(f"headers.{name} mentions {{key}}, but the target has no key; add key: env:NAME")
    return problems


def headers(target: Target, key: str | None, defaults: Mapping[str, str]) -> list[tuple[str, str]]:
    """A dialect's own headers with the plan's over them, whatever their case; `{key}` in a value becomes the key.

    Where the plan says itself which header carries the key (`api-key: "{key}"`), the default one is not sent.
    """
    named = {name.lower(): (name, value) for name, value in defaults.items()}
    if any("{key}" in value for value in target.headers.values()):
        named.pop("authorization", None)
    for name, value in target.headers.items():
        named[name.lower()] = (name, value.replace("{key}", key or ""))
    return list(named.values())


def text_of(prompt: Prompt) -> str:
    """The prompt as one text, for dialects without messages: the text of each message, a line break between them."""
    return "\n".join(_message_text(message.get("content")) for message in prompt.messages)


def _message_text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
