"""The GPUs of this machine, through NVIDIA's management library. Thin: names and units here, all else in scrape.py.

A value that a GPU does not give is left out. NVML answers in milliseconds and may block longer: not for an event loop.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pynvml

from loadtest.gpu.names import PERCENT, REASON_BITS

Value = tuple[str, Mapping[str, str], float]
"""(name, labels, value): names as in names.py, labels as dcgm-exporter has them."""


class NoNvml(Exception):
    """There is no driver, or it does not answer; the text says which."""


class Nvml:
    """Raises NoNvml."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            self._devices = [(_labels(i, handle), handle) for i, handle in enumerate(handles)]
        except pynvml.NVMLError as e:
            raise NoNvml(f"NVML says: {e}") from None

    def read(self) -> list[Value]:
        """All of them at once, so that whoever gives this to a thread has nothing left to wait for. Raises NoNvml."""
        return list(self._values())

    def _values(self) -> Iterator[Value]:
        for labels, handle in self._devices:
            answered = 0
            for name, read in _VALUES:
                try:
                    value = read(handle)
                except pynvml.NVMLError_NotSupported:
                    continue
                except pynvml.NVMLError as e:
                    raise NoNvml(f"NVML says of GPU {labels['gpu']}: {e}") from None
                answered += 1
                yield name, labels, value
            if answered:
                yield from self._throttling(labels, handle)

    def _throttling(self, labels: Mapping[str, str], handle: Any) -> Iterator[Value]:
        try:
            reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        except pynvml.NVMLError:
            return
        for bit, reason in REASON_BITS.items():
            yield "gpu.throttle.active", {**labels, "reason": reason}, float(bool(reasons & bit))


def _labels(index: int, handle: Any) -> dict[str, str]:
    return {
        "gpu": str(index),
        "UUID": pynvml.nvmlDeviceGetUUID(handle),
        "modelName": pynvml.nvmlDeviceGetName(handle),
    }


_VALUES: tuple[tuple[str, Callable[[Any], float]], ...] = (
    ("hw.gpu.utilization", lambda h: pynvml.nvmlDeviceGetUtilizationRates(h).gpu * PERCENT),
    ("gpu.memory.activity", lambda h: pynvml.nvmlDeviceGetUtilizationRates(h).memory * PERCENT),
    ("hw.gpu.memory.usage", lambda h: float(pynvml.nvmlDeviceGetMemoryInfo(h).used)),
    ("hw.gpu.memory.limit", lambda h: float(pynvml.nvmlDeviceGetMemoryInfo(h).total)),
    ("hw.power", lambda h: pynvml.nvmlDeviceGetPowerUsage(h) / 1e3),
    ("gpu.power.limit", lambda h: pynvml.nvmlDeviceGetEnforcedPowerLimit(h) / 1e3),
    ("hw.energy", lambda h: pynvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3),
    ("hw.temperature", lambda h: float(pynvml.nvmlDeviceGetTemperature(h, pynvml.NVML_TEMPERATURE_GPU))),
    ("gpu.clock.sm", lambda h: pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_SM) * 1e6),
    ("gpu.clock.memory", lambda h: pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_MEM) * 1e6),
)
