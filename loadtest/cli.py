"""argv and printing; the only place that puts loadtest, cluster and dashboards together.

Imports of what a command needs stand inside it: `--help` must not wait for ClickHouse, Ray or Locust.
Exit statuses: 0 done and met, 1 breached, 2 wrong call or plan, 3 INVALID, 4 internal error, 5 undecided, 130 interrupted.
"""

import os
import sys
import traceback
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from loadtest import __version__
from loadtest.errors import UserError

WRONG_CALL, INTERNAL, INTERRUPTED = 2, 4, 130
READER_GONE = 141  # what a shell says of a program that a closed pipe ended, as in `loadtest metrics | head -1`

app = typer.Typer(
    name="loadtest",
    help="Load-test inference endpoints: one plan, every request a span, numbers you can defend.",
    pretty_exceptions_enable=False,
    add_completion=False,
)


class On(StrEnum):
    local = "local"
    ray = "ray"


class Format(StrEnum):
    html = "html"
    json = "json"
    csv = "csv"


PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, a YAML file (docs/plan.md).")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the start of one, or 'last'.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No live view; the results only.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        help="A directory for the embedded store, or clickhouse://user@host:port/database.", show_default=False
    ),
]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if show:
        print(__version__)
        raise typer.Exit


LOCUST = "Locust"  # the options of a locustfile stand apart in --help

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PLAN",
        help="The plan, a YAML file (docs/plan.md); with --locustfile, after `--`, further options of Locust.",
        show_default=False,
    ),
]
Where = Annotated[
    On, typer.Option(help="Where workers run: child processes here, or Ray (RAY_ADDRESS, or one started here).")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes; overrides the plan's fleet.workers.", show_default=False),
]
Out = Annotated[Path | None, typer.Option(help="Where the results go; runs/<run id> unless given.")]
NewRunId = Annotated[
    str | None, typer.Option("--run-id", help="The run's id, for a scheduler: one that the store knows is refused.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return once the load has begun; attach and stop reach the run.")
]
Locustfile = Annotated[
    Path | None,
    typer.Option(
        "--locustfile",
        "-f",
        rich_help_panel=LOCUST,
        show_default=False,
        help="A Locust file to run in place of a plan, as it is (docs/locust.md).",
    ),
]
Users = Annotated[
    int | None, typer.Option("--users", "-u", min=1, rich_help_panel=LOCUST, help="Users at most; 1 unless given.")
]
SpawnRate = Annotated[
    float | None,
    typer.Option("--spawn-rate", "-r", min=0.001, rich_help_panel=LOCUST, help="Users started per second."),
]
RunTime = Annotated[
    str | None,
    typer.Option("--run-time", "-t", rich_help_panel=LOCUST, help="60, 90s, 1h30m; until Ctrl-C unless given."),
]
LocustHost = Annotated[
    str | None, typer.Option("--host", "-H", rich_help_panel=LOCUST, help="In place of the file's own host.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tags", "-T", rich_help_panel=LOCUST, help="Only tasks with one of them.")
]
ExcludeTags = Annotated[
    list[str] | None, typer.Option("--exclude-tags", "-E", rich_help_panel=LOCUST, help="No tasks with one of them.")
]
StopTimeout = Annotated[
    int, typer.Option(min=0, rich_help_panel=LOCUST, help="Seconds that users may finish in what they have begun.")
]
Slos = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        rich_help_panel=LOCUST,
        show_default=False,
        help="An objective: 'e2e_ms p99 500', 'error_rate 0.01 @ GET /basket'; may be given several times.",
    ),
]
Web = Annotated[bool, typer.Option("--web", rich_help_panel=LOCUST, help="Locust's own page, where tests are started.")]


