"""Answers as the batching model gives them: one timer drives all of them."""

import asyncio
from collections.abc import Callable

from loadtest.simulator import faults
from loadtest.simulator.connection import Reply
from loadtest.simulator.engine import Engine, Sequence, full_speed
from loadtest.simulator.openai_api import Answer, Call, Event
from loadtest.simulator.profile import STATUS_FAULTS, Fault, Profile
from loadtest.simulator.script import FORMS, STATUS_OF, WORDS, Beat, words
from loadtest.types import ChunkKind

Faulty = tuple[Fault, int]
"""A fault and the number of tokens that still come before it."""

CATCH_UP_S = 0.02
"""A step that a busy loop ended late by no more than this does not delay the next: steps keep the model's time."""
TEXTS = [f'" {word}"'.encode() for word in WORDS]


class Generation(Sequence):
    """One request in the engine and its answer. `over` is set when no more tokens will come."""

    __slots__ = ("_answer", "_fault_at", "_reason", "_reply", "_streamed", "over")

    def __init__(
        self, call: Call, profile: Profile, answer: Answer, reply: Reply, fault_at: int | None, cached_tokens: int
    ) -> None:
        super().__init__(call.prompt_tokens - cached_tokens, call.max_tokens or profile.default_output_tokens)
        self._streamed = call.stream
        self._reason = "length" if call.max_tokens else "stop"
        self._answer = answer
        self._reply = reply
        self._fault_at = fault_at
        self.over = asyncio.Event()

    def token(self) -> None:
        """The engine gave it a token: write it. The last one takes finish reason, usage and marker with it."""
        produced = self.produced
        faulty = produced == self._fault_at
        last = self.finished and not faulty
        if self._streamed:
            payload = self._answer.content(TEXTS[(produced - 1) % len(TEXTS)], produced)
            if last or produced == 1:
                self._write_edge((ChunkKind.CONTENT, 1, payload), last=last)
            else:
                self._reply.event(ChunkKind.CONTENT, 1, payload)
        if faulty or last:
            self.leave()

    def leave(self) -> None:
        """Done, at fault, or without a client: out of the batch."""
        self.cancelled = not self.finished
        self.over.set()

    def _write_edge(self, event: Event, *, last: bool) -> None:
        events = [event]
        if self.produced == 1 and (role := self._answer.role()) is not None:
            events.insert(0, (ChunkKind.EMPTY, 0, role))
        if last:
            events += self._answer.tail(self._reason, self.produced, self._answer.asked_usage(self.produced))
        self._reply.events(events, done=last)

    def whole(self) -> bytes:
        """The answer where nothing is streamed."""
        beats = [Beat(ChunkKind.CONTENT, words(0, self.produced), self.produced)]
        return self._answer.whole(beats, self._reason, self._answer.figures(self.produced))


class Pump:
    """Runs the engine on the event loop's time."""

    def __init__(self, profile: Profile, replica: int = 0, speed: Callable[[float], float] = full_speed) -> None:
        self.engine: Engine[Generation] = Engine(profile, replica, speed)

    def submit(self, generation: Generation) -> bool:
        loop = asyncio.get_running_loop()
        if not self.engine.submit(generation):
            return False
        if not self.engine.stepping:
            self._begin(loop, loop.time())
        return True

    def _begin(self, loop: asyncio.AbstractEventLoop, now_s: float) -> None:
        end_s = self.engine.begin(now_s)
        if end_s is not None:
            loop.call_at(end_s, self._end, loop, end_s)

    def _end(self, loop: asyncio.AbstractEventLoop, end_s: float) -> None:
        try:
            for generation in self.engine.end():
                generation.token()
        finally:  # whatever became of one answer, the others go on
            self._begin(loop, max(end_s, loop.time() - CATCH_UP_S))


async def generate(
    pump: Pump,
    profile: Profile,
    call: Call,
    answer: Answer,
    reply: Reply,
    faulty: Faulty | None,
    cached_tokens: int,
) -> None:
    """Answer a request by the batching model, with the fault drawn for it if any. Raises ApiError.

    `cached_tokens` of its prompt need no processing.
    """
    word, fault_at = faulty or (None, None)
    reply.record.error = word
    if word in STATUS_FAULTS:
        raise faults.status_error(STATUS_OF[word], faults.retry_after(1))
    form = FORMS.get(word or "", ("",))[0]
    if word is not None and await faults.before_head(reply, word, form, profile.stall_s):
        return
    generation = Generation(call, profile, answer, reply, fault_at, cached_tokens)
    if word != "empty" and not await _generate(pump, profile, call, reply, generation):
        return
    if word is not None:
        await _fail(profile, call, answer, reply, generation, word, form)
    elif call.stream:
        await reply.end()
    else:
        await reply.whole(generation.whole(), faults.JSON)


async def _generate(pump: Pump, profile: Profile, call: Call, reply: Reply, generation: Generation) -> bool:
    """Let the engine work until there is nothing more to come; False: the client has left. Raises ApiError."""
    if not pump.submit(generation):
        raise faults.status_error(profile.overload_status, faults.retry_after(1))
    reply.connection.on_gone = generation.leave
    try:
        if call.stream:
            await reply.head(faults.SSE)
        await generation.over.wait()
    finally:
        generation.leave()
        reply.connection.on_gone = None
        reply.record.output_tokens = generation.produced
    return not reply.connection.gone.is_set()


async def _fail(
    profile: Profile, call: Call, answer: Answer, reply: Reply, generation: Generation, word: Fault, form: str
) -> None:
    if not call.stream:
        await faults.in_body(reply, generation.whole(), word, form, stall_s=profile.stall_s)
        return
    if word == "empty":
        await reply.head(faults.SSE)
    await faults.in_stream(reply, answer, word, form, stall_s=profile.stall_s, gap_s=profile.decode_base_ms / 1000)
