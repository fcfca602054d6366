"""Is a run VALID: RULES, each with its default limit, what it means and what to do. Pure: summary.py has the SQL.

A run is INVALID when the generator, the machine below it or the account, not the endpoint, shaped the figures. It still
is reported, for diagnosis. Being interrupted is not a reason by itself. A plan's `validity:` sets other limits; the
report shows every rule with what was measured, and whose limit it was held to.

A fault that one stage or target suffered alone must not vanish among the requests of the others, as no percentile is
taken across them either: rules about requests are judged for each measured stage and target, and the worst one counts.
"""

from collections.abc import Callable, Mapping
from math import isinf
from types import MappingProxyType
from typing import Literal

from msgspec import Struct, field

from loadtest.provenance import Provenance

NAMED = 3
ON_TIME_MS = 25.0
"""The default limit of `schedule_lag`; a request later than this at a stage's end was not sent within the stage."""

# The account


class Integrity(Struct):
    """scheduled = sent + missed + unknown; sent = stored + lost. Warm-up included: an account leaves nothing out.

    A request is counted once, by its first attempt; further ones are `retried`, of which `retries_lost` have no row.
    """

    scheduled: int = 0
    sent: int = 0
    missed: int = 0
    unknown: int = 0
    stored: int = 0
    lost: int = 0
    retried: int = 0
    retries_lost: int = 0
    missed_by: dict[str, int] = field(default_factory=dict)  # reason (cap, worker_lost) -> requests


class Generator(Struct):
    """What the generator did, as far as the driver alone knows it. Shares are of the time of measured stages."""

    workers: int = 0
    workers_lost: int = 0  # gone for good, or with their node
    workers_restarted: int = 0
    losses: list[str] = []  # a sentence for each host that is gone, and each worker process that ended
    cpu_s: float = 0
    host_cpu_s: float = 0
    start_spread_ms: float = 0
    start_spread_error_ms: float = 0  # what the clocks of different nodes leave open of it
    clock_offset_ms: float = 0  # no node's clock is further from the driver's than this
    dropped_frames: int = 0
    clock_step_ms: float = 0  # largest disagreement of real-time and raw monotonic clock within a second
    clock_slew_ppm: float = 0  # the same over ten seconds without a step, in millionths
    busiest: float = 0  # the busiest worker's share of some seconds in which it ran or waited for a core
    busiest_waited: float = 0  # of it, the share in which it waited
    throttled: float = 0  # largest share of the time that a worker's cgroup was out of its quota
    stolen: float = 0  # largest share of a machine's CPU time that its hypervisor gave to others


class Interval(Struct, kw_only=True):
    """Of a figure of one target, when it was looked at."""

    target: str
    value: float | None
    low: float | None
    high: float | None
    requests: int

    @property
    def relative_width(self) -> float | None:
        """None where there is no such thing: an end that is not known, a value of 0."""
        if not self.value or self.low is None or self.high is None or isinf(self.high) or isinf(self.value):
            return None
        return (self.high - self.low) / self.value


class Stop(Struct, kw_only=True):
    """What a stage's `stop_when` came to (stopping.py): its last look, and whether that was enough."""

    stage: str = ""
    metric: str  # these three are the rule
    stat: str | None = None
    relative_width: float
    round: int = 0
    reached: bool = False
    looks: int = 0
    intervals: list[Interval] = field(default_factory=list)


class Refusal(Struct, kw_only=True):
    """A target that refused all its requests, for which the run was ended: see refusals.py."""

    target: str
    stage: str
    requests: int
    says: str  # how, and what of the plan that points to


class Account(Struct):
    """What the driver knows of a run at its end: stored as JSON with the run, read by summary.py."""

    integrity: Integrity = field(default_factory=Integrity)
    generator: Generator = field(default_factory=Generator)
    capped: dict[str, dict[str, int]] = field(default_factory=dict)  # stage -> target -> missed for `max_in_flight`
    interrupted: bool = False
    unsent: dict[str, dict[str, int]] = field(default_factory=dict)  # stage -> target -> due, and not known to be sent
    stops: list[Stop] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    provenance: Provenance = field(default_factory=Provenance)


