"""The terminal: a calm view while a run goes, and what it came to at its end.

`render`, `lines` and `closing` are pure; the views at the bottom print. In a terminal fixed columns are redrawn in
place twice a second; elsewhere a line a target comes every few seconds. Colour is never the only sign: a target has its
shape, an outcome its word. 80 columns are enough; more go to the targets' names.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtest.progress import WINDOW_S, Progress, TargetProgress, Watch
from loadtest.report.headline import State, account_lines, headline, limit, measured, reasons
from loadtest.report.model import SloRow, StageFigures, Summary, summary_of
from loadtest.report.words import NOT_KNOWN, count, metric_title, percent, plural, quantity, sig3
from loadtest.types import Metric

if TYPE_CHECKING:
    from loadtest.run import Snapshot

REDRAW_EVERY_S = 0.5
LINES_EVERY_S = 5.0
NARROW = 80
NAME_WIDTHS = (12, 32)
BAR_WIDTH = 20
SLOS_NAMED = 8

COLORS = ("#3a9bd9", "#d98e1f", "#c46aa0", "#1fa37f", "#6cb8e6", "#e0672a", "#a8a21d", "#8a909c")
SHAPES = "●■▲◆✚▼⬢"
"""The hues and shapes of the report, in a tone that stands on black and on white."""

SIGNS: dict[State, tuple[str, str]] = {
    "met": ("✔", "green"),
    "breached": ("✘", "red"),
    "undecided": ("?", "yellow"),
    "invalid": ("!", "red"),
    "none": ("·", ""),
}

Cells = Sequence[tuple[str, int]]
"""Text and width of each cell, right-aligned."""

LIVE_HEAD: tuple[Cells, Cells] = (
    (("requests/s", 14), ("in flight", 15), ("TTFT, ms", 14), ("E2E, ms", 16), ("tokens", 8)),
    (("done", 6), ("due", 8), ("now", 7), ("oldest", 8), ("p50", 7), ("p99", 7), ("p50", 8), ("p99", 8), ("/s", 8)),
)


# While a run goes


def render(progress: Progress, width: int = NARROW) -> RenderableType:
    """The whole view. A target has two lines at all times, so that nothing jumps when something happens."""
    name_width = _name_width([target.name for target in progress.targets], width)
    rows: list[Text] = [_line(Text("", style="dim"), cells, name_width, "dim") for cells in LIVE_HEAD]
    for index, target in enumerate(progress.targets):
        rows += [_figures_line(index, target, name_width), _note(target)]
    return Group(_stage_line(progress), Text(""), *rows, Text(""), _generator_line(progress), *_messages(progress))


def _name_width(names: Sequence[str], width: int) -> int:
    low, high = NAME_WIDTHS
    return max(low, min(max(map(len, names), default=0) + 2, high, low + width - NARROW))


def _line(name: Text, cells: Cells, name_width: int, style: str = "") -> Text:
    line = name.copy()
    line.truncate(name_width, overflow="ellipsis")
    line.pad_right(name_width - line.cell_len)
    line.append("".join(text.rjust(width) for text, width in cells), style)
    line.no_wrap = True
    return line


def target_name(index: int, name: str) -> Text:
    return Text.assemble((SHAPES[index % len(SHAPES)], COLORS[index % len(COLORS)]), " ", name)


def _figures_line(index: int, target: TargetProgress, name_width: int) -> Text:
    offered = NOT_KNOWN if target.offered_per_s is None else sig3(target.offered_per_s)
    shown = (
        sig3(target.achieved_per_s),
        offered,
        count(target.in_flight),
        age(target.oldest_age_s) if target.in_flight else NOT_KNOWN,
        sig3(target.ttft_p50_ms),
        sig3(target.ttft_p99_ms),
        sig3(target.e2e_p50_ms),
        sig3(target.e2e_p99_ms),
        sig3(target.output_tokens_per_s),
    )
    cells = [(text, width) for text, (_, width) in zip(shown, LIVE_HEAD[1], strict=True)]
    return _line(target_name(index, target.name), cells, name_width)


def age(duration_s: float) -> str:
    """With a tenth while it matters: `12.3 s`, `124 s`."""
    return f"{duration_s:.1f} s" if duration_s < 99.95 else f"{duration_s:,.0f} s"


def _note(target: TargetProgress) -> Text:
    """The target's second line: what is out of the ordinary."""
    note = Text("  ", no_wrap=True, overflow="ellipsis")
    if target.stalled_s is not None:
        note.append(f"! no answer for {age(target.stalled_s)}", "bold red")
        note.append("  ")
    if target.errors:
        note.append(", ".join(f"{word} {count(n)}" for word, n in target.errors.items()), "red")
    elif target.stalled_s is None:
        note.append("no errors", "dim")
    for words, n in (("missed", target.missed), ("unknown", target.unknown)):
        if n:
            note.append(f"  {words} {count(n)}", "yellow")
    return note


