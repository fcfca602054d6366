"""Continuous batching on one GPU, as a function of time: no clock, no socket, no sleep.

A request waits in a bounded queue until the batch has room. The GPU works in steps. In one step each sequence that has
its prompt processed gets one token, and what is left of the step's token budget processes prompts in order of arrival
(chunked prefill, as vLLM schedules). A sequence whose prompt is complete gets its first token at the end of that step.

    step = (base + per_sequence * decoding + prompt tokens / prefill rate) * jitter

So latency rises with load, prefill of others lengthens everyone's gaps, and throughput saturates: with the batch of N
always full, prompts of p tokens that fit in one step and outputs of o tokens,

    tokens/s = N / (base + per_sequence * N * (o - 1) / o + (N / o) * p / prefill rate)

Whoever drives it calls `begin(now)` to start a step and `end()` when the instant that `begin` returned has come.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from loadtest.simulator.profile import Fault, Profile


class Sequence:
    """One request in the engine. `produced` counts the tokens it has got."""

    __slots__ = ("cancelled", "output_tokens", "prefilled", "produced", "prompt_tokens")

    def __init__(self, prompt_tokens: int, output_tokens: int) -> None:
        self.prompt_tokens = max(prompt_tokens, 1)
        self.output_tokens = max(output_tokens, 1)
        self.prefilled = 0
        self.produced = 0
        self.cancelled = False

    @property
    def finished(self) -> bool:
        return self.produced >= self.output_tokens


S = TypeVar("S", bound=Sequence)


def full_speed(_: float) -> float:
    return 1.0


class Engine(Generic[S]):
    """`waiting`, `prefilling` and `decoding` are the state that an exporter shows, and the counts beside them.

    `speed` of an instant is the GPU's clock as a share of its full one: a step that begins then takes so much longer.
    """

    def __init__(self, profile: Profile, replica: int = 0, speed: Callable[[float], float] = full_speed) -> None:
        self.waiting: deque[S] = deque()
        self.prefilling: deque[S] = deque()
        self.decoding: list[S] = []
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.finished = 0
        self.sequence_s = 0.0  # sequences in a step, times how long it took, over all steps
        self._profile = profile
        self._speed = speed
        self._random = random.Random(f"{profile.seed} steps {replica or ''}".rstrip())
        self._busy_s = 0.0
        self._begun_s = 0.0
        self._emitting: list[S] = []
        self._stepping = False
        self._last_end_s = -math.inf

    @property
    def stepping(self) -> bool:
        """A step has begun and not ended."""
        return self._stepping

    @property
    def running(self) -> int:
        """Sequences that hold a place in the batch."""
        return len(self.prefilling) + len(self._emitting if self._stepping else self.decoding)

    @property
    def kv_cache_utilization(self) -> float:
        """Share of the cache that the tokens of the batch take."""
        batch = [*self.prefilling, *(self._emitting if self._stepping else self.decoding)]
        return min(sum(s.prefilled + s.produced for s in batch) / self._profile.kv_cache_tokens, 1.0)

    def busy_s(self, now_s: float) -> float:
        """How long it has worked until now, since its start."""
        return self._busy_s + (max(min(now_s, self._last_end_s) - self._begun_s, 0.0) if self._stepping else 0.0)

    def submit(self, sequence: S) -> bool:
        """Queue a sequence; False: batch and queue are full and the engine will not have it."""
        # what waits while the batch has room only waits for the next step: that is not the queue
        if self.running + len(self.waiting) >= self._profile.max_batch + self._profile.max_waiting:
            return False
        self.waiting.append(sequence)
        return True

    def cancel(self, sequence: S) -> None:
        """Its client went away: it gets no more tokens, and its place is free from the next step on."""
        sequence.cancelled = True

    def begin(self, now_s: float) -> float | None:
        """Begin a step at `now_s`: the instant at which it ends, or None when there is nothing to do."""
        self._drop_cancelled()
        self._admit()
        if not self.prefilling and not self.decoding:
            return None
        self._emitting = list(self.decoding)
        decoding = len(self.decoding)
        prompt_tokens = self._prefill(self._profile.step_tokens - decoding)
        profile = self._profile
        step_s = (profile.decode_base_ms + profile.decode_per_sequence_ms * decoding) / 1000
        step_s += prompt_tokens / profile.prefill_tokens_per_s
        step_s *= self._jitter() / self._speed(now_s)
        if now_s - self._last_end_s > profile.cold_after_s:
            step_s += profile.cold_start_s
        self._stepping = True
        self._begun_s = now_s
        self._last_end_s = now_s + step_s
        self.sequence_s += (len(self.prefilling) + len(self._emitting)) * step_s
        return self._last_end_s

    def end(self) -> list[S]:
        """End the step: the sequences that got a token by it, oldest first. Finished ones have left the batch."""
        self._stepping = False
        self._busy_s += self._last_end_s - self._begun_s
        emitted = [sequence for sequence in self._emitting if not sequence.cancelled]
        for sequence in emitted:
            sequence.produced += 1
        self.generated_tokens += len(emitted)
        self.finished += sum(sequence.finished for sequence in emitted)
        self.decoding = [sequence for sequence in emitted if not sequence.finished]
        self._emitting = []
        return emitted

    def _drop_cancelled(self) -> None:
        # a cancelled sequence must not hold its place: clients that time out are what an overload is made of
        self.decoding = [sequence for sequence in self.decoding if not sequence.cancelled]
        for queue in (self.waiting, self.prefilling):
            if any(sequence.cancelled for sequence in queue):
                alive = [sequence for sequence in queue if not sequence.cancelled]
                queue.clear()
                queue.extend(alive)

    def _admit(self) -> None:
        room = self._profile.max_batch - len(self.prefilling) - len(self.decoding)
        for _ in range(min(room, len(self.waiting))):
            self.prefilling.append(self.waiting.popleft())

    def _prefill(self, budget: int) -> int:
        """Spend up to `budget` tokens on prompts, first come first served; the tokens spent."""
        left = budget
        while self.prefilling and left > 0:
            sequence = self.prefilling[0]
            share = min(left, sequence.prompt_tokens - sequence.prefilled)
            sequence.prefilled += share
            left -= share
            if sequence.prefilled < sequence.prompt_tokens:
                break
            self._emitting.append(self.prefilling.popleft())
        self.prompt_tokens += budget - left
        return budget - left

    def _jitter(self) -> float:
        """A log-normal factor of mean 1, so that jitter spreads latency and leaves throughput alone."""
        sigma = math.sqrt(math.log1p(self._profile.jitter**2))
        return self._random.lognormvariate(-sigma * sigma / 2, sigma) if sigma else 1.0


class RateLimit:
    """A token bucket of requests."""

    def __init__(self, per_s: float | None, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._level = float(burst)
        self._at_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """Admit a request (0), or say after how many seconds it would be."""
        if self._per_s is None:
            return 0.0
        elapsed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        self._level = min(self._level + elapsed_s * self._per_s, float(self._burst))
        if self._level < 1:
            return (1 - self._level) / self._per_s
        self._level -= 1
        return 0.0


class Faults:
    """Draws which requests fail, how, and after how many tokens: the same sequence for a seed."""

    def __init__(self, profile: Profile) -> None:
        self._rate = profile.error_rate
        self._words: list[Fault] = list(profile.faults)
        self._weights = list(profile.faults.values())
        self._random = random.Random(f"{profile.seed} faults")

    def draw(self, output_tokens: int) -> tuple[Fault, int] | None:
        """None for a sound request; else the error word and the number of tokens that still come before it."""
        if self._random.random() >= self._rate:
            return None
        word = self._random.choices(self._words, self._weights)[0]
        return word, self._random.randint(1, max(output_tokens - 1, 1))
