"""Lists on the terminal: of metrics, of what others mean by them, of stored runs."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.definitions import DEFINITIONS
from loadtest.history import Counted, Listed
from loadtest.report.words import (
    NOT_KNOWN,
    count,
    percent,
)
from loadtest.types import Metric


def catalogue(metrics: Iterable[Metric], console: Console | None = None) -> None:
    """`loadtest metrics`."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("metric", "unit", "better"):
        table.add_column(heading, no_wrap=True)
    table.add_column("definition")
    for metric in metrics:
        table.add_row(metric.name, metric.unit, metric.better, Text(metric.doc))
    (console or Console()).print(table, highlight=False)


def catalogue_of_others(console: Console | None = None) -> None:
    """What other tools mean, below our own metrics."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("figure", "unit"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what that tool means")
    for definition in DEFINITIONS.values():
        table.add_row(definition.name, definition.unit, Text(definition.doc))
    console = console or Console()
    console.print(Text("\nThe same run by the definitions of other tools: loadtest report RUN --as TOOL\n"))
    console.print(table, highlight=False)


def runs(found: Sequence[Listed], counts: Mapping[str, Counted], where: str, console: Console | None = None) -> None:
    """`loadtest runs`: a line a run in full, whatever the width: it may go into a pipe. Figures as on the page."""
    console = console or Console()
    table = [_run_cells(run, counts.get(run.run, Counted())) for run in found]
    if not table:
        console.print(f"no runs yet in {where}; loadtest run PLAN makes one", soft_wrap=True, highlight=False)
        return
    head = ("run", "plan", "started, UTC", "seconds", "requests", "failed", "ended")
    widths = [max(len(row[column]) for row in (head, *table)) for column in range(len(head))]
    for row in (head, *table):
        cells = [
            text.rjust(width) if name in ("seconds", "requests", "failed") else text.ljust(width)
            for name, text, width in zip(head, row, widths, strict=True)
        ]
        line = Text("  ".join(cells).rstrip(), style="dim" if row is head else "")
        console.print(line, soft_wrap=True, highlight=False)


def _run_cells(run: Listed, counts: Counted) -> tuple[str, ...]:
    started = datetime.fromtimestamp(run.started_ns / 1e9, UTC)
    failed = NOT_KNOWN if counts.failed_share is None else percent(counts.failed_share)
    figures = (f"{(run.ended_ns - run.started_ns) / 1e9:,.0f}", count(counts.requests), failed)
    ended = f"{run.ended}, {run.told}" if run.told else run.ended
    return (run.run, run.plan_name, f"{started:%Y-%m-%d %H:%M:%S}", *figures, ended)
