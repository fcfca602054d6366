"""What the terminal shows while a run goes on: a calm view, or lines for a log.

`render` and `lines` are pure; the views print. In a terminal fixed columns are redrawn in place twice a second; elsewhere a
line a target comes every few seconds. Colour is never the only sign: a target has its shape, an error its word.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.live import Live
from rich.text import Text

from loadtest.columns import NARROW, Group, Layout, layout, wrapped
from loadtest.progress import WINDOW_S, DevicesNow, Progress, TargetProgress, Watch
from loadtest.report.words import NOT_KNOWN, count, quantity, sig3

if TYPE_CHECKING:
    from loadtest.run import Snapshot

REDRAW_EVERY_S = 0.5
LINES_EVERY_S = 5.0
BAR_WIDTH = 20
MOST_DEVICES = 4
SCREEN = 24  # rows

LIVE = (
    Group("requests/s", (("done", 6), ("due", 8))),
    Group("in flight", (("now", 7), ("oldest", 8))),
    Group("TTFT, ms", (("p50", 7), ("p99", 7))),
    Group("E2E, ms", (("p50", 8), ("p99", 8))),
    Group("tokens", (("/s", 8),)),
)
OF_TOKENS = ("TTFT, ms", "tokens")
"""Groups that say nothing where answers have no tokens."""


# While a run goes


def render(progress: Progress, width: int = NARROW, height: int = SCREEN) -> RenderableType:
    """The whole view: what concerns the run, then as many targets as fit below it.

    A target has two lines at all times, so that nothing jumps when something happens.
    """
    groups = [group for group in LIVE if progress.tokens or group.title not in OF_TOKENS]
    plan = layout([target.name for target in progress.targets], groups, width)
    top = [_stage_line(progress), *wrapped(_generator_line(progress), width)]
    top += wrapped(_devices_line(progress), width) if progress.devices else []
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


def _devices_line(progress: Progress) -> Text:
    line = Text("GPUs: ", style="dim")
    for number, each in enumerate(progress.devices[:MOST_DEVICES]):
        line.append(
            f"{' · ' if number else ''}{each.target} {', '.join(_doing(each))}", "yellow" if each.failed else ""
        )
    if (more := len(progress.devices) - MOST_DEVICES) > 0:
        line.append(f" · … and {more} more")
    return line


def _doing(devices: DevicesNow) -> Iterator[str]:
    """What is known, then what is not and why."""
    shown = (
        ("utilization", devices.utilization, "{:.0%}".format),
        ("power", devices.power_w, "{:,.0f} W".format),
        ("KV cache", devices.kv_cache, "{:.0%}".format),
        ("queue", devices.queue, "{:,.0f}".format),
    )
    yield from (f"{name} {told(value)}" for name, value, told in shown if value is not None)
    lacking = [name for name, value, _ in shown if value is None]
    yield from (f"{source} does not answer: {word}" for source, word in devices.failed.items())
    if devices.stale_s is not None:
        yield f"the last values are {age(devices.stale_s)} old"
    elif lacking and not devices.failed:
        yield f"{' and '.join(lacking)} not provided" if len(lacking) < len(shown) else "not provided"


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
    devices = {each.target: f"; GPUs: {', '.join(_doing(each))}" for each in progress.devices}
    for target in progress.targets:
        yield f"{where} {target.name}: {'; '.join(_told(target, progress.tokens))}{devices.get(target.name, '')}"


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
    """For a log: lines when a stage or phase begins and every few seconds; of the last answers, and of a target
    to which nothing was sent yet, only what changed."""

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
            idle = progress.phase == "draining" or not (target.ended or target.in_flight)
            if began or not idle or counts != self._counts.get(target.name):
                self._print(line)
            self._counts[target.name] = counts

    def _tell(self, messages: Iterable[str]) -> None:
        for message in messages:
            if message not in self._told:
                self._told.add(message)
                self._print(f"! {message}")

    def _print(self, words: str) -> None:
        self._console.print(Text(words), soft_wrap=True, highlight=False)
