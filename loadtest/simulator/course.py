"""What befalls a provider when: its profile's events, on a clock that starts with the first request."""

from loadtest.simulator.profile import Fault, Profile


class Course:
    def __init__(self, profile: Profile) -> None:
        self._events = profile.events
        self._begun_s: float | None = None

    def begin(self, now_s: float) -> None:
        """The first call starts the clock."""
        if self._begun_s is None:
            self._begun_s = now_s

    def speed(self, replica: int, now_s: float) -> float:
        """The clock that a replica's GPU is held to, as a share of its full one."""
        elapsed_s = self._elapsed_s(now_s)
        held = (e.clock for e in self._events if e.clock and e.replica in (None, replica) and e.holds(elapsed_s))
        return min(held, default=1.0)

    def fault(self, now_s: float) -> Fault | None:
        """By what each request of this moment fails."""
        elapsed_s = self._elapsed_s(now_s)
        return next((e.fault for e in self._events if e.fault and e.holds(elapsed_s)), None)

    def _elapsed_s(self, now_s: float) -> float:
        return -1.0 if self._begun_s is None else now_s - self._begun_s
