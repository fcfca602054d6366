"""summary.json: the account, the verdicts and the figures of one run, read from the store.

Everything is SQL over the stored rows (metrics/); only what the generator alone knows comes from the account that the
driver stored with the run. `stored` is counted here, so that what the driver believes is checked against what is there.

JSON has no infinity. A figure that is +infinity (too many requests failed for the percentile to be finite) is null, and
the key `infinite` beside it lists its name: {"p50": 210.5, "p99": null, ..., "infinite": ["p99", "p999", "mean"]}.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from math import isinf
from typing import Any

import msgspec
from msgspec import Struct

from loadtest import __version__, metrics, steady, validity, verdict
from loadtest.errors import UserError
from loadtest.metrics import METRICS
from loadtest.provenance import Provenance
from loadtest.report import telemetry
from loadtest.report.compare import compare
from loadtest.report.evidence import MEASURED, ONE_GROUP, evidence
from loadtest.report.vantages import vantages
from loadtest.report.words import listing
from loadtest.rounds import OF_SEQ
from loadtest.stats import parse_stat
from loadtest.store import Store
from loadtest.types import Price, Slo, Verdict

Row = dict[str, Any]
Group = tuple[str, str]  # stage, target

RATES = {"requests_per_s": "requests_per_s", "output_tokens_per_s": "output_tokens_per_s", "goodput": "goodput_per_s"}
DISTRIBUTIONS = (
    "ttft_ms",
    "itl_ms",
    "icl_ms",
    "tpot_ms",
    "e2e_ms",
    "due_e2e_ms",
    "ttfo_ms",
    "due_ttft_ms",
    "connect_ms",
    "output_speed",
)
OF_THE_GENERATOR = ("read_lag_ms", "schedule_lag_ms", "uncertainty_ms")


SETTLES = ("ttft_ms", "e2e_ms")
NAMES_SEEN = 8
EVIDENCE_KEPT = 16  # addresses and models of a stage and target: a handful, or a wall of them
FIRST_ROUND = f"{MEASURED} AND stage = {{stage:String}} AND {OF_SEQ} = 0"
"""Each round begins anew."""

_OUTCOMES = {0: "met", 1: "breached", 3: "INVALID", 5: "undecided", 130: "interrupted"}


class NoSuchRun(UserError):
    pass


class _Named(Struct):
    name: str
    warmup: bool = False
    arrivals: dict[str, Any] = {}


class _Target(Struct):
    name: str
    price: Price | None = None
    announced: str = ""


class _Plan(Struct):
    """The parts of a plan that figures are judged by. Lenient: a plan of an older or newer version can be read."""

    name: str
    targets: list[_Target]
    stages: list[_Named]
    seed: int = 0
    measured_by: str = ""
    slos: list[Slo] = []
    validity: dict[str, float] = {}
    locustfile: dict[str, Any] | None = None  # what stands in place of a plan


def summary(store: Store, run: str) -> dict[str, Any]:
    """summary.json of a stored run, as plain JSON-safe values. Raises NoSuchRun."""
    stored = _run(store, run)
    plan = msgspec.yaml.decode(stored["plan"], type=_Plan)
    account = msgspec.json.decode(stored["account"] or "{}", type=validity.Account)
    read = _Reader(store, run)
    counts = read.counts()
    measured = {group: row for group, row in counts.items() if not row["is_warmup"]}
    lags = read.generator()
    retried = read.retried()
    _check_against_store(account.integrity, sum(row["requests"] for row in counts.values()), sum(retried.values()))
    judged = validity.validity(_facts(account, measured, read.lags()), plan.validity)
    stages = [stage.name for stage in plan.stages if not stage.warmup]
    targets = [target.name for target in plan.targets]
    groups = [(stage, target) for stage in stages for target in targets]
    of_stages = read.stages()
    for name, stage in of_stages.items():
        stage["stops"] = [_stop(stop) for stop in account.stops if stop.stage == name]
    paired = [] if plan.locustfile else targets  # names of requests are not rivals
    out = {
        "run": run,
        "plan": stored["plan_name"],
        "locustfile": plan.locustfile,
        "version": __version__,
        "seed": plan.seed,
        "nonce": stored["nonce"],
        "started_at": _iso(stored["started_ns"]),
        "ended_at": _iso(stored["ended_ns"]),
        "interrupted": account.interrupted,
        "provenance": _provenance(account.provenance, plan, stored["plan"]),
        "integrity": msgspec.to_builtins(account.integrity),
        "validity": msgspec.to_builtins(judged),
        "slos": [_slo(v) for v in _verdicts(read, plan.slos, groups, counts)],
        "generator": _generator(account.generator, measured.values(), lags),
        "stages": of_stages,
        "compare": msgspec.to_builtins(
            compare(read.ask, {s: of_stages[s]["rounds"] for s in stages if s in of_stages}, paired, plan.slos)
        ),
        "vantages": vantages(read.ask),
        "targets": _targets(
            read,
            groups,
            counts,
            account.capped,
            retried,
            {t.name: t.price for t in plan.targets},
            [stage.name for stage in plan.stages if stage.arrivals.get("kind") == "ramp"],
        ),
    }
    _add_telemetry(out, read, groups)
    status = exit_status(out, account.interrupted)
    return out | {"exit_status": status, "outcome": _OUTCOMES[status] if status or plan.slos else "done"}


def _provenance(known: Provenance, plan: _Plan, text: str) -> dict[str, Any]:
    """Who measured, with what, from where. null: the plan does not say."""
    return {
        **msgspec.to_builtins(known),
        "measured_by": plan.measured_by or None,
        "announced": {target.name: target.announced or None for target in plan.targets},
        "plan_sha256": sha256(text.encode()).hexdigest(),
    }


def exit_status(summary: Mapping[str, Any], interrupted: bool = False) -> int:
    """What `loadtest run` exits with: 130, 3, 1, 5 or 0, the first that applies. Of what is raised, errors.py tells."""
    outcomes = {slo["outcome"] for slo in summary["slos"]} if summary else set()
    if interrupted:
        return 130
    if not summary["validity"]["valid"]:
        return 3
    return 1 if "breached" in outcomes else 5 if "undecided" in outcomes else 0


def _run(store: Store, run: str) -> Row:
    rows = store.query("SELECT * FROM runs WHERE run = {run:String} ORDER BY ended_ns DESC LIMIT 1", {"run": run})
    if not rows:
        raise NoSuchRun(f"there is no run {run} in the store {store.address}; loadtest runs lists those it has")
    return rows[0]


class _Reader:
    """The queries of one run."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run

    def counts(self) -> dict[Group, Row]:
        """What is counted and not a metric, warm-up included. (No alias may be a column's name: it would hide it.)"""
        tpot = METRICS["tpot_ms"].sql
        sql = f"""
            SELECT stage, target, any(warmup) AS is_warmup, count() AS requests, countIf({metrics.OK}) AS ok,
                sumMapIf(map(toString(error), toUInt64(1)), error != '') AS errors,
                minMapIf(map(toString(error), toString(error_detail)), error != '') AS error_examples,
                sum(input_tokens) AS all_input_tokens, sum(output_tokens) AS all_output_tokens,
                sum(cached_tokens) AS all_cached_tokens, sum(reconnects) AS all_reconnects,
                arraySort(groupUniqArrayIf(toString(proxy), proxy != '')) AS all_proxies,
                arraySort(groupUniqArrayIf({EVIDENCE_KEPT})(toString(remote_address), remote_address != '')) AS addresses,
                arraySort(groupUniqArrayIf({EVIDENCE_KEPT})(toString(response_model), response_model != '')) AS models,
                arraySort(groupUniqArrayIf(toString(token_source), {metrics.OK} AND output_tokens IS NOT NULL)) AS counted_by,
                countIf(fault = 'client') AS client_faults, countIf(error = 'cancelled') AS cancelled,
                countIf(fault = 'generator' AND error != 'cancelled') AS generator_faults,
                countIf({metrics.OK} AND token_chunks > 0 AND output_tokens IS NULL) AS unknown_tokens,
                countIf({metrics.OK} AND ({tpot}) IS NOT NULL AND NOT tokens_known) AS k_assumed,
                sum(length(chunk_kind)) AS chunks, groupUniqArrayIf(toString(clock), first_byte_ns IS NOT NULL) AS clocks,
                max({METRICS["uncertainty_ms"].sql}) AS max_uncertainty_ms,
                count({METRICS["uncertainty_ms"].sql}) AS stamped, countIf(({METRICS["uncertainty_ms"].sql}) > 1) AS blurred,
                countIf(due_ns IS NOT NULL) AS due,
                countIf(due_ns IS NOT NULL AND started_ns > end_ns + {validity.ON_TIME_MS * 1e6:.0f}) AS late
            FROM (SELECT *, {OF_SEQ} AS round FROM requests) AS requests
                LEFT JOIN (SELECT run, stage, round, end_ns FROM stages LIMIT 1 BY run, stage, round) AS s
                USING (run, stage, round)
            WHERE run = {{run:String}} GROUP BY stage, target"""
        return self._by_group(sql)

    def figures(
        self, names: Iterable[str], stats: Sequence[str], groups: Iterable[Group], *, failures: bool
    ) -> dict[Group, Row]:
        """Pooled values are sorted one metric and group at a time: a million answers have a hundred million gaps."""
        pooled = [name for name in names if METRICS[name].kind == "pooled"]
        others = [name for name in names if name not in pooled]
        out = self._by_group(metrics.figures(others, MEASURED, stats=stats, failures=failures)) if others else {}
        for group in groups:
            for name in pooled:
                sql = metrics.figures([name], ONE_GROUP, stats=stats, failures=failures)
                for row in self.of_group(sql, group):
                    out.setdefault(group, {}).update(row)
        return out

    def retried(self) -> dict[Group, int]:
        """How many further attempts there were, where there were any; warm-up included."""
        rows = self._by_group(
            "SELECT stage, target, count() AS retries FROM attempts WHERE run = {run:String} AND attempt > 0 "
            "GROUP BY stage, target"
        )
        return {group: row["retries"] for group, row in rows.items()}

    def in_the_end(self, *, failures: bool) -> dict[Group, Row]:
        """Of measured requests after all their attempts."""
        names = ("success_rate", "due_e2e_ms")
        where = metrics.last_attempts(MEASURED)
        return self._by_group(metrics.figures(names, where, stats=metrics.STATS, failures=failures, table="attempts"))

    def generator(self) -> Row:
        sql = metrics.figures(OF_THE_GENERATOR, MEASURED, by=(), stats=("p50", "p99"))
        return self._store.query(sql, {"run": self._run})[0]

    def lags(self) -> dict[Group, Row]:
        names = ("schedule_lag_ms", "uncertainty_ms")
        return self._by_group(metrics.figures(names, MEASURED, stats=("p99",)))

    def stages(self) -> dict[str, dict[str, Any]]:
        sql = """
            SELECT stage, any(warmup) AS warmup, count() AS rounds, min(start_ns) AS start_ns, max(end_ns) AS end_ns,
                max(drained_ns) AS drained_ns
            FROM (SELECT * FROM stages WHERE run = {run:String} LIMIT 1 BY stage, round)
            GROUP BY stage ORDER BY min(stage_index)"""
        return {
            row["stage"]: {
                "warmup": row["warmup"],
                "rounds": row["rounds"],
                "started_at": _iso(row["start_ns"]),
                "ended_at": _iso(row["end_ns"]),
                "drained_at": _iso(row["drained_ns"]),
            }
            for row in self._store.query(sql, {"run": self._run})
        }

    def warm_ups(self, stage: str) -> dict[str, steady.WarmUp]:
        """What looks like warm-up in a measured stage, or in its first round, by target."""
        [start] = self._store.query(
            "SELECT min(start_ns) AS ns FROM stages WHERE run = {run:String} AND stage = {stage:String}",
            {"run": self._run, "stage": stage},
        )
        found: dict[str, list[steady.WarmUp]] = {}
        for name in SETTLES:
            by_target: dict[str, list[Row]] = {}
            for row in self._store.query(metrics.batch_means(name, FIRST_ROUND), {"run": self._run, "stage": stage}):
                by_target.setdefault(row["target"], []).append(row)
            for target, rows in by_target.items():
                beginning = steady.beginning([row["mean"] for row in rows])
                first_s = [(row["first_ns"] - start["ns"]) / 1e9 for row in rows]
                found.setdefault(target, []).append(steady.warm_up(beginning, name, first_s, rows[0]["n"]))
        return {target: steady.worst(each) for target, each in found.items()}

    def ask(self, sql: str) -> list[Row]:
        return self._store.query(sql, {"run": self._run})

    def of_group(self, sql: str, group: Group) -> list[Row]:
        stage, target = group
        return self._store.query(sql, {"run": self._run, "stage": stage, "target": target})

    def _by_group(self, sql: str) -> dict[Group, Row]:
        return {(row["stage"], row["target"]): row for row in self._store.query(sql, {"run": self._run})}


