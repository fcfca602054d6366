"""The terminal: a calm view while a run goes, and what it came to at its end.

`render`, `lines` and `closing` are pure; the views at the bottom print. In a terminal fixed columns are redrawn in
place twice a second; elsewhere a line a target comes every few seconds. Colour is never the only sign: a target has its
shape, an outcome its word. 80 columns are enough, and more go to the targets' names; in fewer the last groups of figures
are left out.
"""

import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtest.definitions import DEFINITIONS
from loadtest.history import Counted, Listed
from loadtest.progress import WINDOW_S, Progress, TargetProgress, Watch
from loadtest.report import stops, warm_ups
from loadtest.report.headline import (
    State,
    account_lines,
    failed_targets,
    headline,
    limit,
    measured,
    reasons,
    warm_up_line,
)
from loadtest.report.model import SloRow, StageFigures, Summary, summary_of
from loadtest.report.words import (
    NOT_KNOWN,
    count,
    elided,
    metric_title,
    percent,
    plural,
    quantity,
    said,
    sig3,
    told_apart,
)
from loadtest.types import Metric

if TYPE_CHECKING:
    from loadtest.run import Snapshot

REDRAW_EVERY_S = 0.5
LINES_EVERY_S = 5.0
NARROW = 80
NAME_WIDTHS = (12, 32)
BAR_WIDTH = 20
SLOS_NAMED = 8
ERRORS_NAMED = 8
DETAIL_LENGTH = 240
SCREEN = 24  # rows

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

Columns = Sequence[tuple[str, int]]
"""Heading and width of columns; texts are right-aligned in them."""


class Group(Struct, frozen=True):
    title: str
    columns: Columns

    @property
    def width(self) -> int:
        return sum(width for _, width in self.columns)


LIVE = (
    Group("requests/s", (("done", 6), ("due", 8))),
    Group("in flight", (("now", 7), ("oldest", 8))),
    Group("TTFT, ms", (("p50", 7), ("p99", 7))),
    Group("E2E, ms", (("p50", 8), ("p99", 8))),
    Group("tokens", (("/s", 8),)),
)
OF_TOKENS = ("TTFT, ms", "tokens")
"""Groups that say nothing where answers have no tokens."""


class Layout(Struct, frozen=True):
    """What fits: the width of the names, and the groups of figures beside them, the first ones first."""

    name_width: int
    groups: tuple[Group, ...]
    names: dict[str, str]  # each as it is shown, in at most `name_width` with its sign and a space after it

    def name(self, index: int, name: str) -> Text:
        sign = (SHAPES[index % len(SHAPES)], COLORS[index % len(COLORS)])
        return Text.assemble(sign, " ", self.names[name])

    def head(self, title: Text) -> Iterator[Text]:
        yield self._line(title, [(group.title, group.width) for group in self.groups], "dim not bold")
        yield self._line(Text(""), self._columns(), "dim")

    def line(self, name: Text, shown: Sequence[str], style: str = "") -> Text:
        """`shown` has a text for each column of all groups; those that do not fit are left out."""
        widths = [width for _, width in self._columns()]
        return self._line(name, list(zip(shown, widths, strict=False)), style)

    def _columns(self) -> list[tuple[str, int]]:
        return [column for group in self.groups for column in group.columns]

    def _line(self, name: Text, cells: Columns, style: str) -> Text:
        line = name.copy()
        line.pad_right(self.name_width - line.cell_len)
        line.append("".join(text.rjust(width) for text, width in cells), style)
        line.no_wrap = True
        return line


def layout(names: Sequence[str], groups: Sequence[Group], width: int) -> Layout:
    low, high = NAME_WIDTHS
    longest = max(map(len, names), default=0) + 3
    fit = list(groups)
    while len(fit) > 1 and low + sum(group.width for group in fit) > width:
        fit.pop()
    room = width - sum(group.width for group in fit)
    name_width = max(low, min(longest, high, room))
    return Layout(name_width, tuple(fit), told_apart(names, name_width - 3))


