"""The GPU under a simulated engine: utilization, power, temperature and clock that follow what the engine does.

    power = idle + (limit - idle) x utilization x (0.4 + 0.6 x share of the batch that is taken) x clock squared

The temperature follows the power slowly. A GPU that an event holds back is hot, and says so: its clock is lower, and the
counter of the time that heat has cost grows. Figures are of the order of a data centre's GPU, not of a product.
"""

import math
import random
from hashlib import blake2b
from typing import Any

from loadtest.simulator.course import Course
from loadtest.simulator.engine import Engine
from loadtest.simulator.profile import Profile

IDLE_W, LIMIT_W = 70.0, 700.0
FULL_MHZ, IDLE_MHZ, MEMORY_MHZ = 1980, 345, 2619
COOL_C, WARMER_C, HOT_C = 30.0, 45.0, 88.0
SETTLES_S = 15.0
"""Within this time a temperature makes up two thirds of what it lacks."""
MEMORY_MIB, WEIGHTS_MIB = 81_559, 16_384
CACHE_SHARE = 0.9
"""Of the memory, weights and cache together: an engine takes it all when it starts."""
HW_THERMAL = 0x40
GPU_IDLE = 0x01
"""Bits of DCGM_FI_DEV_CLOCKS_EVENT_REASONS."""


class Gpu:
    """`read` first, then the figures."""

    def __init__(self, profile: Profile, engine: Engine[Any], index: int, course: Course) -> None:
        digest = blake2b(f"{profile.name} {profile.seed} {index}".encode(), digest_size=16).hexdigest()
        self.index = index
        self.uuid = f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"
        self.utilization = 0.0  # share of the time since the last sample
        self.fill = 0.0  # mean share of the batch
        self.clock_mhz = IDLE_MHZ
        self.power_w = IDLE_W
        self.temperature_c = COOL_C
        self.energy_j = 0.0
        self.throttled_s = 0.0
        self.reasons = GPU_IDLE
        self._profile = profile
        self._engine = engine
        self._course = course
        self._random = random.Random(f"{profile.seed} gpu {index}")
        self._at_s: float | None = None
        self._busy_s = self._sequence_s = 0.0

    @property
    def memory_used_mib(self) -> int:
        return int(MEMORY_MIB * CACHE_SHARE)

    def read(self, now_s: float) -> None:
        """Take a sample, unless the last one is younger than the profile's `gpu_sample_s`."""
        if self._at_s is None:
            self._at_s = now_s
            return
        if (span_s := now_s - self._at_s) < self._profile.gpu_sample_s:
            return
        busy_s, sequence_s = self._engine.busy_s(now_s), self._engine.sequence_s
        self.utilization = min(max((busy_s - self._busy_s) / span_s, 0.0), 1.0)
        self.fill = min((sequence_s - self._sequence_s) / span_s / self._profile.max_batch, 1.0)
        self._at_s, self._busy_s, self._sequence_s = now_s, busy_s, sequence_s
        self._settle(span_s, self._course.speed(self.index, now_s))

    def _settle(self, span_s: float, speed: float) -> None:
        held = speed < 1
        self.clock_mhz = round(FULL_MHZ * speed) if self.utilization else IDLE_MHZ
        work = self.utilization * (0.4 + 0.6 * self.fill) * speed**2
        self.power_w = (IDLE_W + (LIMIT_W - IDLE_W) * work) * self._random.uniform(0.99, 1.01)
        towards_c = HOT_C if held else COOL_C + WARMER_C * self.power_w / LIMIT_W
        self.temperature_c += (towards_c - self.temperature_c) * (1 - math.exp(-span_s / SETTLES_S))
        self.energy_j += self.power_w * span_s
        self.throttled_s += span_s if held else 0.0
        self.reasons = HW_THERMAL if held else 0 if self.utilization else GPU_IDLE
