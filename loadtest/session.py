"""`loadtest run` from its arguments to its exit status: the order of things, each of which lives elsewhere.

Nothing is sent before the plan, the keys, the store and the fleet are known to be good.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Tracer, set_span_in_context

from loadtest import __version__, calibrate, capacity, closing, gpu, history, listings, live, rounds, tokens
from loadtest import plan as plans
from loadtest.account import account
from loadtest.control import Control
from loadtest.detach import good_id
from loadtest.errors import NotWritten, ResultsNotStored, RunFailed
from loadtest.exporter import SpanExporter
from loadtest.frames import Setup
from loadtest.losses import settle
from loadtest.progress import DevicesNow
from loadtest.provenance import Provenance, provenance
from loadtest.recorder import Recorder
from loadtest.report import export, html, others
from loadtest.report.summary import NoSuchRun, exit_status, summary
from loadtest.run import Check, Driver, Fleet, Interrupts, LocalFleet, Place, Say, Snapshot, with_nonce
from loadtest.spans import RESOURCE, SCOPE, id_of
from loadtest.stopping import Stopping
from loadtest.store import Address, Store, StoreError, open_store
from loadtest.types import Plan
from loadtest.validity import Account, Stop

INTERRUPTED = "SELECT JSONExtractBool(account, 'interrupted') AS interrupted FROM runs WHERE run = {run:String}"
MakeFleet = Callable[[list[Setup], Address, Path, Say, Check], Fleet]


def run(
    path: Path,
    make_fleet: MakeFleet,
    workers: int | None,
    store: str | None,
    out: Path | None,
    quiet: bool,
    run_id: str | None = None,
) -> int:
    """Run the plan at `path`. Returns the exit status; raises UserError before anything is sent."""
    plan = with_nonce(plans.load(path))
    if workers:
        plan = plans.with_workers(plan, workers)
    keys, gpu_keys = plans.resolve_keys(plan), plans.resolve_gpu_keys(plan)
    for warning in capacity.warnings(plan, calibrate.known(), calibrate.cores() if make_fleet is LocalFleet else None):
        print(f"warning: {warning}", file=sys.stderr)
    run_id = good_id(run_id)
    made = provenance(plan, keys)

    def drive(database: Store, directory: Path, interrupts: Interrupts, view: live.View, recorder: Recorder) -> Driven:
        with gpu.sampled(plan, gpu_keys, run_id, database.address) as devices:
            return _drive(plan, run_id, keys, make_fleet, database, directory, interrupts, view, recorder, devices)

    return carry_out(drive, plan, plans.dump, run_id, plan.store if store is None else store, out, quiet, made)


Driven = tuple[Snapshot, list[Stop]]
Drive = Callable[[Store, Path, Interrupts, live.View, Recorder], Driven]


def carry_out(
    drive: Drive,
    plan: Plan,
    text_of: Callable[[Plan], str],
    run_id: str,
    store: str | None,
    out: Path | None,
    quiet: bool,
    made: Provenance | None = None,
) -> int:
    """A run within its store and directory, and its report. `text_of` the plan is what is stored of it, `made` what is
    told of where it comes from."""
    made = made or provenance(plan, {})
    directory = (out or Path("runs") / run_id).resolve()
    with Interrupts().caught() as interrupts, open_store(store) as database:
        database.migrate()
        _refuse_known(database, run_id)
        _begin_directory(directory, text_of(plan))
        with (
            Control(run_id, directory, interrupts) as control,
            Recorder(database.address, plan, run_id, text_of(plan)) as recorder,
        ):
            snapshot, stops = drive(database, directory, interrupts, control.beside(live.view(quiet)), recorder)
            try:
                figures = _report(database, snapshot, stops, made, text_of)
                unwritten = _write(database, directory, figures)
            except (StoreError, NoSuchRun) as e:
                frames = directory / "*.frames"
                raise ResultsNotStored(
                    f"the run is over, but its store failed: {e}; its results are in {frames}"
                ) from e
            recorder.say_verdicts(figures)
            status = NotWritten.exit_status if unwritten else exit_status(figures, snapshot.interrupted)
            control.end(status)
    closing.final(figures, directory, store)
    if unwritten:
        raise NotWritten(
            f"{unwritten}; the run is in the store: {closing.called_as()} report {run_id} --out DIR writes its report"
        )
    return status


def _refuse_known(store: Store, run_id: str) -> None:
    """A run id runs once: whoever starts jobs may start one again, which would repeat load that somebody pays for."""
    if history.listed(store, only=run_id):
        raise RunFailed(
            f"the run {run_id} is in the store {store.address} already, and a run id runs once; nothing was sent"
        )


def _begin_directory(directory: Path, text: str) -> None:
    """A run's directory is its own: files of two runs side by side would be taken for one."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.glob("*.frames")):
            raise RunFailed(f"{directory} holds the frames of another run; give another --out, or remove it")
        (directory / "plan.yaml").write_text(text, encoding="utf-8")
    except OSError as e:
        raise RunFailed(f"nothing can be written to {directory}: {e.strerror}; give another --out") from None