class Group(Struct, kw_only=True):
    """One measured stage and target: what its stored rows say, and what of it was not sent."""

    stage: str
    target: str
    ended: int = 0  # rows
    client_faults: int = 0
    generator_faults: int = 0  # without the cancelled
    cancelled: int = 0
    due: int = 0  # rows that had a due time: none under closed load
    late: int = 0  # of those, taken up more than ON_TIME_MS after the stage's arrivals had ended
    unsent: int = 0
    schedule_lag_p99_ms: float | None = None
    uncertainty_p99_ms: float | None = None


class Facts(Struct, kw_only=True):
    """What validity is judged on."""

    account: Account
    groups: list[Group] = field(default_factory=list)


# The rules

Unit = Literal["requests", "workers", "results", "ms", "share", "ppm"]


class Rule(Struct, frozen=True, kw_only=True):
    """INVALID when what is measured is above `limit`. `says` names the {value}; where and the limit are added to it."""

    name: str
    limit: float
    unit: Unit
    of_run: Callable[[Account], float] | None = None
    of_group: Callable[[Group], float] | None = None  # the worst group counts
    says: str
    doc: str
    advice: str
    names: Callable[[Account], list[str]] = lambda _: []  # what it was found in, for the reason

    def measure(self, facts: Facts) -> tuple[float, Group | None]:
        """The value, and where it was found."""
        if self.of_run is not None:
            return self.of_run(facts.account), None
        of_group = self.of_group
        assert of_group is not None
        worst = max(facts.groups, key=of_group, default=None)
        return (of_group(worst), worst) if worst else (0.0, None)


class Judged(Struct, kw_only=True):
    """One rule held against one run."""

    rule: str
    value: float
    limit: float
    default: float
    where: str = ""  # the stage and target it was found in

    @property
    def broken(self) -> bool:
        return self.value > self.limit


class Validity(Struct, kw_only=True):
    valid: bool
    reasons: list[str]  # each `rule: what was found; what to do`
    rules: list[Judged]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _shortfall(group: Group) -> float:
    """The share of what was due that did not leave within the stage; nothing is due under closed load."""
    return _share(group.late + group.unsent, group.due + group.unsent) if group.due else 0.0


