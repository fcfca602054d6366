"""Figures of matched requests. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from bench.ours import Matched

__all__ = ["Errors", "errors", "median", "quantile"]


def quantile(values: Sequence[float], p: float) -> float:
    """The element at floor(p n) of the sorted values, as METRICS are defined. nan: there are none."""
    ordered = sorted(values)
    return ordered[min(int(p * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


@dataclass(frozen=True)
class Errors:
    """Milliseconds. `apart`: quantile of ours less the same quantile of the truth. `matched`: quantile of the size of
    the difference, request by request (TTFT) or gap by gap (ITL). `at_kernel`: of TTFT, against the truth that begins
    when the request reached the server's kernel, which is what a client can see at best."""

    n: int
    ttft_p50: float
    ttft_p99: float
    true_ttft_p50: float
    true_ttft_p99: float
    ttft_matched_p50: float
    ttft_matched_p99: float
    ttft_at_kernel_p50: float
    ttft_at_kernel_p99: float
    itl_p50: float
    itl_p99: float
    true_itl_p50: float
    true_itl_p99: float
    itl_matched_p50: float
    itl_matched_p99: float


def gaps(instants: Sequence[int]) -> Iterable[int]:
    return (after - before for before, after in pairwise(instants))


def errors(matched: Sequence[Matched]) -> Errors:
    def ms(values: Iterable[float], p: float) -> float:
        return quantile(list(values), p) / 1e6

    ttft = [(m.ours_ns[0], m.read_ns[0], m.arrived_ns[0]) for m in matched]
    itl = [pair for m in matched for pair in zip(gaps(m.ours_ns), gaps(m.read_ns), strict=True)]
    return Errors(
        n=len(matched),
        ttft_p50=ms((ours for ours, _, _ in ttft), 0.5),
        ttft_p99=ms((ours for ours, _, _ in ttft), 0.99),
        true_ttft_p50=ms((read for _, read, _ in ttft), 0.5),
        true_ttft_p99=ms((read for _, read, _ in ttft), 0.99),
        ttft_matched_p50=ms((abs(ours - read) for ours, read, _ in ttft), 0.5),
        ttft_matched_p99=ms((abs(ours - read) for ours, read, _ in ttft), 0.99),
        ttft_at_kernel_p50=ms((abs(ours - arrived) for ours, _, arrived in ttft), 0.5),
        ttft_at_kernel_p99=ms((abs(ours - arrived) for ours, _, arrived in ttft), 0.99),
        itl_p50=ms((ours for ours, _ in itl), 0.5),
        itl_p99=ms((ours for ours, _ in itl), 0.99),
        true_itl_p50=ms((true for _, true in itl), 0.5),
        true_itl_p99=ms((true for _, true in itl), 0.99),
        itl_matched_p50=ms((abs(ours - true) for ours, true in itl), 0.5),
        itl_matched_p99=ms((abs(ours - true) for ours, true in itl), 0.99),
    )