def wrapped(line: Text, width: int) -> Iterator[Text]:
    """A line that is too long goes on below where its words began: after its sign or its first column."""
    plain = line.plain
    indent = len(plain) - len(plain.lstrip())
    column = plain.find("  ", indent, indent + LABEL_WIDTH)
    sign = plain[indent + 1 : indent + 2] == " "
    hang = len(plain) - len(plain[column:].lstrip()) if column > 0 else indent + 2 * sign
    if line.no_wrap or len(plain) <= width or hang > width // 2:
        yield line
        return
    first, rest = line.divide([hang])
    for part in rest.wrap(_PLAIN, width - hang):
        part.rstrip()
        yield Text.assemble(first, part)
        first = Text(" " * hang)


LABEL_WIDTH = 24
_PLAIN = Console(no_color=True)


# While a run goes


def render(progress: Progress, width: int = NARROW, height: int = SCREEN) -> RenderableType:
    """The whole view: what concerns the run, then as many targets as fit below it.

    A target has two lines at all times, so that nothing jumps when something happens.
    """
    groups = [group for group in LIVE if progress.tokens or group.title not in OF_TOKENS]
    plan = layout([target.name for target in progress.targets], groups, width)
    top = [_stage_line(progress), *wrapped(_generator_line(progress), width)]
    top += [part for message in _messages(progress) for part in wrapped(message, width)]
    room = max(1, (height - 1 - len(top) - 3) // 2)
    fit = len(progress.targets) if len(progress.targets) <= room else max(1, room - 1)
    rows = [
        line
        for index, target in enumerate(progress.targets[:fit])
        for line in (_figures_line(index, target, plan, progress.tokens), _note(target))
    ]
    return Lines(*top, Text(""), *plan.head(Text("")), *rows, *_more(progress.targets[fit:]))


def _more(hidden: Sequence[TargetProgress]) -> Iterator[Text]:
    if hidden:
        troubled = [target.name for target in hidden if target.errors or target.stalled_s is not None]
        told = f", {len(troubled)} of them in trouble: {', '.join(troubled)}" if troubled else ""
        yield Text(
            f"… and {len(hidden)} more{told}", style="yellow" if troubled else "dim", no_wrap=True, overflow="ellipsis"
        )


def _figures_line(index: int, target: TargetProgress, plan: Layout, tokens: bool) -> Text:
    shown = (
        sig3(target.achieved_per_s),
        sig3(target.offered_per_s),
        count(target.in_flight),
        age(target.oldest_age_s) if target.in_flight else NOT_KNOWN,
        *((sig3(target.ttft_p50_ms), sig3(target.ttft_p99_ms)) if tokens else ()),
        sig3(target.e2e_p50_ms),
        sig3(target.e2e_p99_ms),
        *((sig3(target.output_tokens_per_s),) if tokens else ()),
    )
    return plan.line(plan.name(index, target.name), shown)


def age(duration_s: float) -> str:
    """With a tenth while it matters: `12.3 s`, `124 s`."""
    return f"{duration_s:.1f} s" if duration_s < 99.95 else f"{duration_s:,.0f} s"


NO_ERRORS = "no errors"


def _note(target: TargetProgress) -> Text:
    """The target's second line: what is out of the ordinary."""
    note = Text("  ", no_wrap=True, overflow="ellipsis")
    if target.stalled_s is not None:
        note.append(f"! no answer for {age(target.stalled_s)}", "bold red")
        note.append("  ")
    if target.errors:
        note.append(", ".join(f"{word} {count(n)}" for word, n in target.errors.items()), "red")
    elif target.stalled_s is None:
        note.append(NO_ERRORS, "dim")
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
    parts = [_workers(progress), *progress.notes]
    if progress.schedule_lag_p99_ms is not None:
        parts.append(f"schedule lag p99 {sig3(progress.schedule_lag_p99_ms)} ms")
    parts.append(f"over the last {WINDOW_S} s")
    return Text(" · ".join(parts), style="dim")


def _workers(progress: Progress) -> str:
    states = {state: progress.worker_states.count(state) for state in progress.worker_states}
    known = [f"{n} {state}" for state, n in states.items()]
    lost = [f"{progress.workers_lost} LOST"] if progress.workers_lost else []
    return f"workers: {', '.join(lost + known) or 'none yet'}"


def _messages(progress: Progress) -> Iterator[Text]:
    for message in progress.messages[-3:]:
        yield Text.assemble(("! ", "bold red"), message)
    if progress.interrupted and progress.phase in ("running", "draining"):
        yield Text("Stopping: a few seconds for what is in flight. Ctrl-C again: at once.", style="yellow")


def lines(progress: Progress) -> Iterator[str]:
    """The same for a log: one line a target."""
    where = f"{clock(max(progress.elapsed_s, 0))} {progress.stage or progress.plan} {_phase(progress)}"
    for target in progress.targets:
        yield f"{where} {target.name}: {'; '.join(_told(target, progress.tokens))}"


def _told(target: TargetProgress, tokens: bool) -> Iterator[str]:
    """Two rates of one window, which need not agree: what is done now was due before."""
    note = _note(target).plain.strip()
    if not target.ended and not target.in_flight:
        yield "nothing sent yet" if note == NO_ERRORS else f"nothing in flight; {note}"
        return
    due, done = sig3(target.offered_per_s), sig3(target.achieved_per_s)
    yield f"{done} requests/s done" if target.offered_per_s is None else f"{due} requests/s due, {done} done"
    yield f"{count(target.in_flight)} in flight" + (f", oldest {age(target.oldest_age_s)}" if target.in_flight else "")
    if target.e2e_p50_ms is not None:
        e2e = f"E2E p50 {quantity(target.e2e_p50_ms, 'ms')} p99 {quantity(target.e2e_p99_ms, 'ms')}"
        ttft = f"TTFT p50 {quantity(target.ttft_p50_ms, 'ms')} p99 {quantity(target.ttft_p99_ms, 'ms')}"
        yield from (ttft, e2e, f"{sig3(target.output_tokens_per_s)} tokens/s") if tokens else (e2e,)
    yield note


# At the end


CLOSING = (
    Group("", (("requests", 9), ("errors", 8))),
    Group("TTFT, ms", (("p50", 7), ("p95", 7), ("p99", 7))),
    Group("E2E, ms", (("p50", 8), ("p99", 8))),
    Group("per s", (("done", 6), ("tokens", 8))),
)
CLOSING_WITHOUT_TOKENS = (CLOSING[0], CLOSING[2], Group("per s", (("done", 6),)))


def closing(summary: Summary, directory: Path, width: int = NARROW, store: str | None = None) -> Iterator[Text]:
    """Verdict, validity, account, targets, objectives, where the report is and what to look at next.

    `store` is what `--store` must say to find the run again; None: nothing.
    """
    for line in _closing(summary, directory, width, store):
        yield from wrapped(line, width)


def _closing(summary: Summary, directory: Path, width: int, store: str | None) -> Iterator[Text]:
    verdict = headline(summary)
    yield Text("")
    yield Text.assemble(_sign(verdict.state), (verdict.sentence, "bold"))
    if summary.interrupted:
        yield Text("  What was measured until the interruption is kept and reported.", style="yellow")
    yield from _validity(summary)
    yield Text("")
    yield from (Text(f"  {line}") for line in (*account_lines(summary.integrity), warm_up_line(summary)) if line)
    if not summary.integrity.adds_up:
        yield Text("  ! the account does not add up", style="red")
    yield from _stages(summary, width)
    yield from _objectives(summary)
    yield Text("")
    yield from _next(summary, directory, store)


def _sign(state: State) -> Text:
    sign, style = SIGNS[state]
    return Text(f"{sign} ", style=style)


def _validity(summary: Summary) -> Iterator[Text]:
    if summary.validity.valid:
        own = summary.generator
        lag = own.schedule_lag_ms.p99
        parts = [f"clock: {own.clock}"] if own.clock else []
        parts += [f"schedule lag p99 {sig3(lag)} ms"] if lag is not None else []
        told = f" ({', '.join(parts)})" if parts else ""
        yield Text(f"  VALID: the load generator did not limit the run{told}.")
    for found, advice in reasons(summary.validity):
        yield Text.assemble(("  INVALID  ", "red"), found)
        yield Text(f"           {advice}", style="dim")


def _stages(summary: Summary, width: int) -> Iterator[Text]:
    tokens = _has_tokens(summary)
    plan = layout(list(summary.targets), CLOSING if tokens else CLOSING_WITHOUT_TOKENS, width)
    stages = dict.fromkeys(stage for target in summary.targets.values() for stage in target.stages)
    for stage in stages:
        yield Text("")
        yield from plan.head(Text(f"  {elided(stage, plan.name_width + 6)}", style="bold"))
        for index, (name, target) in enumerate(summary.targets.items()):
            if stage in target.stages:
                yield from _target_lines(plan.name(index, name), target.stages[stage], plan, tokens)
        told = (*stops.sentences(summary, stage), *warm_ups.sentences(summary, stage))
        yield from (Text(f"  {sentence}", style="dim") for sentence in told)


def _has_tokens(summary: Summary) -> bool:
    """Whether any answer did, or none came to tell. A dialect such as http looks for none."""
    every = [own for target in summary.targets.values() for own in target.stages.values()]
    return any(own.ttft_ms.n or own.output_tokens for own in every) or not any(own.ok for own in every)


def _target_lines(name: Text, own: StageFigures, plan: Layout, tokens: bool) -> Iterator[Text]:
    rates = (sig3(own.requests_per_s), *((sig3(own.output_tokens_per_s),) if tokens else ()))
    yield plan.line(name, (count(own.requests), percent(own.error_rate), *_latencies(own, False, tokens), *rates))
    if own.ok and own.faults:
        yield plan.line(Text("  failed = ∞", style="dim"), ("", "", *_latencies(own, True, tokens)), "dim")
    yield from _errors(own)
    if own.blurred(own.ttft_ms.p50):
        exact = sig3(own.uncertainty_p99_ms)
        yield Text(f"  the TTFT p50 is smaller than what the stamps are exact to: {exact} ms at p99", style="yellow")
    if own.saturated:
        yield Text("  reached the plan's max_in_flight: what was due beyond it was not sent", style="yellow")


def _errors(own: StageFigures) -> Iterator[Text]:
    """A line a word, the most frequent first, each with one of its details."""
    words = sorted(own.errors, key=lambda word: -own.errors[word])
    for word in words[:ERRORS_NAMED]:
        line = Text.assemble("  ", (f"{word} {count(own.errors[word])}", "red"))
        if detail := said(own.error_examples.get(word, "")):
            line.append(f"  {detail if len(detail) <= DETAIL_LENGTH else detail[: DETAIL_LENGTH - 1] + '…'}", "dim")
        yield line
    if len(words) > ERRORS_NAMED:
        yield Text(f"  and {len(words) - ERRORS_NAMED} more kinds of error: see the report", style="dim")


def _latencies(own: StageFigures, failures: bool, tokens: bool) -> tuple[str, ...]:
    ttft = (own.ttft_ms.with_failures or own.ttft_ms) if failures else own.ttft_ms
    e2e = (own.e2e_ms.with_failures or own.e2e_ms) if failures else own.e2e_ms
    of_tokens = (ttft.p50, ttft.p95, ttft.p99) if tokens else ()
    return tuple(sig3(value) for value in (*of_tokens, e2e.p50, e2e.p99))


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
    elif slo.advice:
        yield Text(f"             {slo.advice}", style="dim")


def _next(summary: Summary, directory: Path, store: str | None) -> Iterator[Text]:
    where = f" --store {shlex.quote(store)}" if store else ""
    rows = f"{shlex.quote(called_as())} report {summary.run} --format csv{where}"
    yield Text(f"Report   {directory / 'report.html'}", no_wrap=True)
    yield Text(f"Figures  {directory / 'summary.json'}", no_wrap=True)
    yield Text(f"Rows     {rows}", no_wrap=True)
    yield Text(f"Page     {shlex.quote(called_as())} ui{where}", no_wrap=True)
    yield Text(f"Next     {_advice(summary)}")


def called_as(arguments: Sequence[str] = sys.argv, here: Path | None = None) -> str:
    """This command as its caller can type it again: `loadtest` where the PATH finds this one, else its path."""
    called = Path(arguments[0]).absolute()
    if called.name != "loadtest":
        return "loadtest"
    found = shutil.which("loadtest")
    if found and Path(found).absolute() == called:
        return "loadtest"
    here = here or Path.cwd()
    return str(called.relative_to(here)) if called.is_relative_to(here) else str(called)


def _advice(summary: Summary) -> str:
    if failed := failed_targets(summary):  # before what else is wrong: no other remedy would help
        return f"see above why nothing succeeded at {', '.join(failed)}, and run again"
    if not summary.validity.valid:
        return "do what INVALID says above and run again"
    if summary.interrupted:
        return "let the next run go to its end"
    state = headline(summary).state
    if state == "breached":
        return "open the report: its charts show when, its errors why"
    if state == "undecided":
        if any(slo.outcome == "undecided" and slo.more_requests for slo in summary.slos):
            return "run the undecided stages longer, by the requests named above"
        return "see beside each undecided objective what it lacks"
    if state == "none":
        where = "give --slo" if summary.locustfile else "add `slos:` to the plan"
        return f"{where}, so that the next run is judged"
    return "raise the rate and run again: the highest one that meets every objective is what they carry"


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


def final(
    figures: Mapping[str, Any], directory: Path, store: str | None = None, console: Console | None = None
) -> None:
    """Prints how the run ended; `figures` in the form of summary.json."""
    console = console or Console()
    for line in closing(summary_of(figures), directory, console.width, store):
        line.rstrip()
        console.print(line, soft_wrap=True, highlight=False)


# The views


class View(Protocol):
    """Shows a run: within `with`, `show` is called with each snapshot, `say` with what happens outside of them."""

    def __enter__(self) -> "View": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, words: str) -> None: ...

    def show(self, snapshot: "Snapshot") -> None: ...

    def draw(self, progress: Progress) -> None:
        """What `show` does, where somebody else keeps watch."""


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

    def draw(self, progress: Progress) -> None:
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
        self.draw(self._watch.take(snapshot))

    def draw(self, progress: Progress) -> None:
        if time.monotonic() - self._drawn_at >= REDRAW_EVERY_S or progress.phase == "done":
            self._drawn_at = time.monotonic()
            console = self._live.console
            self._live.update(render(progress, console.width, console.height), refresh=True)


