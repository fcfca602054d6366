"""GPU and engine telemetry: what exporters show, sampled beside a run into the tables of the OpenTelemetry Collector.

names.py says what is called how, series.py reads a source's text by it, scrape.py asks one source and scraper.py all of
them, figures.py is the SQL that joins samples to requests.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loadtest.store import Address
from loadtest.types import Plan

if TYPE_CHECKING:
    from loadtest.progress import DevicesNow

FAILED_SHARE = 0.1
"""Of the scrapes of a source: if more failed, whoever ran it is told on the terminal as well as in the report."""


@contextmanager
def sampled(
    plan: Plan, keys: Mapping[str, str], run: str, address: Address
) -> Iterator["Callable[[], list[DevicesNow]]"]:
    """Within it, what the plan's `gpu:` names is sampled, and what it gives says how things are now. Raises PlanError where a
    source can never answer."""
    if plan.gpu is None:
        yield list
        return
    from loadtest.gpu.now import Now
    from loadtest.gpu.scraper import Scraper  # httpx: a fifth of a second that others need not wait

    scraper = Scraper(plan.gpu, keys, {"loadtest.run": run, "loadtest.kind": plan.kind}, address)
    with scraper:
        yield Now(scraper.latest, plan.gpu, [target.name for target in plan.targets])
    for name, tally in scraper.tally.items():
        if tally.failed > FAILED_SHARE * tally.scrapes:
            failed = f"failed in {tally.failed} of {tally.scrapes} scrapes: {tally.last_failure}"
            print(f"warning: gpu source {name} {failed}", file=sys.stderr)
    if scraper.failure:
        print(f"warning: GPUs and engines were not sampled as they should be: {scraper.failure}", file=sys.stderr)
    if scraper.given_up:
        print(f"warning: {scraper.given_up} samplings of GPUs and engines were not stored", file=sys.stderr)
