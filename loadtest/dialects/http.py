"""http: any method, any path, a JSON body from a template; a success is the status that the plan expects.

Strings in `body`, at any depth, may hold `{prompt}` (the prompt's text), `{model}`, `{max_tokens}` and `{id}` (the
prompt's); a string that is nothing but `{max_tokens}` becomes the number, one that is nothing but `{messages}` the list
of messages. `{{` and `}}` stand for single braces. The answer's body is read to its end and not looked into.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from loadtest.dialects import Decoded, Head, headers, text_of
from loadtest.prompts import Prompt
from loadtest.types import Target

OPERATION = "http"
TERMINAL = b""
PLACEHOLDERS = ("prompt", "model", "max_tokens", "id")
_BRACES = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_encode = msgspec.json.Encoder().encode


def check(target: Target) -> list[str]:
    problems = []
    if not re.fullmatch(r"[A-Z]+", target.method):
        problems.append(f"method is {target.method!r}; it must be a word in capitals such as GET or POST")
    if target.method == "CONNECT":
        problems.append("method is CONNECT, which opens a tunnel and gets no answer to measure")
    for text in _strings(target.body):
        if text == "{messages}":
            continue
        for found in _BRACES.findall(text):
            if found not in ("{{", "}}") and found[1:-1] not in PLACEHOLDERS:
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                problems.append(
                    f"body holds {found!r} in {text!r}; known are {known} and, as a string of its own, {{messages}}; "
                    "a brace that is meant as such is written twice"
                )
    return problems


def sends_prompts(target: Target) -> bool:
    """Of a target of any dialect."""
    filled = [text for text in _strings(target.body) if text == "{messages}" or "{prompt}" in _BRACES.findall(text)]
    return target.dialect != "http" or bool(filled)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def head(target: Target, key: str | None) -> Head:
    defaults = {"Accept": "*/*"}
    if target.body:
        defaults["Content-Type"] = "application/json"
    url = urlsplit(target.url)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return Head(target.method, path, headers(target, key, defaults))


def body(target: Target, prompt: Prompt) -> bytes:
    """GET, HEAD and whatever else has no `body` in the plan are sent without one."""
    if not target.body:
        return b""
    values = {"prompt": text_of(prompt), "model": target.model, "max_tokens": prompt.max_tokens, "id": prompt.id}
    return _encode(_filled(target.body, values, prompt))


def _filled(value: object, values: Mapping[str, str | int | None], prompt: Prompt) -> object:
    if isinstance(value, Mapping):
        return {name: _filled(inner, values, prompt) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values, prompt) for inner in value]
    if value == "{messages}":
        return prompt.messages
    if value == "{max_tokens}":
        return prompt.max_tokens
    if isinstance(value, str):
        return _BRACES.sub(lambda found: _fill(found.group(), values), value)
    return value


def _fill(found: str, values: Mapping[str, str | int | None]) -> str:
    if found in ("{{", "}}"):
        return found[0]
    value = values.get(found[1:-1], found)
    return "" if value is None else str(value)


def streams(_target: Target) -> bool:
    return False


def accepts(target: Target, status: int) -> bool:
    return status == target.expect_status


def decode_stream(_pieces: Sequence[bytes], _keep_texts: bool = False) -> Decoded:
    return Decoded()


def decode_body(_body: bytes, _keep_texts: bool = False) -> Decoded:
    return Decoded()
