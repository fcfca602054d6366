"""What `loadtest run --locustfile` was asked for, and how Locust and everything that watches a run are told of it."""

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from loadtest import rules, yamltext
from loadtest.arrivals import Closed
from loadtest.errors import PlanError
from loadtest.prompts import Synthetic, Tokens
from loadtest.types import Fleet, Plan, Slo, Stage, Target

STAGE = "load"
TAGS = ("tags", "exclude_tags")
OURS = {
    "--master", "--worker", "--headless", "--headful", "--processes", "--expect-workers", "--expect-workers-max-wait",
    "--master-host", "--master-port", "--master-bind-host", "--master-bind-port", "--skip-log-setup",
}  # fmt: skip
"""Options of Locust's that say what `loadtest run` says itself."""
TWINS = {
    "-f": "--locustfile", "--locustfile": "--locustfile", "-u": "--users", "--users": "--users", "-r": "--spawn-rate",
    "--spawn-rate": "--spawn-rate", "-t": "--run-time", "--run-time": "--run-time", "-H": "--host", "--host": "--host",
}  # fmt: skip
OF_THE_MASTER = {
    "--csv": 1, "--csv-full-history": 0, "--html": 1, "--json": 0, "--json-file": 1, "--print-stats": 0,
    "--only-summary": 0, "--logfile": 1, "--web-host": 1, "--web-port": 1, "-P": 1, "--web-base-path": 1,
    "--web-login": 0, "--tls-cert": 1, "--tls-key": 1, "--class-picker": 0, "--autostart": 0, "--autoquit": 1,
    "--enable-rebalancing": 0, "--exit-code-on-error": 1,
}  # fmt: skip
"""Options that each worker would follow too, to no good: how many values each has."""


class Options(Struct, frozen=True, kw_only=True):
    locustfile: Path
    users: int | None = None
    spawn_rate: float | None = None
    run_time: str | None = None
    host: str | None = None
    tags: Sequence[str] = ()
    exclude_tags: Sequence[str] = ()
    stop_timeout_s: int = 60
    slos: Sequence[str] = ()  # e2e_ms p99 500, error_rate 0.01 @ GET /basket
    web: bool = False
    workers: int = 1
    more: Sequence[str] = ()  # for Locust's parser: its own further options, and those that the file adds


def check(options: Options) -> None:
    """What Locust itself would find out only later, or not at all. Raises PlanError."""
    path = options.locustfile
    if not path.exists():
        raise PlanError(f"--locustfile {path} does not exist; name a Locust file")
    if not path.is_file() or path.suffix != ".py":
        raise PlanError(f"--locustfile {path} is no Python file; name one that ends in .py")
    for word in options.more:
        option = word.partition("=")[0]
        if option in TWINS:
            raise PlanError(f"{option} stands after `--`; write {TWINS[option]} before it")
        if option in OURS:
            raise PlanError(
                f"{option} cannot be given: loadtest starts Locust's master and workers itself; leave it out"
            )
    if options.run_time is not None:
        timespan_s(options.run_time)
    for said in options.slos:
        slo(said)


def slo(said: str) -> Slo:
    """`METRIC [STAT] LIMIT [@ NAME]`. Raises PlanError."""
    judged, _, name = (part.strip() for part in said.partition("@"))
    metric, *rest = judged.split()[:-1] or [""]
    try:
        made = Slo(metric=metric, stat=" ".join(rest) or None, limit=float(judged.split()[-1]), target=name or None)
    except (ValueError, IndexError):
        raise PlanError(
            f"--slo is {said!r}; write a metric, a stat and a limit, such as 'e2e_ms p99 500 @ GET /'"
        ) from None
    for problem in rules.problems_of_parts({}, {}, {0: made}, 1):
        raise PlanError(f"--slo {said!r}: {problem.removeprefix('slos[0].')}")
    return made