def _report(
    store: Store,
    snapshot: Snapshot,
    stops: list[Stop],
    made: Provenance,
    text_of: Callable[[Plan], str],
) -> dict[str, Any]:
    """Record the run in the store, and read it back from there. Returns summary.json's content."""
    settle(store, snapshot)
    rows = store.query("SELECT count() AS n FROM requests WHERE run = {run:String}", {"run": snapshot.run})
    booked = account(snapshot, rows[0]["n"])
    booked.stops = stops
    nodes = sorted({place.node for place in snapshot.places if place.node})
    booked.provenance = msgspec.structs.replace(made, nodes=nodes)
    text = text_of(rounds.original(snapshot.plan))
    record(store, snapshot, booked, text)
    return summary(store, snapshot.run)


def _write(store: Store, directory: Path, figures: dict[str, Any]) -> str:
    """The run's files; empty, or why one is not there. None is left half written."""
    [run] = store.query("SELECT plan FROM runs WHERE run = {run:String} LIMIT 1", {"run": figures["run"]})
    files: dict[str, Callable[[], str]] = {
        "plan.yaml": lambda: run["plan"],
        "summary.json": lambda: json.dumps(figures, indent=1) + "\n",
        "report.html": lambda: html.render(html.load(store, figures["run"])),
    }
    for name, text in files.items():
        if problem := write_whole(directory / name, text()):
            return problem
    return ""


def write_whole(path: Path, text: str) -> str:
    """Empty, or why it could not be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as e:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        return f"{path} cannot be written: {e.strerror}"
    return ""


def _drive(
    plan: Plan,
    run_id: str,
    keys: dict[str, str],
    make_fleet: MakeFleet,
    store: Store,
    directory: Path,
    interrupts: Interrupts,
    view: live.View,
    recorder: Recorder,
    devices: Callable[[], list[DevicesNow]],
) -> Driven:
    shards = plan.fleet.workers
    plan = rounds.expanded(plan)
    located = tokens.located(plan)
    setups = [Setup(run_id, located, keys, shard, shards) for shard in range(shards)]
    stopping = Stopping(plan, store.query)

    def show(snapshot: Snapshot) -> None:
        recorder.note(snapshot)
        snapshot.devices = devices()
        view.show(snapshot)

    with view:
        view.say("starting the workers")
        fleet = make_fleet(setups, store.address, directory, view.say, interrupts.check)
        try:
            snapshot = Driver(plan, run_id, fleet, show, interrupts, stopping).go()
            fleet.fetch_frames()
        finally:
            fleet.close()
    return snapshot, stopping.stops


def report(run: str, format: str, out: Path | None, check: bool, store: str | None) -> int:
    """`loadtest report`: a stored run again. Returns 0, or with `check` the run's own exit status."""
    with open_store(store) as database:
        database.migrate()
        run_id = find_run(database, run)
        figures = summary(database, run_id)
        text = {
            "html": lambda: html.render(html.load(database, run_id)),
            "json": lambda: json.dumps(figures, indent=1) + "\n",
            "csv": lambda: export.csv_of(figures),
        }[format]()
        interrupted = bool(database.query(INTERRUPTED, {"run": run_id})[0]["interrupted"])
    if out is None and format != "html":
        print(text, end="")
    else:
        directory = out or Path("runs") / run_id
        path = directory / {"html": "report.html", "json": "summary.json", "csv": "figures.csv"}[format]
        if problem := write_whole(path, text):
            raise RunFailed(f"{problem}; give another --out")
        print(path)
    return exit_status(figures, interrupted) if check else 0


def report_as(run: str, tool: str, format: str, out: Path | None, store: str | None) -> None:
    """`loadtest report --as`: what another tool would have printed of a stored run."""
    tools = others.tools_named(tool)
    with open_store(store) as database:
        database.migrate()
        run_id = find_run(database, run)
        figures = others.said(database, run_id, tools, others.groups(database, run_id), tools[0].stats)
    text = {
        "html": lambda: "\n".join(others.plain(run_id, tools, figures)) + "\n",
        "json": lambda: json.dumps(others.as_json(run_id, tools, figures), indent=1) + "\n",
        "csv": lambda: others.as_csv(run_id, figures),
    }[format]()
    if out is None:
        print(text, end="")
        return
    path = out / f"as-{tool}.{'txt' if format == 'html' else format}"
    if problem := write_whole(path, text):
        raise RunFailed(f"{problem}; give another --out")
    print(path)