class LineView:
    """For a log: lines when a stage or phase begins and every few seconds; of the last answers only what changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._watch = Watch()
        self._printed_at = float("-inf")  # monotonic
        self._moment: tuple[str | None, str] | None = None
        self._told: set[str] = set()
        self._counts: dict[str, object] = {}  # of each target when it was last printed

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, words: str) -> None:
        self._print(words)

    def show(self, snapshot: "Snapshot") -> None:
        self.draw(self._watch.take(snapshot))

    def draw(self, progress: Progress) -> None:
        self._tell(progress.messages)
        if progress.phase in ("storing", "done"):
            return
        moment = (progress.stage, _phase(progress))
        began = moment != self._moment
        if not began and time.monotonic() - self._printed_at < LINES_EVERY_S:
            return
        self._moment, self._printed_at = moment, time.monotonic()
        for target, line in zip(progress.targets, lines(progress), strict=True):
            counts = (target.in_flight, target.ended, target.errors, target.stalled_s is None)
            if began or progress.phase != "draining" or counts != self._counts.get(target.name):
                self._print(line)
            self._counts[target.name] = counts

    def _tell(self, messages: Iterable[str]) -> None:
        for message in messages:
            if message not in self._told:
                self._told.add(message)
                self._print(f"! {message}")

    def _print(self, words: str) -> None:
        self._console.print(Text(words), soft_wrap=True, highlight=False)
