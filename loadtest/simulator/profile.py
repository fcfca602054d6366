"""How a simulated provider behaves, and a few that ship.

The default of every figure stands here and nowhere else. Figures are of the order that one GPU serving a mid-sized
model shows, not of any particular product.
"""

from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct

StatusFault = Literal["rate_limited", "overloaded", "http_5xx", "http_4xx", "redirect"]
"""Faults that are an HTTP answer of their own."""
StreamFault = Literal[
    "truncated", "malformed", "error_event", "empty", "timeout_first_byte", "timeout_idle", "timeout_total", "reset"
]
"""Faults of an answer that had begun, or never does."""
Fault = StatusFault | StreamFault
"""The error words that a server can provoke on its own."""
STATUS_FAULTS: tuple[str, ...] = get_args(StatusFault)


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that befalls the provider for a while. Its time counts from the first request that it generates for."""

    at_s: float
    for_s: float
    replica: int | None = None  # None: each
    clock: float | None = None  # the GPU is too hot, and held to this share of its clock
    fault: Fault | None = None  # every request fails so

    def __post_init__(self) -> None:
        _require(self.at_s >= 0, "events.at_s", self.at_s, "it must not be negative")
        _require(self.for_s > 0, "events.for_s", self.for_s, "it must be above 0")
        _require(
            self.clock is None or 0 < self.clock <= 1, "events.clock", self.clock, "it must be above 0 and at most 1"
        )
        _require(
            (self.clock is None) != (self.fault is None), "events.fault", self.fault,
            "an event has either a clock, which slows the GPU down, or a fault, by which requests fail",
        )  # fmt: skip

    def holds(self, elapsed_s: float) -> bool:
        return self.at_s <= elapsed_s < self.at_s + self.for_s


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider. `jitter` is the coefficient of variation of a step's duration."""

    name: str = "custom"
    models: tuple[str, ...] = ()  # empty: any model is answered
    # the batching model, see engine.py
    prefill_tokens_per_s: float = 40_000
    decode_base_ms: float = 10
    decode_per_sequence_ms: float = 0.1
    step_tokens: int = 2048  # tokens that one step can process: decoding first, prefill with the rest
    max_batch: int = 64
    max_waiting: int = 256
    overload_status: Literal[429, 503] = 503
    default_output_tokens: int = 128
    prefix_cache_tokens: int = 0  # prompt tokens whose computation is kept; 0: none, and none are reported
    jitter: float = 0.0
    cold_start_s: float = 0.0  # added to the first step after `cold_after_s` without work, and to the very first
    cold_after_s: float = 300.0
    replicas: int = 1  # engines, each with a GPU of its own: a request goes to the least loaded
    # what its exporters show, see gpu.py
    kv_cache_tokens: int = 65_536
    gpu_sample_s: float = 1.0  # how often the GPU's figures are taken, however often they are asked for
    # what goes wrong
    events: tuple[Event, ...] = ()
    rate_limit_per_s: float | None = None
    rate_limit_burst: int = 1
    error_rate: float = 0.0
    faults: dict[Fault, float] = {}  # error word -> weight among the faulty requests
    stall_s: float = 600.0  # longest time that a stalled or endless answer is kept up
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "prefill_tokens_per_s",
            "decode_base_ms",
            "stall_s",
            "rate_limit_burst",
            "default_output_tokens",
            "kv_cache_tokens",
            "gpu_sample_s",
            "replicas",
        ):
            _require(getattr(self, name) > 0, name, getattr(self, name), "it must be above 0")
        for name in ("decode_per_sequence_ms", "max_waiting", "prefix_cache_tokens", "cold_start_s", "cold_after_s"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "it must not be negative")
        _require(self.max_batch >= 1, "max_batch", self.max_batch, "it must be at least 1")
        _require(
            self.step_tokens > self.max_batch, "step_tokens", self.step_tokens,
            f"it must exceed max_batch ({self.max_batch}), or a full batch leaves nothing for prefill",
        )  # fmt: skip
        _require(0 <= self.jitter <= 1, "jitter", self.jitter, "it must be between 0 and 1")
        _require(0 <= self.error_rate <= 1, "error_rate", self.error_rate, "it must be between 0 and 1")
        for event in self.events:
            replica = event.replica
            _require(
                replica is None or 0 <= replica < self.replicas, "events.replica", replica,
                f"it must be one of the {self.replicas} replicas, from 0",
            )  # fmt: skip
        limit = self.rate_limit_per_s
        _require(limit is None or limit > 0, "rate_limit_per_s", limit, "it must be above 0; leave it out for no limit")
        _require(min(self.faults.values(), default=0) >= 0, "faults", self.faults, "weights must not be negative")
        _require(
            self.error_rate == 0 or sum(self.faults.values()) > 0, "faults", self.faults,
            "with an error_rate it must give at least one error word a weight, such as {overloaded: 1}",
        )  # fmt: skip


def _require(condition: bool, key: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{key} is {value}; {rule}")


class Tls(Struct, frozen=True):
    """Files in PEM form."""

    certificate: str
    key: str | None = None  # None: it is in the certificate's file


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="fast", prefill_tokens_per_s=40_000, decode_base_ms=8, decode_per_sequence_ms=0.06,
            max_batch=128, jitter=0.05, seed=1,
        ),
        Profile(
            name="slow", prefill_tokens_per_s=16_000, decode_base_ms=22, decode_per_sequence_ms=0.12,
            max_batch=96, jitter=0.1, seed=2,
        ),
        Profile(
            name="flaky", prefill_tokens_per_s=16_000, decode_base_ms=22, decode_per_sequence_ms=0.12,
            max_batch=96, jitter=0.25, seed=3,
            error_rate=0.04, faults={"rate_limited": 3, "overloaded": 3, "truncated": 2, "reset": 2},
        ),
    )
}  # fmt: skip
"""The presets by name: `fast` and `slow` are reliable; `flaky` is as slow as `slow` and fails one request in 25."""


def load(spec: str) -> Profile:
    """A preset by name, or a YAML file of a profile's keys. ValueError says what is wrong and what would do."""
    if spec in PROFILES:
        return PROFILES[spec]
    path = Path(spec)
    if not path.is_file():
        raise ValueError(f"profile {spec!r} is neither a file nor one of: {', '.join(PROFILES)}")
    return parse(path.read_bytes(), spec)


def parse(text: bytes, where: str) -> Profile:
    """YAML, of which JSON is a part. ValueError says what is wrong, and `where`."""
    try:
        return msgspec.yaml.decode(text, type=Profile)
    except msgspec.DecodeError as error:
        raise ValueError(f"{where}: {error}; a profile's keys are {', '.join(Profile.__struct_fields__)}") from None