def find_run(store: Store, run: str) -> str:
    """The id of the one run that `run` means: an id, its beginning, or "last"."""
    rows = store.query("SELECT run FROM runs ORDER BY started_ns")
    known = [row["run"] for row in rows]
    if run == "last" and known:
        return str(known[-1])
    found = [name for name in known if name == run] or [name for name in known if name.startswith(run)]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise RunFailed(f"{run} is the beginning of {len(found)} runs: {', '.join(found[-5:])}; write more of it")
    newest = f"the newest is {known[-1]}" if known else "it holds none yet"
    raise RunFailed(f"there is no run {run} in the store {store.address}; {newest} (loadtest runs lists them)")


def list_runs(store: str | None) -> None:
    with open_store(store) as database:
        database.migrate()
        found = history.listed(database, most=history.ALL)[::-1]
        listings.runs(found, history.counted(database, found), str(database.address))


def record(store: Store, snapshot: Snapshot, booked: Account, text: str | None = None) -> None:
    """The spans of the run, its stages and its workers, by opentelemetry-sdk: they feed the tables runs and stages.

    `text` in place of the plan's own, where none was written.
    """
    exporter, ids = SpanExporter(store), Ids(snapshot.run)
    provider = TracerProvider(resource=Resource(RESOURCE), shutdown_on_exit=False, id_generator=ids)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer(SCOPE, __version__)
    _record_spans(tracer, ids, snapshot, booked, text)
    provider.shutdown()
    if exporter.failure:
        raise StoreError(exporter.failure)


def _prices(plan: Plan) -> dict[str, tuple[float, float, str]]:
    """What a million tokens cost at each target that has a price: input, output, currency."""
    return {
        t.name: (t.price.input_per_million, t.price.output_per_million, t.price.currency)
        for t in plan.targets
        if t.price
    }


class Ids(IdGenerator):
    """Ids that requests know before the spans are made: `span` is what the next one is of."""

    def __init__(self, run: str) -> None:
        self._run = run
        self.span: tuple[str | int, ...] = ("run",)

    def generate_trace_id(self) -> int:
        return int(id_of(self._run), 16)

    def generate_span_id(self) -> int:
        return int(id_of(self._run, *self.span), 16)


def _record_spans(tracer: Tracer, ids: Ids, snapshot: Snapshot, booked: Account, text: str | None) -> None:
    plan, run_id = snapshot.plan, snapshot.run
    written = rounds.original(plan)
    positions = {stage.name: position for position, stage in enumerate(written.stages)}
    root = tracer.start_span(
        "run",
        start_time=snapshot.started_ns,
        attributes={
            "loadtest.run": run_id,
            "loadtest.plan.name": plan.name,
            "loadtest.nonce": plan.nonce,
            "loadtest.plan": text or plans.dump(written),
            "loadtest.prices": json.dumps(_prices(plan)),
            "loadtest.account": msgspec.json.encode(booked).decode(),
        },
    )
    context = set_span_in_context(root)
    for times in snapshot.times:
        stage = plan.stages[times.stage]
        ids.span = ("stage", stage.name, rounds.round_of(plan, times.stage))
        span = tracer.start_span(
            "stage",
            context,
            start_time=times.start_ns,
            attributes={
                "loadtest.run": run_id,
                "loadtest.stage": stage.name,
                "loadtest.stage.index": positions[stage.name],
                "loadtest.round": rounds.round_of(plan, times.stage),
                "loadtest.warmup": stage.warmup,
                "loadtest.end_ns": times.end_ns or snapshot.now_ns,
                "loadtest.target_end_ns": json.dumps(times.target_end_ns),
                "loadtest.goodput": json.dumps(plan.goodput),
            },
        )
        span.end(times.drained_ns or snapshot.now_ns)
    places = dict(enumerate(snapshot.places))
    for host in snapshot.hosts:
        place = places.get(host.worker, Place())
        ids.span = ("worker", host.worker)
        span = tracer.start_span(
            "worker",
            context,
            start_time=snapshot.started_ns,
            attributes={
                "loadtest.run": run_id,
                "loadtest.worker": host.worker,
                "loadtest.node": place.node,
                "loadtest.vantage": place.vantage,
                "loadtest.clock_offset_ns": place.offset_ns,
                "loadtest.clock_error_ns": place.error_ns,
                "loadtest.restarts": host.restarts,
                "loadtest.cpu_s": host.cpu_s,
                "loadtest.peak_rss_bytes": host.peak_rss_bytes,
                "loadtest.problems": host.problems,
            },
        )
        span.end(snapshot.now_ns)
    root.end(snapshot.now_ns)
