"""One shot: encode, send, wait, decode, and say what happened.

`Fire` never raises for anything the endpoint or the network does: failure is data. An error of our own becomes the
error word `generator`. Which word wins where several would fit: the HTTP status, if it is not the one hoped for; then
an error that the server itself reports in its stream; then what broke the connection or the patience; then what the
bytes lack. A stream whose terminal marker came is a success, however its connection ended.
"""

import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time_ns
from typing import Literal
from urllib.parse import urlsplit

import gevent
from msgspec import Struct

from loadtest import __version__, counts, dialects, proxies, tokens
from loadtest.dialects import Decoded, Dialect, Head
from loadtest.prompts import TURN_SEQS, Prompt
from loadtest.proxies import Proxy
from loadtest.types import ErrorWord, Plan, Result, Target, trace_id
from loadtest.wire import Answer, Broken, Flight, Wire, decoded_pieces

USER_AGENT = f"loadtest/{__version__}"
REQUEST_ID_HEADERS = (
    b"x-request-id", b"request-id", b"x-amzn-requestid", b"apim-request-id", b"x-ms-request-id", b"cf-ray",
)  # fmt: skip
Trace = Literal["off", "unsampled", "sampled"]
DETAIL_CHARACTERS = 300
BODY_CHARACTERS_IN_DETAIL = 4000