@app.command()
def run(
    plan: Words = None,
    on: Where = On.local,
    workers: Workers = None,
    store: StoreOption = None,
    out: Out = None,
    quiet: Quiet = False,
    run_id: NewRunId = None,
    detach: Detach = False,
    locustfile: Locustfile = None,
    users: Users = None,
    spawn_rate: SpawnRate = None,
    run_time: RunTime = None,
    host: LocustHost = None,
    tags: Tags = None,
    exclude_tags: ExcludeTags = None,
    stop_timeout: StopTimeout = 60,
    slo: Slos = None,
    web: Web = False,
) -> None:
    """Run a plan, or a Locust file: drive the load, store every request, write the report."""
    from loadtest import detach as detaching

    words = plan or []
    if locustfile is None:
        of_locust = {
            "users": users, "spawn-rate": spawn_rate, "run-time": run_time, "host": host, "tags": tags,
            "exclude-tags": exclude_tags, "slo": slo, "web": web,
        }  # fmt: skip
        _refuse_without_locustfile(words, of_locust)
    elif words and words[0].endswith((".yaml", ".yml")):
        raise typer.BadParameter(f"{words[0]} and --locustfile {locustfile}: a run is of a plan or of a locustfile")
    run_id = detaching.good_id(run_id)
    if detach:
        out = (out or Path("runs") / run_id).resolve()
        if (status := detaching.apart(run_id, out)) is not None:
            raise typer.Exit(status)
    if locustfile is None:
        from loadtest import session

        raise typer.Exit(session.run(Path(words[0]), _fleet_on(on), workers, store, out, quiet, run_id))
    from loadtest.locustfiles import session as of_locustfile
    from loadtest.locustfiles.options import Options

    asked = Options(
        locustfile=locustfile, users=users, spawn_rate=spawn_rate, run_time=run_time, host=host,
        tags=_separate(tags), exclude_tags=_separate(exclude_tags), stop_timeout_s=stop_timeout, slos=slo or [], web=web,
        workers=workers or 1, more=words,
    )  # fmt: skip
    towards = of_locustfile.address_towards(os.environ.get("RAY_ADDRESS") if on == On.ray else None)
    raise typer.Exit(of_locustfile.run(asked, _fleet_on(on), towards, store, out, quiet, run_id))


def _refuse_without_locustfile(words: list[str], of_locust: dict[str, Any]) -> None:
    if given := next((name for name, value in of_locust.items() if value), None):
        raise typer.BadParameter(f"--{given} is for a locustfile; name one with --locustfile")
    if len(words) != 1:
        raise typer.BadParameter("name one plan, or a locustfile with --locustfile")


def _separate(values: list[str] | None) -> list[str]:
    """`--tags a,b --tags c`: three of them."""
    return [tag for value in values or [] for tag in value.replace(",", " ").split()]


@app.command()
def attach(run: RunId = "last", quiet: Quiet = False) -> None:
    """Show a run of yours on this machine, or what it came to; Ctrl-C leaves it alone. Exits as the run does."""
    from loadtest import control

    raise typer.Exit(control.attach(run, quiet))


@app.command()
def stop(run: RunId = "last", quiet: Quiet = False) -> None:
    """End a run that goes on on this machine as its Ctrl-C would, and wait for its report; twice: at once."""
    from loadtest import control

    raise typer.Exit(control.stop(run, quiet))


@app.command()
def status(run: RunId = "last") -> None:
    """Say in a line a target what a run on this machine does, or in one how it has ended."""
    from loadtest import control

    control.status(run)


@app.command()
def report(
    run: RunId = "last",
    format: Annotated[
        Format, typer.Option(help="html: the report file; json: summary.json; csv: a row a target and stage.")
    ] = Format.html,
    out: Annotated[Path | None, typer.Option(help="Write into this directory, not to the terminal.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit as the run did: 1 breached, 3 INVALID, 5 undecided.")
    ] = False,
    as_tool: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="TOOL",
            help="Print what another tool would have printed of this run: vllm, aiperf, guidellm ... "
            "(loadtest metrics lists them); with --format as json or csv.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Report on a stored run again."""
    from loadtest import session

    if as_tool is not None and check:
        raise typer.BadParameter("no objective is judged by another tool's figures; leave --check or --as out")
    if as_tool is not None:
        session.report_as(run, as_tool, format.value, out, store)
        return
    raise typer.Exit(session.report(run, format.value, out, check, store))


@app.command()
def runs(store: StoreOption = None) -> None:
    """List the stored runs, newest last."""
    from loadtest import session

    session.list_runs(store)


@app.command()
def metrics() -> None:
    """List every metric with its unit and definition, and apart from them what other tools mean."""
    from loadtest import listings
    from loadtest.metrics import METRICS

    listings.catalogue(METRICS.values())
    listings.catalogue_of_others()


@app.command()
def validate(
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN", help="The plan to check.", show_default=False)] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a plan, for editors and CI.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Check a plan and say what it would send, without sending anything."""
    import json

    from loadtest import calibrate, capacity, forecast
    from loadtest import plan as plans

    if schema:
        print(json.dumps(plans.json_schema(), indent=1))
    if plan is not None:
        loaded = plans.load(plan)
        loaded = plans.with_workers(loaded, workers) if workers else loaded
        print(forecast.text(loaded))
        for warning in [*forecast.warnings(loaded), *capacity.warnings(loaded, calibrate.known(), calibrate.cores())]:
            print(f"warning: {warning}", file=sys.stderr)
        plans.resolve_keys(loaded)
    elif not schema:
        raise typer.BadParameter("name a plan, or ask for --schema")


class TextOrJson(StrEnum):
    text = "text"
    json = "json"


@app.command()
def calibrate(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN]", help="Say what share a plan would need.", show_default=False)
    ] = None,
    format: Annotated[TextOrJson, typer.Option(help="text: for people; json: for scripts.")] = TextOrJson.text,
) -> None:
    """Measure what one worker can do on this machine, and how exact its times are. Takes some fifteen seconds."""
    from loadtest import calibrate

    calibrate.calibrate(plan, format == TextOrJson.json)