def timespan_s(text: str) -> float:
    """`60`, `60s`, `1h30m`, as Locust reads them. Raises PlanError."""
    if re.fullmatch(r"\d+", text):
        return float(text)
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or found is None:
        raise PlanError(f"--run-time is {text!r}; write seconds or a span such as 90s, 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def of_master(options: Options, web_port: int | None) -> list[str]:
    """The arguments of Locust's master, without where it listens for workers. What stands after `--` wins."""
    page = ["--headful", "--web-host", "127.0.0.1", "--web-port", str(web_port)]
    out = page if options.web else ["--headless", "--expect-workers", str(options.workers)]
    for name, value in (
        ("--users", options.users),
        ("--spawn-rate", options.spawn_rate),
        ("--run-time", options.run_time),
        ("--host", options.host),
        ("--stop-timeout", options.stop_timeout_s),
    ):
        if value is not None:
            out += [name, str(value)]
    return [*out, *_tags(options), *options.more]


def of_workers(options: Options) -> list[str]:
    """The arguments of each worker: those that the file may read before the master sends them, and its own."""
    out = ["--host", options.host] if options.host is not None else []
    return [*out, *_tags(options), *_without_those_of_the_master(options.more)]


def _tags(options: Options) -> list[str]:
    out = ["--tags", *options.tags] if options.tags else []
    return [*out, "--exclude-tags", *options.exclude_tags] if options.exclude_tags else out


def _without_those_of_the_master(words: Sequence[str]) -> list[str]:
    out, skip = [], 0
    for word in words:
        name, equals, _ = word.partition("=")
        if skip:
            skip -= 1
        elif name in OF_THE_MASTER:
            skip = 0 if equals else OF_THE_MASTER[name]
        else:
            out.append(word)
    return out


def plan(options: Options) -> Plan:
    """A plan of one closed stage, for what watches and adds up: to them a Locust run is such a one."""
    duration_s = timespan_s(options.run_time) if options.run_time else None
    return Plan(
        name=re.sub(r"[^A-Za-z0-9._-]|^[.-]", "_", options.locustfile.stem)[:64],
        targets=[target("requests")],
        prompts=Synthetic(input_tokens=Tokens(mean=1)),
        stages=[Stage(name=STAGE, arrivals=Closed(), concurrency=options.users or 1, duration_s=duration_s or None)],
        fleet=Fleet(workers=options.workers),
    )


def target(name: str) -> Target:
    """What stands for the requests of one name where a plan has its targets."""
    return Target(name=name, url="", dialect="http")


def stage_name(index: int) -> str:
    """Locust's page can start one test after the other."""
    return STAGE if index == 0 else f"{STAGE}-{index + 1}"


def record(options: Options, plan: Plan) -> str:
    """What is stored in place of a plan's text. Values after `--` may be secrets: only the options' names are kept."""
    asked = {
        "file": options.locustfile.name,
        "sha256": hashlib.sha256(options.locustfile.read_bytes()).hexdigest(),
        "locust": version("locust"),
        "users": options.users,
        "spawn_rate": options.spawn_rate,
        "run_time": options.run_time,
        "host": without_credentials(options.host) if options.host else None,
        "tags": list(options.tags),
        "exclude_tags": list(options.exclude_tags),
        "stop_timeout_s": options.stop_timeout_s,
        "slos": list(options.slos),
        "options": [_name(word) for word in options.more if word.startswith("-")],
    }
    slos = [slo(said) for said in options.slos]
    return yamltext.write(
        {
            "name": plan.name,
            "locustfile": {key: value for key, value in asked.items() if value not in (None, [])},
            "targets": [{"name": name} for name in in_locusts_order({target.name for target in plan.targets})],
            "stages": [{"name": stage.name} for stage in plan.stages],
            "slos": [_without_none(msgspec.to_builtins(each)) for each in slos],
            "fleet": {"workers": options.workers},
        }
    )


def _name(word: str) -> str:
    """Of an option, without its value: --token=VALUE, -tVALUE."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _without_none(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def again(asked: Mapping[str, Any]) -> str:
    """The command that `record` tells of."""
    words = ["--locustfile", str(asked["file"])]
    for key in ("users", "spawn_rate", "run_time", "host", "stop_timeout_s"):
        if key in asked:
            words += [f"--{key.removesuffix('_s').replace('_', '-')}", str(asked[key])]
    for key in TAGS:
        if key in asked:
            words += [f"--{key.replace('_', '-')}", ",".join(asked[key])]
    for said in asked.get("slos", ()):
        words += ["--slo", said]
    rest = [f"{name} ..." for name in asked.get("options", ())]
    return " ".join(["loadtest run", *map(shlex.quote, words), *(["--", *rest] if rest else [])])


def without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def in_locusts_order(names: Iterable[str]) -> list[str]:
    """By name and then by method, as Locust's own table has them."""
    return sorted(names, key=lambda name: name.partition(" ")[::-1])