class Fire:
    """Fires the shots of one worker: `fire(stage, seq, target, due_ns, prompt)`, in a greenlet of the thread that
    made it."""

    def __init__(self, plan: Plan, keys: Mapping[str, str], run: str, worker: int) -> None:
        self._plan = plan
        self._keys = keys
        self._run = run
        self._worker = worker
        references = [target.tokenizer or plan.tokenizer for target in plan.targets]
        self._tokenizers = [tokens.opened(path) if path else None for path in references]
        self._forms = [Form.of(target, keys) for target in plan.targets]
        self._flights: dict[gevent.Greenlet, Flight] = {}
        self._wire = Wire(plan.targets, keys)

    def __call__(
        self,
        stage: int,
        seq: int,
        target: int,
        due_ns: int | None,
        prompt: Prompt,
        *,
        attempt: int = 0,
        answers: dict[int, str] | None = None,
    ) -> Result:
        """`answers`: of a conversation, where what the model says is noted by its turn."""
        started_ns = time_ns()
        spec = self._plan.stages[stage]
        name = self._plan.targets[target].name
        result = Result(
            run=self._run,
            stage=spec.name,
            seq=seq,
            target=name,
            worker=self._worker,
            trace_id=trace_id(self._run, spec.name, seq, name, attempt),
            kind=self._plan.kind,
            warmup=spec.warmup,
            attempt=attempt,
            max_tokens=prompt.max_tokens,
            due_ns=due_ns,
            started_ns=started_ns,
            done_ns=started_ns,
            proxy=self._forms[target].proxy,
        )
        greenlet = gevent.getcurrent()
        flight = self._flights[greenlet] = Flight()
        try:
            self._fly(result, target, prompt, flight, answers)
        except Exception as e:  # noqa: BLE001 ours, whatever it is; the run goes on and says so
            result.error, result.error_detail = "generator", f"{type(e).__name__}: {e}"
            result.done_ns = time_ns()
        finally:
            self._flights.pop(greenlet, None)
        if result.error_detail:
            for key in (self._keys.get(name), self._keys.get(proxies.key_name(name))):
                result.error_detail = one_line(result.error_detail, key)
        return result

    def cancel(self, greenlet: gevent.Greenlet) -> None:
        """End what this greenlet has in flight, if anything: its result is `cancelled`, with what was measured."""
        flight = self._flights.get(greenlet)
        if flight is not None:
            flight.cancel()

    def end_conversation(self, seq: int, target: int) -> None:
        """The one that began with `seq` has no further turn."""
        self._wire.release(self._plan.targets[target].name, seq)

    def close(self) -> None:
        self._wire.close()

    def _fly(self, result: Result, index: int, prompt: Prompt, flight: Flight, answers: dict[int, str] | None) -> None:
        tokenizer = self._tokenizers[index]
        keep_texts = tokenizer is not None or answers is not None
        decoded = fly(self._wire, result, self._forms[index], prompt, self._plan.trace, flight, keep_texts=keep_texts)
        if answers is not None:
            answers[result.seq // TURN_SEQS] = "".join(decoded.answer)
        if tokenizer is not None and decoded.texts:
            counts.fill_in(result, decoded, tokenizer, prompt)


def fly(
    wire: Wire,
    result: Result,
    form: "Form",
    prompt: Prompt,
    trace: Trace,
    flight: Flight,
    *,
    keep_texts: bool,
) -> Decoded:
    """Encode, send, wait, decode: what happened is noted in `result`, what was said is returned."""
    answer = wire.exchange(
        form.target.name,
        form.request(form.dialect.body(form.target, prompt), _traceparent(result.trace_id, trace)),
        flight,
        bodiless=form.bodiless,
        terminal=form.terminal,
        conversation=result.seq % TURN_SEQS if form.target.connections == "conversation" else None,
    )
    _note_answer(result, answer)
    return _note_meaning(result, answer, form, keep_texts=keep_texts)


# the way out


class Form(Struct, frozen=True):
    """What is the same in all requests to a target, whatever they ask."""

    target: Target
    dialect: Dialect
    streams: bool
    head: bytes  # up to the headers that are of one request alone
    bodiless: bool  # the answers
    terminal: bytes
    proxy: str

    @classmethod
    def of(cls, target: Target, keys: Mapping[str, str]) -> "Form":
        dialect = dialects.load(target.dialect)
        head = dialect.head(target, keys.get(target.name))
        proxy = proxies.of(target, keys.get(proxies.key_name(target.name)))
        streams = dialect.streams(target)
        return cls(
            target=target,
            dialect=dialect,
            streams=streams,
            head=_head(head, target, proxy if target.url.startswith("http:") else None),
            bodiless=head.method == "HEAD",
            terminal=dialect.TERMINAL if streams else b"",
            proxy=str(proxy or ""),
        )

    def __repr__(self) -> str:
        return f"Form(of {self.target.name}, its head hidden)"  # it may hold a key

    def request(self, body: bytes, traceparent: str) -> bytes:
        """The request as it is written to the socket."""
        traced = b"traceparent: %b\r\n" % traceparent.encode() if traceparent else b""
        if body or self.head.startswith((b"POST ", b"PUT ", b"PATCH ")):
            return b"%b%bContent-Length: %d\r\n\r\n%b" % (self.head, traced, len(body), body)
        return b"%b%b\r\n" % (self.head, traced)


def _head(head: Head, target: Target, forwarder: Proxy | None) -> bytes:
    """`Host` and `User-Agent` of the plan stand before ours. `forwarder`: a proxy that is to know where it goes."""
    host = _host_header(target)
    names = {name.lower() for name, _ in head.headers}
    lines = [f"{head.method} {f'http://{host}' if forwarder else ''}{head.path} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {host}")
    if target.connections == "fresh":
        lines.append("Connection: close")
    if forwarder is not None and forwarder.authorization:
        lines.append(f"Proxy-Authorization: {forwarder.authorization}")
    if "user-agent" not in names:
        lines.append(f"User-Agent: {USER_AGENT}")
    if "accept-encoding" not in names:
        lines.append("Accept-Encoding: identity")
    lines += [f"{name}: {value}" for name, value in head.headers]
    return "\r\n".join([*lines, ""]).encode("latin-1")


def _traceparent(trace: str, mode: Trace) -> str:
    return "" if mode == "off" else f"00-{trace}-{trace[16:]}-{'01' if mode == 'sampled' else '00'}"


def _host_header(target: Target) -> str:
    url = urlsplit(target.url)
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if url.port in (None, 443 if url.scheme == "https" else 80) else f"{host}:{url.port}"


# the way back


def _note_answer(result: Result, answer: Answer) -> None:
    """What the wire saw."""
    result.sent_ns = answer.sent_ns
    result.done_ns = answer.done_ns
    result.dns_dur_ns = answer.dns_dur_ns
    result.connect_dur_ns = answer.connect_dur_ns
    result.tls_dur_ns = answer.tls_dur_ns
    result.first_byte_ns = answer.stamps[0] if answer.stamps else None
    result.status = answer.status
    result.reused = answer.reused
    result.reconnects = answer.reconnects
    result.remote_address = answer.remote_address
    result.request_bytes = answer.request_bytes
    result.response_bytes = answer.response_bytes
    result.tcp_rtt_us = answer.rtt_us
    result.tcp_retransmits = answer.retransmits
    for name in REQUEST_ID_HEADERS:
        if name in answer.headers:
            result.request_id = _short(answer.headers[name].decode("latin-1"))
            break
    if retry_after := answer.headers.get(b"retry-after"):
        result.retry_after_s = retry_after_s(retry_after.decode("latin-1"), time.time())


def _note_meaning(result: Result, answer: Answer, form: Form, *, keep_texts: bool) -> Decoded:
    """What the dialect makes of it, and how it ended."""
    target, dialect = form.target, form.dialect
    result.streamed = form.streams
    decoded = Decoded()
    broken: Broken | None = None
    if answer.status is not None and dialect.accepts(target, answer.status):
        try:
            pieces = decoded_pieces(answer)
            if result.streamed and _is_whole_json(answer, pieces):
                result.streamed = False  # asked for a stream, answered in one
            if result.streamed:
                decoded = dialect.decode_stream(pieces, keep_texts)
            elif answer.complete:
                decoded = dialect.decode_body(b"".join(pieces), keep_texts)
        except Broken as e:
            broken = e
    _note_chunks(result, answer, decoded)
    counts.note_usage(result, decoded)
    result.finish_reason = _short(decoded.finish_reason)
    result.response_id = _short(decoded.response_id)
    result.response_model = _short(decoded.response_model)
    error = _error(answer, decoded, broken, form)
    if error is not None:
        result.error, result.error_detail = error
    return decoded


def _is_whole_json(answer: Answer, pieces: Sequence[bytes]) -> bool:
    """Whether what was to be a stream of events is one document, by its type or, where that is no help, its first
    byte."""
    kind = answer.headers.get(b"content-type", b"").lower()
    if kind.startswith(b"text/event-stream"):
        return False
    if kind.startswith((b"application/json", b"text/html")):
        return True
    return b"".join(pieces[:4]).lstrip()[:1] in (b"{", b"[", b"<")


def _note_chunks(result: Result, answer: Answer, decoded: Decoded) -> None:
    result.chunk_kind, result.chunk_bytes = decoded.chunk_kind, decoded.chunk_bytes
    if not result.streamed:
        result.chunk_ns = [answer.done_ns] * len(decoded.chunk_at)
        last = range(len(answer.stamps))[-1:]
        result.clock, result.read_lag_ns, _ = answer.certainty(last)
        return
    read_of, stamps = answer.reads_of_pieces(), answer.stamps
    reads = list(map(read_of.__getitem__, decoded.chunk_at))
    result.chunk_ns = list(map(stamps.__getitem__, reads))
    if decoded.terminal_at is not None:
        reads.append(read_of[decoded.terminal_at])
        result.done_ns = stamps[reads[-1]]
    result.clock, result.read_lag_ns, result.uncertainty_ns = answer.certainty(reads)


def _error(answer: Answer, decoded: Decoded, broken: Broken | None, form: Form) -> tuple[ErrorWord, str] | None:
    """The error word and its detail; None for a success. The order is the one that the module's docstring tells."""
    if answer.status is not None and not form.dialect.accepts(form.target, answer.status):
        return word_of_status(answer.status), _status_detail(answer, form.target)
    if decoded.error is not None and decoded.error[0] == "error_event":
        return decoded.error
    if answer.error is not None and decoded.terminal_at is None:
        return answer.error
    if broken is not None:
        return broken.word, broken.detail
    if answer.closed and (answer.status is None or not form.streams):
        where = "before any answer" if answer.status is None else "in the middle of the body"
        return "truncated", f"the server closed the connection {where}, after {answer.response_bytes} bytes"
    return decoded.error


def word_of_status(status: int) -> ErrorWord:
    if status == 429:
        return "rate_limited"
    if status in (503, 529):
        return "overloaded"
    if status >= 500:
        return "http_5xx"
    if status >= 400:
        return "http_4xx"
    return "redirect" if 300 <= status < 400 else "malformed"


def _status_detail(answer: Answer, target: Target) -> str:
    said = f"HTTP {answer.status}"
    if location := answer.headers.get(b"location"):
        said += f" to {location.decode('latin-1')}"
    elif (answer.status or 0) < 400:
        said += f" where the plan expects {target.expect_status}"
    try:
        body = b"".join(decoded_pieces(answer))
    except Broken:
        body = b""
    return f"{said}: {body.decode(errors='replace')}" if body else said


def retry_after_s(value: str, now_s: float) -> float | None:
    """Seconds to wait, from a number of seconds or an HTTP date; None where it is neither."""
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - now_s, 0.0)
    except (ValueError, OverflowError, TypeError):
        return None


# what may be shown


def one_line(text: str, key: str | None) -> str:
    """At most 300 characters on one line, without the key in any of the forms in which a server may echo it."""
    cut = len(text) > BODY_CHARACTERS_IN_DETAIL
    text = text[:BODY_CHARACTERS_IN_DETAIL]
    if key:
        text = _key_pattern(key).sub("[key]", text)
        if cut:
            text = text[: -6 * len(key)]  # where half of a key may stand
    text = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())
    return text if len(text) <= DETAIL_CHARACTERS else text[: DETAIL_CHARACTERS - 1] + "…"


@lru_cache(maxsize=64)
def _key_pattern(key: str) -> re.Pattern[str]:
    """The key, each character of it as it is, percent-encoded, escaped for JSON or for HTML."""
    return re.compile("".join(_character_pattern(character) for character in key), re.IGNORECASE)


def _character_pattern(character: str) -> str:
    code = ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode())
    forms = (
        rf"\\*{re.escape(character)}",
        re.escape(percent),
        rf"\\+u{code:04x}",
        rf"&\#0*{code};",
        rf"&\#x0*{code:x};",
    )
    return f"(?:{'|'.join(forms)})"


def _short(text: str) -> str:
    return text[:200]