# The account


def _check_against_store(integrity: validity.Integrity, stored: int, retries_stored: int) -> None:
    integrity.retries_lost = max(integrity.retried - retries_stored, 0)
    integrity.stored = stored
    integrity.lost = max(integrity.sent - stored, 0)


def _facts(account: validity.Account, measured: Mapping[Group, Row], lags: Mapping[Group, Row]) -> validity.Facts:
    def of(group: Group, row: Row) -> validity.Group:
        stage, target = group
        return validity.Group(
            stage=stage,
            target=target,
            ended=row["requests"],
            client_faults=row["client_faults"],
            generator_faults=row["generator_faults"],
            cancelled=row["cancelled"],
            due=row["due"],
            late=row["late"],
            unsent=account.unsent.get(stage, {}).get(target, 0),
            schedule_lag_p99_ms=lags[group]["schedule_lag_ms_p99"],
            uncertainty_p99_ms=lags[group]["uncertainty_ms_p99"],
        )

    return validity.Facts(account=account, groups=[of(group, row) for group, row in measured.items()])


def _generator(generator: validity.Generator, measured: Iterable[Row], lags: Row) -> dict[str, Any]:
    rows = list(measured)
    clocks = {clock for row in rows for clock in row["clocks"]}
    stamped = sum(row["stamped"] for row in rows)
    largest = [row["max_uncertainty_ms"] for row in rows if row["max_uncertainty_ms"] is not None]
    return {
        "clock": clocks.pop() if len(clocks) == 1 else "mixed" if clocks else None,
        "chunks": sum(row["chunks"] for row in rows),
        **msgspec.to_builtins(generator),
        "read_lag_ms": {stat: lags[f"read_lag_ms_{stat}"] for stat in ("p50", "p99")},
        "schedule_lag_ms": {stat: lags[f"schedule_lag_ms_{stat}"] for stat in ("p50", "p99")},
        "uncertainty_ms": {
            "p99": lags["uncertainty_ms_p99"],
            "max": max(largest, default=None),
            "over_1_ms": sum(row["blurred"] for row in rows) / stamped if stamped else None,
        },
    }


