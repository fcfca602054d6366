"""How each dialect says the same things, as JSON and as the bytes of an HTTP answer."""

import json
from typing import Any

from msgspec import Struct

from loadtest.types import Target


class Voice(Struct, frozen=True):
    dialect: str

    def target(self, url: str, **more: Any) -> Target:
        return Target(name="t", url=url, dialect=self.dialect, model="m", **more)

    def content(self, text: str, **more: Any) -> bytes:
        return self.delta({"content": text}, text=text, **more)

    def nothing(self) -> bytes:
        return self.delta({"role": "assistant", "content": ""}, text="")

    def finish(self, reason: str = "stop") -> bytes:
        return self.delta({}, text="", finish_reason=reason)

    def delta(self, delta: dict[str, Any] | None, text: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta} if self.dialect == "openai-chat" else {"index": 0, "text": text}
        return self.chunk(choices=[{**choice, **more}])

    def usage(self, prompt: int, completion: int, **more: Any) -> bytes:
        return self.chunk(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": completion, **more})

    def chunk(self, **fields: Any) -> bytes:
        return json.dumps({"id": "c-1", "model": "m-1", **fields}, ensure_ascii=False).encode()

    def whole(self, text: str, usage: tuple[int, int] = (7, 2)) -> bytes:
        """The answer to a request that asked for no stream."""
        said = {"message": {"role": "assistant", "content": text}} if self.dialect == "openai-chat" else {"text": text}
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        return self.chunk(choices=[{"index": 0, **said, "finish_reason": "stop"}], usage=counts)


CHAT, COMPLETIONS, HTTP = Voice("openai-chat"), Voice("openai-completions"), Voice("http")
DONE = b"[DONE]"


def event(data: bytes, end: bytes = b"\n", name: bytes = b"") -> bytes:
    return (b"event: " + name + end if name else b"") + b"data: " + data + end + end


def head(*lines: str, status: str = "200 OK", version: str = "HTTP/1.1", kind: str = "text/event-stream") -> bytes:
    return "\r\n".join([f"{version} {status}", *([f"Content-Type: {kind}"] if kind else []), *lines, "", ""]).encode()


CHUNKED = head("Transfer-Encoding: chunked")
LAST = b"0\r\n\r\n"


def chunked(body: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(body), extension, body)


def document(body: bytes, *lines: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    return head(f"Content-Length: {len(body)}", *lines, status=status, kind=kind) + body