@app.command()
def simulate(
    profile: Annotated[
        str, typer.Option(help="A preset (fast, slow, flaky) or a YAML file with a profile's keys.")
    ] = "fast",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    key: Annotated[str | None, typer.Option(help="env:NAME or file:PATH of the key that requests must bring.")] = None,
    tls_cert: Annotated[str | None, typer.Option(help="PEM file; serves https.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="PEM file, where the certificate's file has no key.")] = None,
    truth: Annotated[int, typer.Option(min=0, help="Keep the true times of so many requests, at GET /truth/ID.")] = 0,
) -> None:
    """Serve a simulated OpenAI-compatible endpoint, with batching, queues and faults."""
    from loadtest import simulator

    try:
        simulator.run(profile, host=host, port=port, key=key, tls_cert=tls_cert, tls_key=tls_key, truth=truth)
    except (ValueError, OSError) as e:
        raise UserError(str(e)) from e


@app.command()
def ui(
    store: StoreOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8321,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback is guarded by a token.")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Show the dashboards on a local page: runs as they go on and afterwards, until Ctrl-C."""
    from dashboards.page.serve import ui

    ui(store, host, port, show)


gpu_app = typer.Typer(help="GPUs and inference engines: what their exporters show.", no_args_is_help=True)
app.add_typer(gpu_app, name="gpu")


@gpu_app.command("watch")
def gpu_watch(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PLAN|URL...", help="A plan with gpu:, or URLs of exporters, or nvml for the GPUs here."
        ),
    ],
    every: Annotated[
        float | None,
        typer.Option(min=0.1, max=60, help="Seconds between two samples; the plan's, or 1.", show_default=False),
    ] = None,
    for_s: Annotated[
        float | None, typer.Option("--for", min=0.1, help="Stop after so many seconds.", show_default=False)
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Whether to keep the samples in the store.")] = True,
    store: StoreOption = None,
) -> None:
    """Show what GPUs and engines do now, without a run, and keep it in the store (docs/gpu.md)."""
    from loadtest.gpu.watch import watch

    watch(sources, every, for_s, keep, store)


store_app = typer.Typer(help="The store of spans: where it is, what it holds.", no_args_is_help=True)
app.add_typer(store_app, name="store")


@store_app.command("status")
def store_status(store: StoreOption = None) -> None:
    """Say where the store is, what it holds, and how other programs reach it."""
    from loadtest import store_commands

    store_commands.status(store)


@store_app.command("query")
def store_query(sql: Annotated[str, typer.Argument(metavar="SQL")], store: StoreOption = None) -> None:
    """Run one SQL query, which can only read, and print its rows as JSON lines (docs/store.md)."""
    from loadtest import store_commands

    store_commands.query(sql, store)


@store_app.command("serve")
def store_serve(
    store: StoreOption = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Of the embedded store, on 127.0.0.1; any free one unless given."),
    ] = None,
) -> None:
    """Keep the embedded store up until Ctrl-C, so that other programs can query it, and say how."""
    from loadtest import store_commands

    store_commands.serve(store, port)


dashboards_app = typer.Typer(help="Grafana: dashboards, alert rules and their data source.", no_args_is_help=True)
app.add_typer(dashboards_app, name="dashboards")

GrafanaUrl = Annotated[str, typer.Argument(metavar="URL", help="Of a Grafana, such as http://127.0.0.1:3000.")]
TokenOption = Annotated[str, typer.Option(help="A service account's token: env:NAME or file:PATH.")]
SeenAsOption = Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="Under which Grafana reaches the store.")]
ContactOption = Annotated[str | None, typer.Option(help="URL of a webhook to tell of alerts: env:NAME or file:PATH.")]
RunbookOption = Annotated[str, typer.Option(help="Where the runbook can be read.")]