# The figures


def _targets(
    read: _Reader,
    groups: Sequence[Group],
    counts: Mapping[Group, Row],
    capped: Mapping[str, Mapping[str, int]],
    retried: Mapping[Group, int],
    prices: Mapping[str, Price | None],
    ramps: Collection[str],
) -> dict[str, Any]:
    after = _after_retries(read, retried) if retried else {}
    names = (*RATES, "error_rate", *DISTRIBUTIONS)
    stored = [group for group in groups if group in counts]
    failed = [group for group in stored if counts[group]["requests"] > counts[group]["ok"]]
    plain = read.figures((*names, "uncertainty_ms"), metrics.STATS, stored, failures=False)
    other = read.figures(DISTRIBUTIONS, metrics.STATS, failed, failures=True) if failed else {}
    with_failures = {group: row | other.get(group, {}) for group, row in plain.items()}
    warm_ups = {stage: read.warm_ups(stage) if stage not in ramps else {} for stage, _ in groups}
    out: dict[str, Any] = {}
    for stage, target in groups:
        group = (stage, target)
        of_stage = _stage(counts.get(group, {}), plain.get(group, {}), with_failures.get(group, {}))
        of_stage["saturated"] = capped.get(stage, {}).get(target, 0) > 0
        of_stage["after_retries"] = after.get(group)
        of_stage["warm_up"] = msgspec.to_builtins(warm_ups[stage].get(target, steady.WarmUp(found="unknown")))
        price = prices[target]
        of_stage["cost"] = _cost(of_stage, price) if price else None
        out.setdefault(target, {"stages": {}})["stages"][stage] = of_stage
    return {target: _total(each["stages"]) | each for target, each in out.items()}


