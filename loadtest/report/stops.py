"""What became of a stage's `stop_when`, in a sentence for report and terminal."""

from collections.abc import Iterator

from loadtest.metrics import METRICS
from loadtest.report.model import Summary
from loadtest.report.words import listing, metric_title, plural, quantity
from loadtest.validity import Interval, Stop


def sentences(summary: Summary, stage: str) -> Iterator[str]:
    """One a round; none where the plan has no such rule."""
    stops = summary.stages[stage].stops if stage in summary.stages else []
    for stop in stops:
        yield (f"Round {stop.round + 1}: " if len(stops) > 1 else "") + _sentence(stop)


def _sentence(stop: Stop) -> str:
    figure = metric_title(stop.metric) + (f" {stop.stat}" if stop.stat else "")
    known = listing([_interval(each, METRICS[stop.metric].unit) for each in stop.intervals])
    looks = f"after {plural(stop.looks, 'look')}"
    width = f"{100 * stop.relative_width:g}% of it"
    if stop.reached:
        return (
            f"Ended once the {figure} was known to {width}, {looks}: {known}. "
            "In spite of the looks that holds in 95% of such stages, if requests are independent."
        )
    missed = f"Ended as planned: the {figure} was not known to {width}"
    return f"{missed} {looks}: {known}." if stop.looks else f"{missed}, since too few requests had ended for a look."


def _interval(each: Interval, unit: str) -> str:
    ends = f"{quantity(each.low, unit)} to {quantity(each.high, unit)}"
    return f"{each.target} {quantity(each.value, unit)} ({ends}, {plural(each.requests, 'request')})"
