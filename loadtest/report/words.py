"""Figures and verdicts in words: one way to write them for terminal, report and page.

Measured values carry three significant digits and a unit, counts are exact, thousands are separated, times are UTC.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import takewhile

NOT_KNOWN = "–"
INFINITE = "∞"


def count(n: int | None) -> str:
    return NOT_KNOWN if n is None else f"{n:,}"


def plural(n: int, noun: str) -> str:
    """`1 request`, `2,000 requests`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1]}ies" if noun.endswith("y") else f"{n:,} {noun}s"


def settled(words: str) -> str:
    """`1 request(s)` as `1 request`, `3 process(es)` as `3 processes`: for sentences that were stored before their number."""

    def decided(found: re.Match[str]) -> str:
        n, noun, ending, verb = found.groups()
        return f"{n}{noun}{' was' if verb else ''}" if n == "1" else f"{n}{noun}{ending}{verb or ''}"

    return re.sub(r"\b([\d,]+)((?: \w+)+)\((e?s)\)( were)?", decided, words)


def said(detail: str) -> str:
    """An error's detail with the message of its JSON body in place of the body; in full where there is none."""
    found = re.search(r'"message":\s*"((?:[^"\\]|\\.)+)"', detail)
    body = detail.find("{")
    return f"{detail[:body]}{found[1]}" if found and 0 <= body < found.start() else detail


def elided(words: str, width: int) -> str:
    """Cut at its end, between two words where that costs little: `peak-hours…`."""
    if len(words) <= width:
        return words
    kept = words[: width - 1]
    between = max((at for at, letter in enumerate(words[:width]) if not letter.isalnum()), default=0)
    return f"{kept[:between] if between >= DEAR * width else kept}…"


DEAR = 0.6
"""Of the width must be left of a name that is cut between two words."""


def elided_inside(words: str, width: int) -> str:
    """Cut in the middle, where both ends tell."""
    if len(words) <= width:
        return words
    tail = (width - 1) // 2
    return f"{words[: width - 1 - tail]}…{words[len(words) - tail :]}"


def told_apart(names: Sequence[str], width: int) -> dict[str, str]:
    """Each name in at most `width` characters: cut at its end or, where that makes some alike, elsewhere."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    common = len(list(alike)) if len(names) > 1 else 0
    ways: tuple[Callable[[str], str], ...] = (
        lambda name: elided(name, width),
        lambda name: elided_inside(name, width),
        lambda name: name if len(name) <= width else f"…{name[1 - width :]}",
        lambda name: elided_inside(f"…{name[common:]}", width),
        lambda name: name if len(name) <= width else f"…{name[common:]}"[:width],
    )
    shortened = [{name: way(name) for name in names} for way in ways]
    return max(shortened, key=lambda short: len(set(short.values())))


def sig3(value: float | None) -> str:
    """Three significant digits: 0.0123, 4.50, 67.8, 912, 34,500."""
    if value is None or math.isnan(value):
        return NOT_KNOWN
    if math.isinf(value):
        return INFINITE if value > 0 else f"−{INFINITE}"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    rounded = round(value, 2 - exponent)
    if rounded and math.floor(math.log10(abs(rounded))) > exponent:
        exponent += 1
    return f"{rounded:,.{max(0, 2 - exponent)}f}".replace("-", "−")


def quantity(value: float | None, unit: str) -> str:
    """A value with its unit; a unit of `1` is a share and is shown in per cent."""
    if unit == "1":
        return percent(value)
    figure = sig3(value)
    return figure if figure in (NOT_KNOWN, INFINITE) or not unit else f"{figure} {unit_word(unit)}"


def unit_word(unit: str) -> str:
    return "/s" if unit == "1/s" else unit


def percent(share: float | None) -> str:
    if share is None:
        return NOT_KNOWN
    return f"{sig3(100 * share)}%" if not math.isinf(share) else INFINITE


def seconds(duration_s: float) -> str:
    """`0.85 s`, `12.3 s`, `2 min`, `2 min 05 s`, `1 h 02 min`."""
    if duration_s < 99.95:
        return f"{duration_s:.3g} s"
    minutes, whole = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {whole:02d} s" if whole else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def utc(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def listing(words: list[str], most: int = 1000) -> str:
    """`a`, `a and b`, `a, b and c`; beyond `most`, `a, b and 7 more`."""
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


METRIC_TITLES = {
    "ttft_ms": "Time to first token",
    "ttfo_ms": "Time to first content token",
    "itl_ms": "Inter-token latency",
    "icl_ms": "Inter-chunk latency",
    "tpot_ms": "Time per output token",
    "e2e_ms": "End-to-end latency",
    "due_ttft_ms": "Time to first token, from due",
    "due_e2e_ms": "End-to-end latency, from due",
    "output_speed": "Output speed",
    "output_tokens_per_s": "Output tokens",
    "requests_per_s": "Requests completed",
    "error_rate": "Error rate",
    "goodput": "Goodput",
    "success_rate": "Success rate",
    "gpu_utilization": "GPU utilization meanwhile",
    "energy_per_token": "Energy per output token",
}


def metric_title(name: str) -> str:
    return METRIC_TITLES.get(name, name)


FAULTS = {
    "endpoint": "the endpoint's",
    "network": "the network's",
    "client": "the plan's",
    "generator": "the generator's",
}
"""Whose fault an error is, as it is written."""

ERROR_MEANINGS = {
    "rate_limited": "answered 429: too many requests",
    "overloaded": "answered 503 or 529: no capacity",
    "http_5xx": "answered with another server error",
    "truncated": "the stream ended without its terminal marker",
    "malformed": "the answer was not valid HTTP, SSE or JSON",
    "error_event": "an error inside a stream that had begun with 200",
    "empty": "answered 200 without a single token",
    "timeout_first_byte": "no byte of an answer in time",
    "timeout_idle": "the answer stopped in the middle for too long",
    "timeout_total": "the answer was not complete in time",
    "dns": "the host name could not be resolved",
    "connect": "the connection was refused or unreachable",
    "timeout_connect": "no connection in time",
    "tls": "the TLS handshake failed",
    "write": "the request could not be written",
    "reset": "the connection was reset",
    "http_4xx": "the request was refused as wrong",
    "redirect": "answered with a redirect",
    "generator": "the load generator failed",
    "cancelled": "still unanswered when the drain ended or the run was stopped",
}