def _stage(counts: Row, plain: Row, with_failures: Row) -> dict[str, Any]:
    out = {
        "requests": counts.get("requests", 0),
        "ok": counts.get("ok", 0),
        "errors": dict(sorted(counts.get("errors", {}).items())),
        "error_examples": dict(sorted(counts.get("error_examples", {}).items())),
        "uncertainty_p99_ms": plain.get("uncertainty_ms_p99"),
        "error_rate": plain.get("error_rate"),
        "saturated": False,
        "reconnects": counts.get("all_reconnects", 0),
        "proxies": counts.get("all_proxies", []),
        "addresses": counts.get("addresses", []),
        "models": counts.get("models", []),
        "tokens_counted_by": counts.get("counted_by", []),
        **{key: plain.get(name) for name, key in RATES.items()},
        "input_tokens": counts.get("all_input_tokens"),
        "cached_tokens": counts.get("all_cached_tokens"),
        "output_tokens": counts.get("all_output_tokens"),
        "unknown_tokens": counts.get("unknown_tokens", 0),
    }
    for name in DISTRIBUTIONS:
        out[name] = _distribution(name, plain) | {"with_failures": _distribution(name, with_failures)}
    out["tpot_ms"]["k_assumed"] = counts.get("k_assumed", 0)
    return out


