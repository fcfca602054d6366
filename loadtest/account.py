"""The last snapshot of a run -> its Account: every count added up over stages, targets and workers."""

from loadtest.pressure import Pressure
from loadtest.run import Place, Snapshot
from loadtest.validity import Account, Generator, Integrity


def account(snapshot: Snapshot, stored: int) -> Account:
    """`stored`: rows of this run that the store holds, counted there and not here."""
    integrity = Integrity(stored=stored)
    missed_by: dict[str, int] = {}
    capped: dict[str, dict[str, int]] = {}
    unsent: dict[str, dict[str, int]] = {}
    for status in snapshot.hosts:
        for stage in status.stages:
            for target, count in zip(snapshot.plan.targets, stage.targets, strict=True):
                integrity.scheduled += count.scheduled
                integrity.sent += count.sent
                integrity.unknown += count.unknown
                integrity.retried += count.retried
                for reason, missed in (("cap", count.missed_cap), ("worker_lost", count.missed_worker_lost)):
                    if missed:
                        missed_by[reason] = missed_by.get(reason, 0) + missed
                for counts, n in ((capped, count.missed_cap), (unsent, count.missed_worker_lost + count.unknown)):
                    if n:
                        by_target = counts.setdefault(snapshot.plan.stages[stage.stage].name, {})
                        by_target[target.name] = by_target.get(target.name, 0) + n
    integrity.missed = sum(missed_by.values())
    integrity.missed_by = missed_by
    integrity.lost = integrity.sent - stored
    return Account(integrity, _generator(snapshot), capped, snapshot.interrupted, unsent, refusals=snapshot.refusals)


def _generator(snapshot: Snapshot) -> Generator:
    hosts = snapshot.hosts
    spread_ms, spread_error_ms = _start_spread(snapshot)
    busiest = max((s.pressure for s in hosts), key=lambda p: p.busiest, default=Pressure())
    return Generator(
        workers=len(hosts) + len(set(snapshot.lost_hosts) - {s.worker for s in hosts}),
        workers_lost=len({s.worker for s in hosts if s.state == "failed"}.union(snapshot.lost_hosts)),
        losses=[*snapshot.losses.values(), *(death for s in hosts for death in s.deaths)],
        workers_restarted=sum(s.restarts for s in hosts),
        cpu_s=sum(s.cpu_s for s in hosts),
        host_cpu_s=sum({s.host: s.host_cpu_s for s in hosts}.values()),
        start_spread_ms=spread_ms,
        start_spread_error_ms=spread_error_ms,
        clock_offset_ms=max((abs(p.offset_ns) + p.error_ns for p in snapshot.places), default=0) / 1e6,
        dropped_frames=sum(s.dropped for s in hosts),
        clock_step_ms=max((s.clock_step_ns for s in hosts), default=0) / 1e6,
        clock_slew_ppm=max((s.clock_slew_ppm for s in hosts), default=0),
        busiest=busiest.busiest,
        busiest_waited=busiest.busiest_waited,
        throttled=max((s.pressure.throttled for s in hosts), default=0),
        stolen=max((s.pressure.stolen for s in hosts), default=0),
    )


def _start_spread(snapshot: Snapshot) -> tuple[float, float]:
    """The largest difference, over the stages, of the instants at which the workers really began, by the driver's clock;
    and its error bar: as well as the clocks of those two workers are known."""
    places = dict(enumerate(snapshot.places))
    worst = (0, 0)
    for times in snapshot.times:
        starts = []
        for status in snapshot.hosts:
            place = places.get(status.worker, Place())
            began = [c.first_start_ns for c in status.stages if c.stage == times.stage and c.first_start_ns]
            starts += [(ns - place.offset_ns, place.error_ns) for ns in began]
        if starts:
            (first_ns, first_error), (last_ns, last_error) = min(starts), max(starts)
            worst = max(worst, (last_ns - first_ns, first_error + last_error if last_ns > first_ns else 0))
    return worst[0] / 1e6, worst[1] / 1e6
