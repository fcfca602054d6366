"""argv and printing; the only place that puts loadtest, cluster and dashboards together.

Imports of what a command needs stand inside it: `--help` must not wait for ClickHouse, Ray or Locust.
Exit statuses: 0 done and met, 1 breached, 2 wrong call or plan, 3 INVALID, 4 internal error, 5 undecided, 130 interrupted.
"""

import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from loadtest import __version__

WRONG_CALL, INTERNAL, INTERRUPTED = 2, 4, 130

app = typer.Typer(
    name="loadtest",
    help="Load-test inference endpoints: one plan, every request a span, numbers you can defend.",
    no_args_is_help=True,
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
StoreOption = Annotated[
    str | None,
    typer.Option(help="A directory for the embedded store, or clickhouse://user@host:port/database.", show_default=False),
]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if show:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    plan: PlanFile,
    on: Annotated[On, typer.Option(help="Where workers run: child processes here, or Ray (RAY_ADDRESS, or one started here).")] = On.local,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; overrides the plan's fleet.workers.")] = None,
    store: StoreOption = None,
    out: Annotated[Path | None, typer.Option(help="Where the results go; runs/<run id> unless given.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No live view; the results only.")] = False,
) -> None:
    """Run a plan: drive its load, store every request, write the report."""
    from loadtest import session

    raise typer.Exit(session.run(plan, make_fleet=_fleet_on(on), workers=workers, store=store, out=out, quiet=quiet))


def _fleet_on(on: On) -> Any:
    """Ray is imported only where it is asked for."""
    if on == On.ray:
        from cluster.fleet import RayFleet

        return RayFleet
    from loadtest.run import LocalFleet

    return LocalFleet.open
