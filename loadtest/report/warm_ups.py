"""What looks like warm-up in a measured stage, in a sentence for report and terminal.

Of a locustfile nothing is said: it has no stages to declare one with, and its users begin one after the other.
"""

from collections.abc import Iterator
from math import ceil

from loadtest.report.model import Summary
from loadtest.report.words import count, metric_title, quantity, seconds
from loadtest.steady import WarmUp


def sentences(summary: Summary, stage: str) -> Iterator[str]:
    """One for each target whose figures have something in them that is no steady state."""
    if summary.locustfile is not None:
        return
    for name, target in summary.targets.items():
        if stage in target.stages and target.stages[stage].warm_up.metric:
            yield _sentence(name, target.stages[stage].warm_up)


def _sentence(target: str, found: WarmUp) -> str:
    metric = metric_title(found.metric or "")
    before, after = quantity(found.before_ms, "ms"), quantity(found.after_ms, "ms")
    until = seconds(found.until_s or 0)
    if found.found == "unsettled":
        return (
            f"{target} did not settle: its {metric} was typically {before} in the first {until} and {after} after that. "
            "A longer stage would show where it ends."
        )
    return (
        f"The first {until} look like warm-up at {target} ({count(found.requests)} successes): its {metric} was typically "
        f"{before} there and {after} after that. They are in the figures; a stage before this one with warmup: true, and of "
        f"{ceil(1.5 * (found.until_s or 0))} s, would keep them out."
    )
