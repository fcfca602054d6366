"""What Locust's master and the driver say to each other, as loadtest/frames.py is for workers and hosts.

Whoever drives must not import Locust, which would monkey-patch it: so this is a module of its own.
"""

import msgspec
from msgspec import Struct

from loadtest.frames import LENGTH


class MasterSetup(Struct, frozen=True, tag="setup"):
    locustfile: str
    arguments: list[str]  # for Locust's own parser
    bind_host: str


class MasterStop(Struct, frozen=True, tag="stop"):
    """End the test; what is in flight may run on for `drain_s`."""

    drain_s: float


class MasterReady(Struct, frozen=True, tag="ready"):
    port: int
    modules: list[str]  # Python files beside the locustfile that it imported, and itself
    keys: dict[str, str] = {}  # of each InferenceUser, by the name of its class: env:NAME or file: and an absolute path
    page: str = ""  # the address of Locust's own, where it was asked for


class MasterReport(Struct, frozen=True, tag="report"):
    state: str  # Locust's word
    users: int
    target_users: int
    requests: int  # Locust's own count of the newest test
    failures: int
    exceptions: int  # of tasks


class MasterFailed(Struct, frozen=True, tag="failed"):
    reason: str


MasterFrame = MasterReady | MasterReport | MasterFailed
MasterCommand = MasterSetup | MasterStop
_encode = msgspec.msgpack.Encoder().encode
decode_frame = msgspec.msgpack.Decoder(MasterFrame).decode
decode_command = msgspec.msgpack.Decoder(MasterCommand).decode


def pack(message: MasterFrame | MasterCommand) -> bytes:
    payload = _encode(message)
    return LENGTH.pack(len(payload)) + payload