@dashboards_app.command("push")
def dashboards_push(
    url: GrafanaUrl,
    token: TokenOption = "env:GRAFANA_TOKEN",
    store: StoreOption = None,
    seen_as: SeenAsOption = None,
    contact: ContactOption = None,
    runbook: RunbookOption = "docs/runbook.md",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also what was edited in Grafana.")] = False,
) -> None:
    """Bring folder, data source, dashboards and alert rules to a Grafana (docs/dashboards.md)."""
    from dashboards.grafana import commands

    call = commands.Call(url=url, token=token, store=store, seen_as=seen_as, contact=contact, runbook=runbook)
    commands.push(call, overwrite)


@dashboards_app.command("diff")
def dashboards_diff(
    url: GrafanaUrl,
    token: TokenOption = "env:GRAFANA_TOKEN",
    store: StoreOption = None,
    seen_as: SeenAsOption = None,
    contact: ContactOption = None,
    runbook: RunbookOption = "docs/runbook.md",
) -> None:
    """Say what in a Grafana is not as `push` would leave it. Ends with 1 if anything is not."""
    from dashboards.grafana import commands

    call = commands.Call(url=url, token=token, store=store, seen_as=seen_as, contact=contact, runbook=runbook)
    raise typer.Exit(commands.diff(call))


@dashboards_app.command("pull")
def dashboards_pull(
    url: GrafanaUrl,
    token: TokenOption = "env:GRAFANA_TOKEN",
    store: StoreOption = None,
    out: Annotated[Path, typer.Option(help="A directory for the files.")] = Path("grafana"),
) -> None:
    """Write what a Grafana holds of ours as JSON files."""
    from dashboards.grafana import commands

    commands.pull(commands.Call(url=url, token=token, store=store), out)


def _fleet_on(on: On) -> Any:
    """Ray is imported only where it is asked for."""
    if on == On.ray:
        from cluster.regions import fleet_of

        return fleet_of
    from loadtest.run import LocalFleet

    return LocalFleet


def main() -> None:
    """The entry point: whatever goes wrong ends in a sentence and the right exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # where a terminal has no such letter, a ? must do
    sys.exit(_status())


def _status() -> int:
    """Whatever happens, and also what happens to whoever reads standard output."""
    status = _status_of_command()
    try:
        sys.stdout.flush()
    except OSError as e:
        failed = _output_failed(e)
        return status or failed  # a verdict is not lost by it
    return status


def _output_failed(error: OSError) -> int:
    """Python writes what is left once more when it ends; that goes nowhere, so that it says nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if isinstance(error, BrokenPipeError):
        return READER_GONE
    print(f"loadtest: standard output cannot be written: {error.strerror}", file=sys.stderr)
    return INTERNAL


def _is_of_stdout(error: OSError) -> bool:
    """Such an error names no file; whether it was this one, another line tells."""
    if error.filename is not None:
        return False
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as e:
        return e.errno == error.errno
    return False


def _status_of_command() -> int:
    try:
        return int(app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0)
    except TyperException as e:
        print(f"loadtest: {e.format_message()}", file=sys.stderr)
        return WRONG_CALL
    except (KeyboardInterrupt, Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except UserError as e:
        print(f"loadtest: {e}", file=sys.stderr)
        return e.exit_status
    except SystemExit:  # what rich makes of a closed pipe; nothing else here raises it
        return READER_GONE
    except OSError as e:
        return _output_failed(e) if _is_of_stdout(e) else _internal_error(e)
    except Exception as e:  # noqa: BLE001 the last place where anybody can say it
        return _internal_error(e)


def _internal_error(error: Exception) -> int:
    print(f"loadtest: internal error: {type(error).__name__}: {error}", file=sys.stderr)
    if os.environ.get("LOADTEST_DEBUG"):
        traceback.print_exception(error)
    else:
        print("LOADTEST_DEBUG=1 shows where", file=sys.stderr)
    return INTERNAL
