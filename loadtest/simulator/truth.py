"""What the server really did, for whoever checks a client's figures: kept for the latest requests only."""

from collections import OrderedDict

from msgspec import Struct


class Record(Struct, kw_only=True):
    """One request. `_ns` is this host's real-time clock just before the write; chunks are events of the stream.

    `chunk_kind` is loadtest.types.ChunkKind. An instant that was not reached is None.
    """

    id: str
    trace_id: str = ""
    read_ns: int  # the request was read to its last byte
    status: int | None = None
    error: str | None = None  # the error word that was provoked
    head_ns: int | None = None
    chunk_ns: list[int] = []
    chunk_kind: list[int] = []
    chunk_tokens: list[int] = []
    done_ns: int | None = None  # the end of the answer, or the instant of the fault
    input_tokens: int = 0
    output_tokens: int = 0

    def note(self, now_ns: int, kind: int, tokens: int) -> None:
        self.chunk_ns.append(now_ns)
        self.chunk_kind.append(kind)
        self.chunk_tokens.append(tokens)


class Truth:
    """The latest `capacity` records, found by request id or by trace id; 0 keeps none."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._by_id: OrderedDict[str, Record] = OrderedDict()
        self._by_trace: dict[str, Record] = {}

    @property
    def enabled(self) -> bool:
        return self._capacity > 0

    def add(self, record: Record) -> None:
        if not self.enabled:
            return
        self._forget(record.id)
        self._by_id[record.id] = record
        if record.trace_id:
            self._by_trace[record.trace_id] = record
        if len(self._by_id) > self._capacity:
            self._forget(next(iter(self._by_id)))

    def _forget(self, request_id: str) -> None:
        old = self._by_id.pop(request_id, None)
        if old is not None and self._by_trace.get(old.trace_id) is old:
            del self._by_trace[old.trace_id]

    def get(self, key: str) -> Record | None:
        return self._by_id.get(key) or self._by_trace.get(key)

    def all(self) -> list[Record]:
        return list(self._by_id.values())