_RULES = (
    Rule(
        name="refused",
        limit=30,
        unit="requests",
        of_run=lambda a: max((refusal.requests for refusal in a.refusals), default=0),
        says="a target refused all of its first {value:g} request(s), and the run was ended before its time",
        names=lambda a: [refusal.says for refusal in a.refusals],
        doc="More requests of a target than the limit, over at least 5 seconds, have ended by `http_4xx`, `redirect`, "
        "`connect`, `dns` or `tls`, and none in another way: a wrong key, path, port or name, which more load would only "
        "repeat. In these seconds none was in flight for a second longer than the slowest of those took either: it may have "
        "been let in. The run is ended then, what was sent is kept, and what is in flight elsewhere has 5 seconds to end. 30 "
        "of 30 means, at 95%, that fewer than one in ten would have got in (the rule of three: Hanley and Lippman-Hand, JAMA "
        "249, 1983). Never for `rate_limited`, `overloaded`, `http_5xx`, timeouts or broken answers, which are what a load "
        "test is to see; nor once a request of that target ended in another way, for an endpoint that fails later is "
        "measured; nor in a plan of `kind: probe`. A plan that wants such answers sets the limit out of reach.",
        advice="mend the plan as the question above says, then run it again",
    ),
    Rule(
        name="worker_lost",
        limit=0,
        unit="workers",
        of_run=lambda a: a.generator.workers_lost + a.generator.workers_restarted,
        says="{value:g} worker process(es) were lost or had to be restarted",
        names=lambda a: a.generator.losses,
        doc="A worker process ended, or its node went, while the run went on. Its load was missing until another took "
        "over, and what it had in flight is not known. It ends itself once nobody has read what it measures for 10 seconds, "
        "as where the process beside it was suspended: nothing is sent that nobody counts. A worker that is gone with its "
        "node cannot be replaced: the run is then ended, and what was still to come of that worker's share is booked as "
        "unknown and missed.",
        advice="look into the worker's log beside the frame file; give the workers more memory or fewer streams each",
    ),
    Rule(
        name="spans_lost",
        limit=0,
        unit="requests",
        of_run=lambda a: a.integrity.lost + a.integrity.retries_lost,
        says="{value:g} request(s) were sent and are not in the store",
        doc="Requests that were sent and have no row. Nobody can say that those which are missing were like the others.",
        advice="the frame files keep what the workers delivered; check the store's log, its disk and its address",
    ),
    Rule(
        name="unknown",
        limit=0,
        unit="requests",
        of_run=lambda a: a.integrity.unknown,
        says="of {value:g} request(s) it is unknown whether they were sent",
        doc="Requests that were due within the last tenth of a second of a worker that died: it may have sent them.",
        advice="a worker ended without its last report; repeat the run",
    ),
    Rule(
        name="missed",
        limit=0,
        unit="requests",
        of_run=lambda a: a.integrity.missed - a.integrity.missed_by.get("cap", 0),
        says="{value:g} request(s) were due and not sent, for no cap of the plan",
        doc="Requests that nobody sent. What a target's `max_in_flight` held back is not counted: that is the plan's own "
        "wish, and the target is reported as saturated.",
        advice="repeat the run; with more workers if these were too busy",
    ),
    Rule(
        name="shortfall",
        limit=0.01,
        unit="share",
        of_group=_shortfall,
        says="{value:.2%} of the requests due had not left when the stage's arrivals ended",
        doc="The rate that was achieved fell short of the one offered, and the generator is to blame: the share of a "
        f"stage's due requests that were taken up later than {ON_TIME_MS:g} ms after its arrivals had ended, or never, "
        "other than for a cap. Closed load offers no rate.",
        advice="use more workers or a lower rate",
    ),
    Rule(
        name="faults",
        limit=0.01,
        unit="share",
        of_group=lambda g: _share(g.client_faults + g.generator_faults, g.ended),
        says="{value:.2%} of the requests failed by the plan's or the generator's own fault",
        doc="Requests that ended by `http_4xx` or `redirect` (the plan asks for something that is not there) or by "
        "`generator` (ours). They are left out of `error_rate`, so beyond a few the figures are of another load than "
        "the plan's.",
        advice="errors http_4xx and redirect: mend the target's url, key, model or body; error generator: raise the limit "
        "of open files or use more workers",
    ),
    Rule(
        name="cancelled",
        limit=0.01,
        unit="share",
        of_group=lambda g: _share(g.cancelled, g.ended),
        says="{value:.2%} of the requests were cancelled at the end of the drain",
        doc="Requests still in flight when the stage's `drain_s` was over. They are the slowest ones, and the figures are "
        "taken without them. Not judged of a run that was interrupted, or ended by `refused`.",
        advice="raise the stage's drain_s above the longest answer, or lower the target's timeouts",
    ),
    Rule(
        name="schedule_lag",
        limit=ON_TIME_MS,
        unit="ms",
        of_group=lambda g: g.schedule_lag_p99_ms or 0,
        says="requests were taken up late: the p99 of schedule_lag_ms is {value:.3g} ms",
        doc="From the instant a request was due to the instant a worker took it up, at the p99 of a stage and target. "
        "TTFT and all that begins at `sent_ns` do not suffer from it: they begin when the request really left, and end "
        "at the kernel's stamp. What suffers are the arrivals, which are no longer those of the plan, and the `due_*` "
        "metrics, which contain the lag: the limit bounds their error. Closed load has no due times.",
        advice="use more workers, a lower rate or a machine that does nothing else",
    ),
    Rule(
        name="uncertainty",
        limit=100,
        unit="ms",
        of_group=lambda g: g.uncertainty_p99_ms or 0,
        says="1% of the requests or more have a stamp that is uncertain by {value:.3g} ms",
        doc="The kernel keeps one stamp for all that a read finds. Where a read found several chunks, the first of them "
        "may have come earlier, by at most the uncertainty. INVALID when 1% of the requests of a stage and target or more "
        "have a stamp worse than the limit. A request's uncertainty is that of the worst of all its chunks, so one pause "
        "of the worker marks every stream of that moment: the limit is as long as a pause that cannot be called short.",
        advice="the worker read too late: use more workers or fewer streams each",
    ),
    Rule(
        name="worker_cpu",
        limit=0.9,
        unit="share",
        of_run=lambda a: a.generator.busiest,
        says="a worker ran or waited for a core in {value:.0%} of the time, for seconds on end",
        doc="A worker is one Python process: it has one core. The share of at least three seconds on end in which it ran "
        "(its CPU time) or could have run and had to wait for a core (the kernel's run-queue delay), while a measured "
        "stage went on; the busiest such seconds of all workers. Near 1 it no longer keeps up with its streams.",
        advice="use more workers, fewer streams each, or a machine with more free cores",
    ),
    Rule(
        name="throttled",
        limit=0.01,
        unit="share",
        of_run=lambda a: a.generator.throttled,
        says="a worker's cgroup was stopped for {value:.2%} of the time for having used up its CPU quota",
        doc="A container with a CPU limit is stopped for the rest of a period (mostly 100 ms) once it has used up its "
        "share, with every stream it holds. From `throttled_usec` of the cgroup's cpu.stat and of those above it, over "
        "the time of measured stages; the largest of all workers.",
        advice="raise or remove the CPU limit of the workers' container",
    ),
    Rule(
        name="stolen",
        limit=0.05,
        unit="share",
        of_run=lambda a: a.generator.stolen,
        says="the hypervisor gave {value:.2%} of a machine's CPU time to others",
        doc="A virtual machine's cores are shared with others: `steal` of /proc/stat over the time of measured stages, as "
        "a share of all CPU time; the largest of all machines with workers.",
        advice="use a machine with dedicated cores",
    ),
    Rule(
        name="start_spread",
        limit=100,
        unit="ms",
        of_run=lambda a: a.generator.start_spread_ms,
        says="the workers started {value:.3g} ms apart",
        doc="The largest difference, over all stages, of the instants at which the workers really began. All were told the "
        "same instant.",
        advice="use fewer workers a core, or nodes that are not busy",
    ),
    Rule(
        name="clock_offset",
        limit=100,
        unit="ms",
        of_run=lambda a: a.generator.clock_offset_ms,
        says="the clocks of driver and nodes may be {value:.3g} ms apart",
        doc="The largest distance between the driver's clock and a node's that the measurement does not rule out: the offset "
        "and half the round trip of the quickest exchange, the worst of all rounds before and during the run. The shards "
        "of one schedule are shifted against each other by it, and so are the windows of rates and the worker starts. "
        "Durations of a request are not: both ends are stamps of one clock. 0 where all workers run beside the driver.",
        advice="synchronize the nodes' clocks (chronyc tracking, timedatectl); where it is the way to a far region that "
        "leaves it open, start the driver nearer to it or set the limit to half that round trip",
    ),
    Rule(
        name="dropped_frames",
        limit=0,
        unit="results",
        of_run=lambda a: a.generator.dropped_frames,
        says="{value:g} result(s) did not fit between a worker and its host",
        doc="A worker keeps up to 64 MB that its host has not read yet, rather than hold up a request; then it drops "
        "results and counts them.",
        advice="the machine or its disk was too slow to take them; use fewer streams a worker or a faster disk",
    ),
    Rule(
        name="clock_step",
        limit=5,
        unit="ms",
        of_run=lambda a: a.generator.clock_step_ms,
        says="a worker's clock was stepped by {value:.3g} ms",
        doc="Real-time and raw monotonic clock are compared every second. Durations are differences of real-time stamps, "
        "so a step is an error of its size in every request that was in flight.",
        advice="let the time service settle (chronyc tracking, timedatectl) and repeat the run",
    ),
    Rule(
        name="clock_slew",
        limit=1000,
        unit="ppm",
        of_run=lambda a: a.generator.clock_slew_ppm,
        says="a worker's clock was slewed by {value:.3g} millionths",
        doc="The same over ten seconds: how much faster or slower than the raw clock the real-time clock went. A time "
        "service at rest corrects less than 500 millionths; 1,000 make an answer of a minute wrong by 60 ms.",
        advice="let the time service settle (chronyc tracking, timedatectl) and repeat the run",
    ),
)
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}
"""Every reason a run can be INVALID for, with its default limit and the remedy."""