def _stage_line(progress: Progress) -> Text:
    if progress.stage is None:
        return Text.assemble((progress.plan, "bold"), "  ", progress.phase)
    return Text.assemble(
        f"Stage {progress.stage_index + 1} of {progress.stage_count}  ",
        (progress.stage, "bold"),
        f"  {_phase(progress)}  {_elapsed(progress)}  ",
        _bar(progress),
        no_wrap=True,
        overflow="ellipsis",
    )


def _phase(progress: Progress) -> str:
    if progress.interrupted and progress.phase in ("running", "draining"):
        return "stopping"
    return "last answers" if progress.phase == "draining" else progress.phase


def _elapsed(progress: Progress) -> str:
    elapsed = clock(max(progress.elapsed_s, 0))
    if progress.planned_s is not None:
        return f"{elapsed} of {clock(progress.planned_s)}"
    if progress.planned_requests is not None:
        return f"{elapsed}  {count(_ended(progress))} of {count(_planned(progress))}"
    return elapsed


def _ended(progress: Progress) -> int:
    return sum(target.ended for target in progress.targets)


def _planned(progress: Progress) -> int:
    return (progress.planned_requests or 0) * len(progress.targets)


def _bar(progress: Progress) -> Text:
    whole, part = progress.planned_s, progress.elapsed_s
    if whole is None:
        whole, part = _planned(progress), _ended(progress)
    filled = round(BAR_WIDTH * min(max(part / whole, 0), 1)) if whole else 0
    return Text.assemble("━" * filled, ("─" * (BAR_WIDTH - filled), "dim"))


def clock(duration_s: float) -> str:
    """`0:34`, `12:05`, `1:02:05`."""
    minutes, whole = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def _generator_line(progress: Progress) -> Text:
    parts = [_workers(progress)]
    if progress.schedule_lag_p99_ms is not None:
        parts.append(f"schedule lag p99 {sig3(progress.schedule_lag_p99_ms)} ms")
    parts.append(f"over the last {WINDOW_S} s")
    return Text(" · ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")


def _workers(progress: Progress) -> str:
    states = {state: progress.worker_states.count(state) for state in progress.worker_states}
    known = [f"{n} {state}" for state, n in states.items()]
    lost = [f"{progress.workers_lost} LOST"] if progress.workers_lost else []
    return f"workers: {', '.join(known + lost) or 'none yet'}"


def _messages(progress: Progress) -> Iterator[Text]:
    for message in progress.messages[-3:]:
        yield Text.assemble(("! ", "bold red"), message)
    if progress.interrupted and progress.phase in ("running", "draining"):
        yield Text("Stopping: a few seconds for what is in flight. Ctrl-C again: at once.", style="yellow")


def lines(progress: Progress) -> Iterator[str]:
    """The same for a log: one line a target."""
    where = f"{clock(max(progress.elapsed_s, 0))} {progress.stage or progress.plan} {_phase(progress)}"
    for target in progress.targets:
        offered = "" if target.offered_per_s is None else f" of {sig3(target.offered_per_s)}"
        parts = [
            f"{sig3(target.achieved_per_s)}{offered} requests/s",
            f"{count(target.in_flight)} in flight, oldest {age(target.oldest_age_s)}",
            f"TTFT p50 {quantity(target.ttft_p50_ms, 'ms')} p99 {quantity(target.ttft_p99_ms, 'ms')}",
            f"E2E p50 {quantity(target.e2e_p50_ms, 'ms')} p99 {quantity(target.e2e_p99_ms, 'ms')}",
            f"{sig3(target.output_tokens_per_s)} tokens/s",
            _note(target).plain.strip(),
        ]
        yield f"{where} {target.name}: {'; '.join(parts)}"


# At the end


CLOSING_HEAD: tuple[Cells, Cells] = (
    (("", 17), ("TTFT, ms", 21), ("E2E, ms", 16), ("per s", 14)),
    (
        ("requests", 9),
        ("errors", 8),
        ("p50", 7),
        ("p95", 7),
        ("p99", 7),
        ("p50", 8),
        ("p99", 8),
        ("done", 6),
        ("tokens", 8),
    ),
)


