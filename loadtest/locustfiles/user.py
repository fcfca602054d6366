"""InferenceUser: token-level calls for authors of locustfiles, on this tool's own wire.

    from loadtest import InferenceUser
    from locust import between, task

    class Chat(InferenceUser):
        host = "https://inference.acme.example/v1"
        model = "llama-3.1-70b"
        key = "env:ACME_LOADTEST_KEY"
        wait_time = between(1, 5)

        @task
        def ask(self):
            answer = self.client.chat("What is a locust?", max_tokens=100)
            print(answer.ttft_ms, answer.output_tokens, answer.error)

Chunks are stamped by the kernel, as those of a plan. Under `loadtest run --locustfile` the whole timeline is the row; under
plain `locust` its table has, beside the answer's time, a line of type TTFT.
"""

import locust  # first: it monkey-patches what every other module imports  # isort: skip

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from time import time_ns
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from locust.exception import CatchResponseError, StopTest
from msgspec.structs import replace

from loadtest import dialects
from loadtest.dialects import Decoded
from loadtest.fire import Form, fly, one_line
from loadtest.plan import secret
from loadtest.prompts import Prompt
from loadtest.types import TOKEN_KINDS, ChunkKind, ErrorWord, Result, Target, Timeouts
from loadtest.wire import Flight, Wire

Messages = str | Sequence[Mapping[str, Any]]
NAME = "endpoint"  # of the target, within the wire


class RequestFailed(Exception):
    """What Locust's listeners get as `exception`: the error word and its detail."""

    def __init__(self, word: ErrorWord, detail: str) -> None:
        super().__init__(f"{word}: {detail}" if detail else word)


class Fleet:
    """What the fleet does for its workers, and plain Locust does not: None of it is there then."""

    keys: ClassVar[Mapping[str, str]] = {}  # name of a user's class -> secret, found by the driver
    present: ClassVar[bool] = False

    watch: ClassVar[Callable[[str, str], AbstractContextManager[None]]] = staticmethod(lambda *_: nullcontext())
    """Around each request while it is in flight: its name, its URL."""


class InferenceUser(locust.User):  # type: ignore[misc]
    """A user of an OpenAI-compatible endpoint. `host` is its base URL, with the version: https://host/v1."""

    abstract = True
    model: str = ""
    key: str | None = None  # env:NAME or file:PATH (from the directory of the file that says so), never the key itself
    headers: Mapping[str, str] = {}
    body: Mapping[str, Any] = {}  # merged into each request's JSON body
    stream: bool = True
    continuous_usage: bool = False  # ask for the usage so far in every chunk (vLLM, SGLang), for tokens per chunk
    timeouts: Timeouts = Timeouts()
    ca_file: str | None = None

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        if not self.host:
            raise StopTest(f"{type(self).__name__} has no host; set it in the class or give --host https://host/v1")
        self.client = InferenceClient(self)

    @classmethod
    def key_reference(cls) -> str | None:
        """With the path made absolute."""
        kind, _, path = (cls.key or "").partition(":")
        says_so = next(owner for owner in cls.__mro__ if "key" in vars(owner))
        beside = os.path.dirname(os.path.abspath(inspect.getfile(says_so)))
        return f"file:{os.path.join(beside, os.path.expanduser(path))}" if kind == "file" else cls.key

    @classmethod
    def own_secret(cls) -> str | None:
        """Raises ValueError, which never quotes one."""
        if cls.key is None:
            return None
        if not cls.key.startswith(("env:", "file:")):
            raise ValueError(f"{cls.__name__}.key must be env:NAME or file:PATH, never the key itself")
        return Fleet.keys.get(cls.__name__) or secret(cls.key_reference() or "", os.environ)

    def target(self, dialect: str) -> Target:
        return Target(
            name=NAME,
            url=self.host,
            dialect=dialect,
            model=self.model,
            headers=dict(self.headers),
            body=dict(self.body),
            stream=self.stream,
            continuous_usage=self.continuous_usage,
            timeouts=self.timeouts,
            ca_file=self.ca_file,
        )


class Completion:
    """What came of a call. Under `catch_response=True` it is a context manager, as Locust's responses are."""

    def __init__(self, result: Result, decoded: Decoded, report: Callable[["Completion"], None]) -> None:
        self.result = result
        self.exception: Exception | None = None
        if result.error is not None:
            self.exception = RequestFailed(result.error, result.error_detail)
        self.text = _text(decoded, ChunkKind.CONTENT)
        self.reasoning = _text(decoded, ChunkKind.REASONING)
        self._report = report

    @property
    def error(self) -> str | None:
        """The error word, or what `failure` was told; None for a success."""
        if isinstance(self.exception, RequestFailed):
            return self.result.error
        return str(self.exception) if self.exception else None

    @property
    def status_code(self) -> int:
        return self.result.status or 0

    @property
    def finish_reason(self) -> str:
        return self.result.finish_reason

    @property
    def input_tokens(self) -> int | None:
        return self.result.input_tokens

    @property
    def output_tokens(self) -> int | None:
        return self.result.output_tokens

    @property
    def ttft_ms(self) -> float | None:
        """To the first chunk with a token, reasoning too; None where there is none, or nothing was streamed."""
        offsets_ms = self.chunk_ms
        return offsets_ms[0] if offsets_ms and self.result.streamed else None

    @property
    def chunk_ms(self) -> list[float]:
        """When each chunk with a token came, from the sending of the request on."""
        r = self.result
        sent_ns = r.sent_ns or r.started_ns
        pairs = zip(r.chunk_ns, r.chunk_kind, strict=True)
        return [(at_ns - sent_ns) / 1e6 for at_ns, kind in pairs if kind in TOKEN_KINDS]

    @property
    def e2e_ms(self) -> float:
        return (self.result.done_ns - (self.result.sent_ns or self.result.started_ns)) / 1e6

    def failure(self, why: str | Exception) -> None:
        self.exception = why if isinstance(why, Exception) else CatchResponseError(why)

    def success(self) -> None:
        self.exception = None

    def __enter__(self) -> "Completion":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.exception = error
        self._report(self)


