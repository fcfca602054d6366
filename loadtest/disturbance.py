"""Did something else use the machine while it was measured? Other programs, the hypervisor; and did the figure hold still?

Linux tells it in /proc/stat; elsewhere nothing is known, and nothing disturbs. Time in interrupts is nobody's: that of our
own packets is among it.
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

PROC_STAT = Path("/proc/stat")
OTHERS_LIMIT = 0.1  # of the cores that we may use
STOLEN_LIMIT = 0.05  # as in a run: see validity.py
VARIED_LIMIT = 0.5


class Disturbance(Struct, kw_only=True):
    """Shares of the CPU time of the cores that we may use; and how far apart the rounds of one measurement were."""

    cores: int = 1
    others: float = 0  # used by programs that are not ours
    stolen: float = 0  # given to others by the hypervisor
    varied: float = 0  # of what a request cost in the rounds, as a share of the middle one

    def reasons(self) -> Iterator[str]:
        """Why figures that were taken meanwhile are not to be kept, each with what to do."""
        if self.others > OTHERS_LIMIT:
            used = (
                f"{self.others * self.cores:.2g} of {self.cores} cores"
                if self.cores > 1
                else f"{self.others:.0%} of it"
            )
            yield f"other programs used {used} meanwhile (at most {OTHERS_LIMIT:.0%} are fine); end them"
        if self.stolen > STOLEN_LIMIT:
            yield (
                f"the hypervisor gave {self.stolen:.0%} of this machine's CPU time to others (at most {STOLEN_LIMIT:.0%} "
                "are fine); use a machine with dedicated cores"
            )
        if self.varied > VARIED_LIMIT:
            yield (
                f"what a request cost varied by {self.varied:.0%} from round to round (at most {VARIED_LIMIT:.0%} are fine); "
                "let the machine do nothing else"
            )

    def words(self) -> str:
        return (
            f"meanwhile other programs used {self.others:.1%} of {'one core' if self.cores == 1 else f'{self.cores} cores'}, "
            f"the hypervisor took {self.stolen:.1%}; a request's cost varied by {self.varied:.0%}"
        )


class Moment(Struct, frozen=True):
    """Counters at one instant, in seconds of CPU; only their differences mean anything."""

    cores: int
    busy_s: float = 0  # of all programs, on those cores
    stolen_s: float = 0
    all_s: float = 0
    own_s: float = 0  # of this process and of its children that ended


def moment(stat: Path = PROC_STAT) -> Moment:
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return Moment(len(ours))
    ticks = [
        [int(word) for word in words[1:9]]
        for words in map(str.split, lines)
        if words and words[0].removeprefix("cpu") in map(str, ours) and words[0] != "cpu"
    ]
    if not ticks:  # of a container that numbers its cores anew, none is known by its own number
        return Moment(len(ours))
    user, nice, system, _, _, _, _, stolen = (sum(column) for column in zip(*ticks, strict=True))
    a_second = os.sysconf("SC_CLK_TCK")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Moment(
        len(ours),
        (user + nice + system) / a_second,
        stolen / a_second,
        sum(map(sum, ticks)) / a_second,
        sum(each.ru_utime + each.ru_stime for each in used),
    )


def between(begin: Moment, end: Moment, varied: float) -> Disturbance:
    """All children of ours that worked in between must have ended by then."""
    all_s = end.all_s - begin.all_s
    if all_s <= 0:
        return Disturbance(cores=end.cores, varied=varied)
    others_s = max(end.busy_s - begin.busy_s - (end.own_s - begin.own_s), 0)
    return Disturbance(
        cores=end.cores,
        others=others_s / all_s,
        stolen=(end.stolen_s - begin.stolen_s) / all_s,
        varied=varied,
    )
