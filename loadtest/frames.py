"""What a worker process and its host say to each other: commands one way, frames the other, each a 4-byte length and msgpack.

Commands travel on the child's stdin, frames on a descriptor of their own. Both are structs with a tag, so that either side
decodes without asking what it got. Counts are per stage and target and cumulative: the newest report says it all.
"""

import struct
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from loadtest.types import Plan, Result

LENGTH = struct.Struct("!I")
UNREAD_S = 10.0
UNREAD_STATUS = 70
"""What a worker process ends with whose host has read nothing of it for `UNREAD_S`."""


# commands: host -> worker


class Resume(Struct, frozen=True):
    """Where a restarted worker takes its shard up again, one entry a target in each list.

    What was due from `next_seq` to `died_ns` may or may not have been sent: unknown. What fell due between then and now
    is missed. Under closed load there are no due times: the seqs from `next_seq` to `restart_seq` are unknown.
    """

    next_seq: list[int]
    restart_seq: list[int]
    died_ns: int


class LocustSetup(Struct, frozen=True):
    """What turns a worker into one of Locust's own: it runs a locustfile and follows Locust's master, not a plan."""

    locustfile: str
    arguments: list[str]  # for Locust's own parser; they may hold secrets, and so are on no command line
    master_host: str
    master_port: int
    files: dict[str, bytes] = {}  # path relative to the locustfile's directory -> content, for nodes without them
    first: int = 0  # requests of this shard that have a number already: those of a process that died


class Setup(Struct, frozen=True, tag="setup"):
    run: str
    plan: Plan
    keys: dict[str, str]  # target name -> secret
    shard: int
    shards: int
    locust: LocustSetup | None = None  # then `plan` only tells of the run what all that watch it must know
    vantage: str = ""  # the name of the worker's region

    def __repr__(self) -> str:
        return f"Setup(run={self.run!r}, shard={self.shard}/{self.shards}, keys hidden)"


class StartStage(Struct, frozen=True, tag="start"):
    stage: int
    start_ns: int
    resume: Resume | None = None


class Stop(Struct, frozen=True, tag="stop"):
    """No new requests; what is in flight may run on for `drain_s`, then it is cancelled."""

    drain_s: float
    stage: int | None = None  # None: all


Command = Setup | StartStage | Stop


# frames: worker -> host


class Ready(Struct, frozen=True, tag="ready"):
    pid: int
    open_files_limit: int


class TargetCount(Struct, array_like=True):
    scheduled: int = 0  # came due here: sent + missed + unknown
    sent: int = 0
    missed_cap: int = 0
    missed_worker_lost: int = 0
    unknown: int = 0
    done: int = 0
    failed: int = 0
    in_flight: int = 0
    oldest_ns: int = 0  # started_ns of the oldest request in flight, 0 if none
    next_seq: int = 0  # the first seq of this shard not yet taken
    retried: int = 0  # further attempts that have ended; the other counts are of first ones
    end_ns: int = (
        0  # when the last of the `requests` of a closed stage was sent; 0 before, and where time ends the stage
    )


class StageCount(Struct):
    stage: int
    start_ns: int
    targets: list[TargetCount]
    first_start_ns: int = 0  # when the worker really began
    end_ns: int = 0  # end of arrivals, 0 while they go on
    drained_ns: int = 0  # nothing in flight any more, 0 before
    names: list[str] = []  # of `targets`, where no plan names them: what a locustfile has requested so far


class Report(Struct, tag="report"):
    at_ns: int
    monotonic_raw_ns: int
    cpu_s: float
    peak_rss_bytes: int
    dropped_frames: int  # results that the full pipe buffer could not take
    stages: list[StageCount]
    users: int = 0  # Locust's, under a locustfile
    problems: list[str] = []  # what people should know


class Failed(Struct, frozen=True, tag="failed"):
    """The worker cannot go on: the one frame before it exits with a status other than 0."""

    reason: str


Frame = Ready | Result | Report | Failed


class _Peek(Struct):
    type: str


encode_frame = msgspec.msgpack.Encoder().encode
decode_frame = msgspec.msgpack.Decoder(Frame).decode
decode_command = msgspec.msgpack.Decoder(Command).decode
peek = msgspec.msgpack.Decoder(_Peek).decode
"""The tag of a frame, without the cost of the rest."""


def pack(message: Frame | Command) -> bytes:
    payload = encode_frame(message)
    return LENGTH.pack(len(payload)) + payload


class Unpacker:
    """Cuts a byte stream into payloads, however the bytes arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= 4:
                (size,) = LENGTH.unpack_from(buffer, at)
                if len(buffer) - at - 4 < size:
                    return
                payload = bytes(buffer[at + 4 : at + 4 + size])
                at += 4 + size
                yield payload
        finally:
            del buffer[:at]