class InferenceClient:
    def __init__(self, user: InferenceUser) -> None:
        self._user = user
        self._targets: dict[str, Target] = {}
        try:
            self._key = user.own_secret()
        except ValueError as e:
            raise StopTest(f"{type(user).__name__} has no usable key: {e}") from None

    def chat(self, messages: Messages, *, max_tokens: int | None = None, **more: Any) -> Completion:
        """POST {host}/chat/completions. `messages`: a list of them, or the text of one.

        `name` groups requests in Locust's table and the report; `context` and `catch_response` are as Locust's; whatever
        else is named is a field of the request's body.
        """
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        return self._call("openai-chat", said, max_tokens, **more)

    def complete(self, prompt: str, *, max_tokens: int | None = None, **more: Any) -> Completion:
        """POST {host}/completions; the rest as `chat`."""
        return self._call("openai-completions", [{"role": "user", "content": prompt}], max_tokens, **more)

    def _call(
        self,
        dialect: str,
        messages: list[dict[str, Any]],
        max_tokens: int | None,
        *,
        name: str = "",
        context: Mapping[str, Any] | None = None,
        catch_response: bool = False,
        **body: Any,
    ) -> Completion:
        target = self._target(dialect)
        kind = dialects.load(dialect).OPERATION
        name = name or target.model or urlsplit(target.url).hostname or ""
        asked = replace(target, body={**target.body, **body}) if body else target
        with Fleet.watch(f"{kind} {name}", target.url):
            result, decoded = self._ask(asked, Prompt("", messages, max_tokens))
        answer = Completion(result, decoded, lambda done: self._fire(done, kind, name, context))
        if not catch_response:
            self._fire(answer, kind, name, context)
        return answer

    def _ask(self, target: Target, prompt: Prompt) -> tuple[Result, Decoded]:
        started_ns = time_ns()
        result = Result(
            run="",
            stage="",
            seq=0,
            target="",
            worker=0,
            trace_id=os.urandom(16).hex(),
            max_tokens=prompt.max_tokens,
            started_ns=started_ns,
            done_ns=started_ns,
            attributes={"gen_ai.request.model": target.model},
        )
        decoded = Decoded()
        try:
            wire = _wire(msgspec.json.encode(replace(target, body={})))
            form = _form(msgspec.json.encode(target), self._key)
            decoded = fly(wire, result, form, prompt, "unsampled", Flight(), keep_texts=True)
        except Exception as e:  # noqa: BLE001 ours, whatever it is, and not the endpoint's
            result.error, result.error_detail = "generator", f"{type(e).__name__}: {e}"
            result.done_ns = time_ns()
        if result.error_detail:
            result.error_detail = one_line(result.error_detail, self._key)
        return result, decoded

    def _target(self, dialect: str) -> Target:
        if dialect not in self._targets:
            target = self._user.target(dialect)
            if wrong := dialects.check(target):
                raise StopTest(f"{type(self._user).__name__}: {wrong[0]}")
            self._targets[dialect] = target
        return self._targets[dialect]

    def _fire(self, answer: Completion, kind: str, name: str, context: Mapping[str, Any] | None) -> None:
        result, request = answer.result, self._user.environment.events.request
        told = {"ttft_ms": answer.ttft_ms, "output_tokens": answer.output_tokens, "input_tokens": answer.input_tokens}
        meta = {
            "name": name,
            "response_length": result.response_bytes,
            "response": answer,
            "context": {**self._user.context(), **told, **(context or {})},
            "start_time": (result.sent_ns or result.started_ns) / 1e9,
            "url": self._user.host,
        }
        request.fire(request_type=kind, response_time=answer.e2e_ms, exception=answer.exception, **meta)
        if not Fleet.present and answer.ttft_ms is not None:
            request.fire(request_type="TTFT", response_time=answer.ttft_ms, exception=None, **meta)


@cache
def _wire(encoded: bytes) -> Wire:
    """One for all users of an endpoint in this process, so that connections are kept as under a plan."""
    return Wire([msgspec.json.decode(encoded, type=Target)])


@lru_cache(maxsize=256)
def _form(encoded: bytes, key: str | None) -> Form:
    target = msgspec.json.decode(encoded, type=Target)
    return Form.of(target, {target.name: key} if key else {})


def _text(decoded: Decoded, wanted: ChunkKind) -> str:
    pairs = zip(decoded.texts, decoded.chunk_kind, strict=False)
    return "".join(text for text, kind in pairs if kind == wanted)
