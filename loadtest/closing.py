"""What a run came to, on the terminal: verdict, account, figures, what was not met, and where to look next."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from loadtest.columns import NARROW, Group, Layout, layout, wrapped
from loadtest.report import stops, warm_ups
from loadtest.report.headline import (
    State,
    account_lines,
    failed_targets,
    headline,
    limit,
    measured,
    nothing_measured,
    reasons,
    warm_up_line,
)
from loadtest.report.model import SloRow, StageFigures, Summary, summary_of
from loadtest.report.words import (
    count,
    elided,
    metric_title,
    percent,
    plural,
    said,
    sig3,
)

SLOS_NAMED = 8
ERRORS_NAMED = 8
DETAIL_LENGTH = 240

SIGNS: dict[State, tuple[str, str]] = {
    "met": ("✔", "green"),
    "breached": ("✘", "red"),
    "undecided": ("?", "yellow"),
    "invalid": ("!", "red"),
    "none": ("·", ""),
}

CLOSING = (
    Group("", (("requests", 9), ("errors", 8))),
    Group("TTFT, ms", (("p50", 7), ("p95", 7), ("p99", 7))),
    Group("E2E, ms", (("p50", 8), ("p99", 8))),
    Group("per s", (("done", 6), ("tokens", 8))),
)
CLOSING_WITHOUT_TOKENS = (CLOSING[0], CLOSING[2], Group("", (("done/s", 8),)))


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
    if summary.interrupted and not nothing_measured(summary):
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
    if summary.validity.valid and not nothing_measured(summary):
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
        title = Text(f"  {elided(stage, plan.name_width + 6)}", style="bold")
        if not any(target.stages[stage].requests for target in summary.targets.values() if stage in target.stages):
            yield title.append("  no request", "not bold dim")
            continue
        yield from plan.head(title)
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
    if again := own.after_retries:
        told = f"{plural(again.retried, 'further attempt')}: {percent(again.success_rate)} of the requests succeeded in the end"
        yield Text(f"  {told}", style="dim")
    if own.blurred(own.ttft_ms.p50):
        exact = sig3(own.uncertainty_p99_ms)
        yield Text(
            f"  in 1% of the requests a stamp may be off by {exact} ms or more: beyond the TTFT p50", style="yellow"
        )
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
    """Those that were not met, the breached first; none of a run that cannot judge, or has nothing to judge."""
    if not summary.validity.valid or nothing_measured(summary):
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
    if nothing_measured(summary):
        return "raise the rate or make the stages longer, until something is due in them"
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


def final(
    figures: Mapping[str, Any], directory: Path, store: str | None = None, console: Console | None = None
) -> None:
    """Prints how the run ended; `figures` in the form of summary.json."""
    console = console or Console()
    for line in closing(summary_of(figures), directory, console.width, store):
        line.rstrip()
        console.print(line, soft_wrap=True, highlight=False)