NO_LIMITS: Mapping[str, float] = MappingProxyType({})


def validity(facts: Facts, limits: Mapping[str, float] = NO_LIMITS) -> Validity:
    """`limits`: the plan's, by rule."""
    rules, reasons = [], []
    for rule in RULES.values():
        if rule.name == "cancelled" and (facts.account.interrupted or facts.account.refusals):
            continue
        value, group = rule.measure(facts)
        where = f"stage {group.stage}, target {group.target}" if group else ""
        judged = Judged(
            rule=rule.name, value=value, limit=limits.get(rule.name, rule.limit), default=rule.limit, where=where
        )
        rules.append(judged)
        if judged.broken:
            reasons.append(_reason(rule, judged, rule.names(facts.account)))
    return Validity(valid=not reasons, reasons=reasons, rules=rules)


def _reason(rule: Rule, judged: Judged, names: list[str]) -> str:
    where = f" in {judged.where}" if judged.where else ""
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        where += f": {', and '.join(names[:NAMED])}{more}"
    whose = "the plan's limit" if judged.limit != judged.default else "limit"
    held_to = f" ({whose} {shown(judged.limit, rule.unit)})" if judged.limit else ""
    return f"{rule.name}: {rule.says.format(value=judged.value)}{where}{held_to}; {rule.advice}"