def _cost(figures: Mapping[str, Any], price: Price) -> dict[str, Any] | None:
    """What the provider charges for a stage; None where its tokens are not known."""
    input_tokens, output_tokens, ok = figures["input_tokens"], figures["output_tokens"], figures["ok"]
    if input_tokens is None or output_tokens is None:
        return None
    cached = figures["cached_tokens"] or 0
    of_cached = price.input_per_million if price.cached_input_per_million is None else price.cached_input_per_million
    input_cost = (max(input_tokens - cached, 0) * price.input_per_million + cached * of_cached) / 1e6
    output_cost = output_tokens * price.output_per_million / 1e6
    total = input_cost + output_cost
    return {
        "currency": price.currency,
        "input": input_cost,
        "output": output_cost,
        "total": total,
        "per_1000_successes": 1000 * total / ok if ok else None,
    }


def _after_retries(read: _Reader, retried: Mapping[Group, int]) -> dict[Group, dict[str, Any]]:
    """What became of requests in the end, where some were sent again: beside the figures of first attempts."""
    plain, with_failures = read.in_the_end(failures=False), read.in_the_end(failures=True)
    return {
        group: {
            "retried": retried[group],
            "success_rate": row["success_rate"],
            "due_e2e_ms": _distribution("due_e2e_ms", row)
            | {"with_failures": _distribution("due_e2e_ms", with_failures[group])},
        }
        for group, row in plain.items()
        if group in retried
    }


