"""The simulated provider on a socket: starlette's routes, uvicorn's connections, what a request meets on its way."""

import asyncio
import contextlib
import hmac
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

import uvicorn
from msgspec import json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from loadtest.simulator import faults
from loadtest.simulator.connection import Connection, Reply
from loadtest.simulator.course import Course
from loadtest.simulator.engine import Faults, RateLimit
from loadtest.simulator.exporters import EXPOSITION, dcgm, vllm
from loadtest.simulator.generate import Pump, generate
from loadtest.simulator.gpu import Gpu
from loadtest.simulator.openai_api import Answer, ApiError, Call, error_body, parse_chat, parse_completion
from loadtest.simulator.play import play
from loadtest.simulator.prefix_cache import PrefixCache
from loadtest.simulator.profile import Profile, Tls
from loadtest.simulator.truth import Record, Truth

ERROR_HEADER = "x-simulate-error"
"""`write` in it resets the connection before the body is read: the one fault that a body cannot ask for."""
GRACE_S = 1
KEEP_ALIVE_S = 75
"""Idle connections are kept longer than a client keeps them: who closes last never races with a request."""
BACKLOG = 4096
"""As large as a burst of connects may be before the kernel refuses some."""


class Provider:
    """All that outlives a request."""

    def __init__(self, profile: Profile, key: str | None, truth_capacity: int) -> None:
        self.profile = profile
        self.course = Course(profile)
        self.pumps = [Pump(profile, r, partial(self.course.speed, r)) for r in range(profile.replicas)]
        self.gpus = [Gpu(profile, pump.engine, r, self.course) for r, pump in enumerate(self.pumps)]
        self.truth = Truth(truth_capacity)
        self.rate_limit = RateLimit(profile.rate_limit_per_s, profile.rate_limit_burst)
        self.faults = Faults(profile)
        self.prefix_cache = PrefixCache(profile.prefix_cache_tokens)
        self.created_s = int(time.time())
        self._key = key
        self._numbers = itertools.count(1)

    def number(self) -> int:
        return next(self._numbers)

    def least_loaded(self) -> Pump:
        return min(self.pumps, key=lambda pump: pump.engine.running + len(pump.engine.waiting))

    def check_key(self, request: Request) -> None:
        """Raises ApiError 401, which never repeats what was sent."""
        if self._key is None:
            return
        sent = request.headers.get("authorization", "")
        if not sent:
            message = "You didn't provide an API key; send it as Authorization: Bearer KEY"
            raise ApiError(401, message, code="missing_api_key")
        if not hmac.compare_digest(sent.encode(), f"Bearer {self._key}".encode()):
            raise ApiError(401, "Incorrect API key provided", code="invalid_api_key")

    def check_model(self, model: str) -> None:
        """Raises ApiError 404."""
        models = self.profile.models
        if models and model not in models:
            message = f"The model `{model}` does not exist; this server has {', '.join(models)}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def check_rate(self) -> None:
        """Raises ApiError 429."""
        wait_s = self.rate_limit.wait_s(asyncio.get_running_loop().time())
        if wait_s > 0:
            raise faults.status_error(429, faults.retry_after(int(-(-wait_s // 1))))

    async def models(self, request: Request) -> Response:
        self.check_key(request)
        models = [
            {"id": model, "object": "model", "created": self.created_s, "owned_by": "simulator"}
            for model in self.profile.models or (self.profile.name,)
        ]
        return _json({"object": "list", "data": models})

    async def health(self, _: Request) -> Response:
        engines = [pump.engine for pump in self.pumps]
        running, waiting = sum(e.running for e in engines), sum(len(e.waiting) for e in engines)
        return _json({"status": "ok", "running": running, "waiting": waiting})

    async def engine_metrics(self, _: Request) -> Response:
        return Response(vllm(self.profile, self.pumps), media_type=EXPOSITION)

    async def gpu_metrics(self, _: Request) -> Response:
        return Response(dcgm(self.gpus, asyncio.get_running_loop().time()), media_type=EXPOSITION)

    async def all_truth(self, _: Request) -> Response:
        return _json(self.truth.all())

    async def truth_of(self, request: Request) -> Response:
        """Raises ApiError 404."""
        key = request.path_params["id"]
        record = self.truth.get(key)
        if record is None:
            why = (
                "no such request is kept"
                if self.truth.enabled
                else "this server keeps no truth; start it with --truth 10000"
            )
            raise ApiError(404, f"Nothing is known of request {key!r}: {why}", code="not_found")
        return _json(record)


class Inference:
    """An endpoint that generates, as an ASGI application: it writes to the connection itself."""

    def __init__(self, provider: Provider, parse: Callable[[bytes], Call]) -> None:
        self._provider = provider
        self._parse = parse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.headers.get(ERROR_HEADER) == "write":
            await scope["connection"].reset()
            return
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        provider = self._provider
        number = provider.number()
        record = Record(
            id=request.headers.get("x-request-id") or f"req-{number:012x}",
            trace_id=_trace_id(request.headers.get("traceparent", "")),
            read_ns=scope["read_ns"],
        )
        provider.truth.add(record)
        reply = Reply(scope, send, record, noted=provider.truth.enabled)
        try:
            provider.check_key(request)
            await self._answer(self._parse(body), number, reply)
        except ApiError as error:
            await reply.whole(error.body, faults.JSON, status=error.status, headers=error.headers)

    async def _answer(self, call: Call, number: int, reply: Reply) -> None:
        provider = self._provider
        provider.check_model(call.model)
        reply.record.input_tokens = call.prompt_tokens
        if call.script is not None:
            await play(call.script, call, Answer(call, number, int(time.time())), reply)
            return
        provider.check_rate()
        now_s = asyncio.get_running_loop().time()
        provider.course.begin(now_s)
        faulty = provider.faults.draw(call.max_tokens or provider.profile.default_output_tokens)
        if (outage := provider.course.fault(now_s)) is not None:
            faulty = (outage, 1)
        cached_tokens = provider.prefix_cache.take(call.prompt) if provider.prefix_cache.enabled else None
        answer = Answer(call, number, int(time.time()), cached_tokens)
        await generate(provider.least_loaded(), provider.profile, call, answer, reply, faulty, cached_tokens or 0)


def _trace_id(traceparent: str) -> str:
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 4 else ""


def app(provider: Provider) -> Starlette:
    """The routes. GET /truth and /truth/{id} say what the server really did; /health how busy it is. /metrics and
    /gpu/metrics are what an engine's and a GPU's exporter show."""
    return Starlette(
        routes=[
            Route("/v1/chat/completions", Inference(provider, parse_chat), methods=["POST"]),
            Route("/v1/completions", Inference(provider, parse_completion), methods=["POST"]),
            Route("/v1/models", provider.models),
            Route("/health", provider.health),
            Route("/metrics", provider.engine_metrics),
            Route("/gpu/metrics", provider.gpu_metrics),
            Route("/truth", provider.all_truth),
            Route("/truth/{id:path}", provider.truth_of),
        ],
        exception_handlers={HTTPException: _http_error, ApiError: _api_error},
    )


def _json(content: object) -> Response:
    return Response(json.encode(content), media_type=faults.JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # starlette's signature is wider than its use
    message = f"{error.detail}: {request.method} {request.url.path}"
    body = error_body(message, "invalid_request_error")
    return Response(body, error.status_code, error.headers, faults.JSON)


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return Response(error.body, error.status, error.headers, faults.JSON)


class _Server(uvicorn.Server):
    """Says when it listens; when told to stop, stops at once: half an answer is what a stopped provider gives."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None], lifeline: BinaryIO | None) -> None:
        super().__init__(config)
        self._listening = listening
        self._lifeline = lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._read_lifeline, self._lifeline)
        self._listening()

    def _read_lifeline(self, lifeline: BinaryIO) -> None:
        if not os.read(lifeline.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(lifeline)
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await super().shutdown(sockets)


def serve(
    profile: Profile,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    key: str | None = None,
    tls: Tls | None = None,
    truth_capacity: int = 0,
    ready: Callable[[str], None] = print,
    lifeline: BinaryIO | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or the end of `lifeline`.

    `ready` is called with the URL (without /v1) once requests are accepted; port 0 takes a free one. `key` is the
    secret that requests must bring, `truth_capacity` how many requests' true times are kept. Raises OSError where it
    cannot listen.
    """
    with listen(host, port) as listener:
        scheme = "https" if tls else "http"
        name = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{name}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            app(Provider(profile, key, truth_capacity)),
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
        server = _Server(config, lambda: ready(url), lifeline)
        with _signals_handled(server):
            server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. OSError says what would help."""
    # TCP must be named, for connections take it from here: only then does asyncio switch Nagle's algorithm off
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}; take another port") from None
    return listener


@contextlib.contextmanager
def _signals_handled(server: _Server) -> Iterator[None]:
    """Let the process end with status 0.

    uvicorn raises the signal that stopped it once more, for whoever handled it before: that is the server again. Only
    the main thread gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