def catalogue() -> str:
    """docs/validity.md."""
    out = [
        "# VALID or INVALID",
        "",
        "A run is INVALID, and `loadtest run` exits with 3, when the generator, the machine below it or the account, not",
        "the endpoint, shaped the figures. It is still reported, for diagnosis: each reason says what was found and what",
        "to do. `summary.json` has every rule under `validity.rules` with what was measured.",
        "",
        "Rules about requests are judged for each measured stage and target, and the worst one counts: a fault of one",
        "must not vanish among the requests of the others. Warm-up is not judged by them. A plan sets other limits with",
        "`validity: {schedule_lag: 100, cancelled: 0.05}`; the report then says so.",
        "Made by `python -m loadtest.validity > docs/validity.md`.",
        "",
        "| rule | INVALID above | of |",
        "|---|---|---|",
    ]
    out += [
        f"| [`{r.name}`](#{r.name}) | {shown(r.limit, r.unit)} | {'the run' if r.of_run else 'a stage and target'} |"
        for r in RULES.values()
    ]
    for r in RULES.values():
        out += ["", f"## {r.name}", "", r.doc, "", f"What to do: {r.advice}."]
    return "\n".join(out) + "\n"


def shown(value: float, unit: Unit) -> str:
    """With its unit, as a person reads it: `25 ms`, `1%`, `1 worker`."""
    if unit == "share":
        return f"{100 * value:.3g}%"
    if value == 1 and unit in ("requests", "workers", "results"):
        return f"1 {unit[:-1]}"
    return f"{value:,.4g} {unit}" if value < 10_000 else f"{value:,.0f} {unit}"


if __name__ == "__main__":
    print(catalogue(), end="")
