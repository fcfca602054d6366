"""A target that lets nothing in: its run ends early, because the plan is wrong and nobody shall pay for the rest of it.

A wrong key, path, port or name shows as the same answer to everything: `http_4xx`, `redirect`, `connect`, `dns` or `tls`
from the target's first request on. A run is ended once more than `limit` requests of a target (the limit of the rule
`refused`, 30 unless the plan says otherwise) have ended so, over at least `LEAST_S`, and none has ended in another way; in
these seconds, none was in flight for `PATIENCE_S` longer than the slowest refusal took either. For refusals end in
milliseconds and answers after seconds, so that what has ended says little of what was let in. (A request that waits to be
tried again, as a plan's `retries` may want it, is in flight.) Of
30 failures out of 30 follows at 95% that fewer than one request in ten would have got in (the rule of three: Hanley and
Lippman-Hand, JAMA 249, 1983); the seconds leave an endpoint the time to come up. To end a test that tells nothing any
more, after a delay, is the idea of k6's `abortOnFail` and `delayAbortEval`.

Never so ended: by `rate_limited`, `overloaded`, `http_5xx`, a timeout or a broken answer, which are what a load test is to
see; nor once a single request ended in another way, for then the plan has found the door, and who closes it afterwards is
the endpoint; nor a plan of `kind: probe`, which asks whether an endpoint is there at all.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from msgspec import Struct, field

from loadtest import forecast
from loadtest.types import Plan, Target
from loadtest.validity import RULES, Refusal

if TYPE_CHECKING:
    from loadtest.host import Sample

WORDS = frozenset({"http_4xx", "redirect", "connect", "dns", "tls"})
LEAST_S = 5.0
PATIENCE_S = 1.0
QUOTED = 120


class _Tally(Struct):
    target: Target
    stage: str = ""
    first_ns: int = 0  # of the seconds that count
    last_ns: int = 0
    requests: int = 0
    slowest_s: float = 0.0
    ends: Counter[tuple[str, int | None]] = field(default_factory=Counter)  # error word and HTTP status
    details: dict[tuple[str, int | None], str] = field(default_factory=dict)
    let_in: bool = False

    def note(self, sample: "Sample") -> None:
        if sample.error not in WORDS:
            self.let_in = True
            return
        end = (sample.error, sample.status)
        self.stage = sample.stage
        self.first_ns = min(self.first_ns or sample.done_ns, sample.done_ns)
        self.last_ns = max(self.last_ns, sample.done_ns)
        self.requests += 1
        self.slowest_s = max(self.slowest_s, sample.e2e_ms / 1e3)
        self.ends[end] += 1
        self.details.setdefault(end, sample.detail)


class Refusals:
    """Takes each finished request once, and says which targets refuse all of them."""

    def __init__(self, plan: Plan) -> None:
        self._limit = plan.validity.get("refused", RULES["refused"].limit)
        watched = [] if plan.kind == "probe" else plan.targets
        self._tallies = {target.name: _Tally(target) for target in watched}

    def found(self, samples: Iterable["Sample"], oldest_s: Callable[[str], float] = lambda _: 0.0) -> list[Refusal]:
        """`oldest_s`: for how long the oldest request in flight to a target is so; 0 if none is."""
        if not self._tallies:
            return []
        for sample in samples:
            if tally := self._tallies.get(sample.target):
                tally.note(sample)
                if tally.let_in:
                    del self._tallies[sample.target]
        for name, tally in self._tallies.items():
            if oldest_s(name) > tally.slowest_s + PATIENCE_S:
                tally.first_ns = tally.last_ns
        return [
            Refusal(target=name, stage=t.stage, requests=t.requests, says=_sentence(t))
            for name, t in self._tallies.items()
            if t.requests > self._limit and t.last_ns - t.first_ns >= LEAST_S * 1e9
        ]


def _sentence(tally: _Tally) -> str:
    [(end, n)] = tally.ends.most_common(1)
    word, status = end
    what = f"HTTP {status}" if status else word
    whose = "every request" if n == tally.requests else f"{n} of {tally.requests} requests"
    asked = _question(tally.target, word, status)
    detail = tally.details[end].replace("; ", ", ").rstrip(".")
    detail = detail if len(detail) <= QUOTED else detail[: QUOTED - 1] + "…"
    return f"{tally.target.name}: {what} from {whose}: {asked} The first ended with: {detail}"


def _question(target: Target, word: str, status: int | None) -> str:
    """What of the plan this points to."""
    url = target.url.partition("?")[0]
    if word in ("connect", "dns", "tls"):
        return {
            "connect": f"are host and port of its url {url} right, and does the endpoint run?",
            "dns": f"is the host's name in its url {url} right?",
            "tls": f"is its url {url} one of https, and do ca_file and server_name fit the certificate there?",
        }[word]
    if word == "redirect":
        return f"write the url that {_sent_to(target)} is redirected to."
    if status in (401, 403):
        return f"is its key {target.key} right?" if target.key else "it has no key: does it need one (key: env:NAME)?"
    model = f", and its model {target.model}" if target.model else ""
    if status in (404, 405):
        return f"is its url right (requests went to {_sent_to(target)}){model}?"
    return f"does the endpoint take its body and prompts of this length{model}?"


def _sent_to(target: Target) -> str:
    """`POST http://host:port/path`, without its query, which may hold what is nobody's business."""
    return forecast.url(target).partition("?")[0]