def _distribution(name: str, row: Row) -> dict[str, Any]:
    labels = [parse_stat(stat).label for stat in metrics.STATS]
    return _finite({label: row.get(f"{name}_{label}") for label in labels} | {"n": row.get(f"{name}_n", 0)})


def _total(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    errors: dict[str, int] = {}
    for stage in stages.values():
        for word, count in stage["errors"].items():
            errors[word] = errors.get(word, 0) + count
    return {
        "requests": sum(stage["requests"] for stage in stages.values()),
        "ok": sum(stage["ok"] for stage in stages.values()),
        "errors": errors,
        "input_tokens": _sum(stage["input_tokens"] for stage in stages.values()),
        "output_tokens": _sum(stage["output_tokens"] for stage in stages.values()),
    }


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _add_telemetry(out: dict[str, Any], read: _Reader, groups: Sequence[Group]) -> None:
    found = telemetry.sources(read.ask)
    out["gpu"] = {"sources": msgspec.to_builtins(found)} if found else None
    figures = read.figures(["energy_per_token"], (), groups, failures=False) if found else {}
    energy = {group: row["energy_per_token"] for group, row in figures.items()}
    devices = telemetry.devices(read.ask, energy) if found else {}
    for stage, target in groups:
        out["targets"][target]["stages"][stage]["gpu"] = telemetry.plain(devices.get((stage, target)))


# The verdicts


def _verdicts(
    read: _Reader, slos: Sequence[Slo], groups: Sequence[Group], counts: Mapping[Group, Row]
) -> list[Verdict]:
    if not slos:
        return []
    names = list(dict.fromkeys(slo.metric for slo in slos))
    wanted = list(dict.fromkeys(slo.stat for slo in slos if slo.stat))
    rows = read.figures(names, wanted, [group for group in groups if group in counts], failures=True)
    out = []
    for slo in slos:
        for stage, target in groups:
            if slo.stage in (None, stage) and slo.target in (None, target):
                row = rows.get((stage, target), {})
                requests = counts.get((stage, target), {}).get("requests", 0)
                ask = partial(read.of_group, group=(stage, target))
                found = evidence(ask, slo, row, requests)
                out.append(verdict.judge(slo, METRICS[slo.metric], target, stage, found))
    return out + _verdicts_on_names_never_seen(slos, groups)


def _verdicts_on_names_never_seen(slos: Sequence[Slo], groups: Sequence[Group]) -> list[Verdict]:
    """A plan's objectives name its targets. A locustfile's name requests, and which there are shows only in the run."""
    seen = list(dict.fromkeys(target for _, target in groups))
    stages = list(dict.fromkeys(stage for stage, _ in groups))
    out = []
    for slo in slos:
        if slo.target and slo.target not in seen:
            nearest = get_close_matches(slo.target, seen, len(seen) or 1, cutoff=0)
            note = f"no request had the name {slo.target}; names seen: {listing(nearest, NAMES_SEEN) or 'none'}"
            out += [verdict.unseen(slo, slo.target, stage, note) for stage in stages]
    return out


def _slo(judged: Verdict) -> dict[str, Any]:
    return _finite(msgspec.structs.asdict(judged))


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """As it goes into JSON: an infinity becomes null and is named in `infinite`."""
    infinite = [key for key, value in figures.items() if isinstance(value, float) and isinf(value)]
    return figures | dict.fromkeys(infinite) | ({"infinite": infinite} if infinite else {})


def _stop(stop: validity.Stop) -> dict[str, Any]:
    """What a round's `stop_when` came to."""
    intervals = [
        _finite(msgspec.structs.asdict(each)) | {"relative_width": each.relative_width} for each in stop.intervals
    ]
    return {**msgspec.to_builtins(stop), "intervals": intervals}


def _iso(instant_ns: int) -> str:
    return datetime.fromtimestamp(instant_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