def closing(summary: Summary, directory: Path, width: int = NARROW) -> Iterator[Text]:
    """Verdict, validity, account, targets, objectives, where the report is and what to look at next."""
    verdict = headline(summary)
    yield Text("")
    yield Text.assemble(_sign(verdict.state), (verdict.sentence, "bold"))
    if summary.interrupted:
        yield Text("  Interrupted: what was measured until then is kept and reported.", style="yellow")
    yield from _validity(summary)
    yield Text("")
    yield from (Text(f"  {line}", no_wrap=True) for line in account_lines(summary.integrity))
    if not summary.integrity.adds_up:
        yield Text("  ! the account does not add up", style="red")
    yield from _stages(summary, width)
    yield from _objectives(summary)
    yield Text("")
    yield from _next(summary, directory)


def _sign(state: State) -> Text:
    sign, style = SIGNS[state]
    return Text(f"{sign} ", style=style)


def _validity(summary: Summary) -> Iterator[Text]:
    if summary.validity.valid:
        lag = summary.generator.schedule_lag_ms.p99
        told = f", schedule lag p99 {sig3(lag)} ms" if lag is not None else ""
        yield Text(f"  VALID: the load generator did not limit the run (clock: {summary.generator.clock}{told}).")
    for found, advice in reasons(summary.validity):
        yield Text.assemble(("  INVALID ", "red"), found)
        yield Text(f"          {advice}", style="dim")


def _stages(summary: Summary, width: int) -> Iterator[Text]:
    name_width = _name_width(list(summary.targets), width)
    stages = dict.fromkeys(stage for target in summary.targets.values() for stage in target.stages)
    for stage in stages:
        yield Text("")
        yield _line(Text(f"  {stage}", style="bold"), CLOSING_HEAD[0], name_width, "dim not bold")
        yield _line(Text(""), CLOSING_HEAD[1], name_width, "dim")
        for index, (name, target) in enumerate(summary.targets.items()):
            if stage in target.stages:
                yield from _target_lines(target_name(index, name), target.stages[stage], name_width)


def _target_lines(name: Text, own: StageFigures, name_width: int) -> Iterator[Text]:
    rates = (sig3(own.requests_per_s), sig3(own.output_tokens_per_s))
    yield _line(
        name, _sized((count(own.requests), percent(own.error_rate), *_latencies(own, False), *rates)), name_width
    )
    if 0 < own.ok < own.requests:
        yield _line(
            Text("  failed = ∞", style="dim"), _sized(("", "", *_latencies(own, True), "", "")), name_width, "dim"
        )
    if own.errors:
        words = ", ".join(f"{word} {count(n)}" for word, n in own.errors.items())
        yield Text(f"  {words}", style="red")
    if own.saturated:
        yield Text("  reached the plan's max_in_flight: what was due beyond it was not sent", style="yellow")


def _latencies(own: StageFigures, failures: bool) -> tuple[str, ...]:
    ttft = (own.ttft_ms.with_failures or own.ttft_ms) if failures else own.ttft_ms
    e2e = (own.e2e_ms.with_failures or own.e2e_ms) if failures else own.e2e_ms
    return tuple(sig3(value) for value in (ttft.p50, ttft.p95, ttft.p99, e2e.p50, e2e.p99))


def _sized(shown: Sequence[str]) -> Cells:
    return [(text, width) for text, (_, width) in zip(shown, CLOSING_HEAD[1], strict=True)]


def _objectives(summary: Summary) -> Iterator[Text]:
    """Those that were not met, the breached first; none of a run that cannot judge."""
    if not summary.validity.valid:
        return
    open_ones = sorted((slo for slo in summary.slos if slo.outcome != "met"), key=lambda slo: slo.outcome)
    if open_ones:
        yield Text("")
    for slo in open_ones[:SLOS_NAMED]:
        yield from _objective(slo)
    if len(open_ones) > SLOS_NAMED:
        yield Text(f"  and {len(open_ones) - SLOS_NAMED} more: see the report", style="dim")


def _objective(slo: SloRow) -> Iterator[Text]:
    name = metric_title(slo.metric) + (f" {slo.stat}" if slo.stat else "")
    line = Text.assemble(
        _sign(slo.outcome),
        (slo.outcome, SIGNS[slo.outcome][1]),
        f"{'  ' if slo.outcome == 'undecided' else '   '}{slo.target}, {slo.stage}: {name}",
    )
    line.append(f" {measured(slo, slo.value)}, asked {limit(slo)}")
    yield line
    if slo.outcome == "undecided" and slo.more_requests:
        yield Text(f"             about {plural(slo.more_requests, 'more request')} would decide", style="dim")


def _next(summary: Summary, directory: Path) -> Iterator[Text]:
    yield Text(f"Report   {directory / 'report.html'}", no_wrap=True)
    yield Text(f"Figures  {directory / 'summary.json'}", no_wrap=True)
    yield Text(f"Rows     loadtest report {summary.run} --format csv", no_wrap=True)
    yield Text(f"Next     {_advice(summary)}")


def _advice(summary: Summary) -> str:
    if not summary.validity.valid:
        return "do what INVALID says above and run again"
    if summary.interrupted:
        return "let the next run go to its end"
    state = headline(summary).state
    if state == "breached":
        return "open the report: its charts show when, its errors why"
    if state == "undecided":
        return "run the undecided stages longer, by the requests named above"
    if state == "none":
        return "add `slos:` to the plan, so that the next run is judged"
    return "raise the load until an objective breaks: so much they can carry"


def catalogue(metrics: Iterable[Metric], console: Console | None = None) -> None:
    """`loadtest metrics`."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("metric", "unit", "better"):
        table.add_column(heading, no_wrap=True)
    table.add_column("definition")
    for metric in metrics:
        table.add_row(metric.name, metric.unit, metric.better, Text(metric.doc))
    (console or Console()).print(table, highlight=False)


def runs(rows: Iterable[Mapping[str, Any]], where: str, console: Console | None = None) -> None:
    """`loadtest runs`: stored runs, the newest last."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", no_wrap=True)
    table.add_column("plan")
    table.add_column("started, UTC", no_wrap=True)
    for heading in ("seconds", "requests", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        started = datetime.fromtimestamp(row["started_ns"] / 1e9, UTC)
        seconds = (row["ended_ns"] - row["started_ns"]) / 1e9
        figures = (f"{seconds:,.0f}", count(row["requests"]), count(row["failed"]))
        table.add_row(row["run"], row["plan_name"], f"{started:%Y-%m-%d %H:%M:%S}", *figures)
    console = console or Console()
    console.print(table if table.row_count else f"no runs yet in {where}; loadtest run PLAN makes one", highlight=False)


def final(figures: Mapping[str, Any], directory: Path, console: Console | None = None) -> None:
    """Prints how the run ended; `figures` in the form of summary.json."""
    console = console or Console()
    for line in closing(summary_of(figures), directory, console.width):
        console.print(line, soft_wrap=bool(line.no_wrap), highlight=False)


# The views


class View(Protocol):
    """Shows a run: within `with`, `show` is called with each snapshot, `say` with what happens outside of them."""

    def __enter__(self) -> "View": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, words: str) -> None: ...

    def show(self, snapshot: "Snapshot") -> None: ...


def view(quiet: bool = False, console: Console | None = None) -> View:
    """The one that suits where the output goes."""
    if quiet:
        return QuietView()
    console = console or Console(stderr=True)
    return TerminalView(console) if console.is_terminal else LineView(console)


class QuietView:
    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, words: str) -> None:
        pass

    def show(self, snapshot: "Snapshot") -> None:
        pass


class TerminalView:
    """Redraws in place. What was last shown stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._watch = Watch()
        self._drawn_at = float("-inf")  # monotonic

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, words: str) -> None:
        self._live.update(Text(words), refresh=True)

    def show(self, snapshot: "Snapshot") -> None:
        progress = self._watch.take(snapshot)
        if time.monotonic() - self._drawn_at >= REDRAW_EVERY_S or progress.phase == "done":
            self._drawn_at = time.monotonic()
            self._live.update(render(progress, self._live.console.width), refresh=True)


class LineView:
    """For a log: lines when a stage or phase begins, and every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._watch = Watch()
        self._printed_at = float("-inf")  # monotonic
        self._moment: tuple[str | None, str] | None = None

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, words: str) -> None:
        self._print(words)

    def show(self, snapshot: "Snapshot") -> None:
        progress = self._watch.take(snapshot)
        if progress.phase in ("storing", "done"):
            return
        moment = (progress.stage, _phase(progress))
        if moment == self._moment and time.monotonic() - self._printed_at < LINES_EVERY_S:
            return
        self._moment, self._printed_at = moment, time.monotonic()
        for line in lines(progress):
            self._print(line)

    def _print(self, words: str) -> None:
        self._console.print(Text(words), soft_wrap=True, highlight=False)
