"""What exporters would show of a simulated provider, in the Prometheus text format, under the names of the real ones.

The engine's are vLLM's (vllm/v1/metrics/loggers.py), the GPU's those of NVIDIA's dcgm-exporter (its labels stand in
internal/pkg/rendermetrics), with the counters that deploy/dcgm/counters.csv adds.
"""

from collections.abc import Callable, Iterable, Sequence

from loadtest.simulator.generate import Pump
from loadtest.simulator.gpu import MEMORY_MHZ, MEMORY_MIB, Gpu
from loadtest.simulator.profile import Profile

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


def vllm(profile: Profile, pumps: Sequence[Pump]) -> str:
    model = profile.models[0] if profile.models else profile.name
    labels = [f'{{engine="{i}",model_name="{model}"}}' for i in range(len(pumps))]
    engines = [pump.engine for pump in pumps]
    lines: list[str] = []

    def family(name: str, kind: str, help_: str, values: Iterable[float], labels: Sequence[str] = labels) -> None:
        lines.append(f"# HELP vllm:{name} {help_}\n# TYPE vllm:{name} {kind}")
        lines.extend(f"vllm:{name}{where} {float(value)}" for where, value in zip(labels, values, strict=True))

    family(
        "num_requests_running", "gauge", "Number of requests in model execution batches.", [e.running for e in engines]
    )
    family(
        "num_requests_waiting",
        "gauge",
        "Number of requests waiting to be processed.",
        [len(e.waiting) for e in engines],
    )
    usage = [e.kv_cache_utilization for e in engines]
    family("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", usage)
    family("num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", [0 for _ in engines])
    family("prompt_tokens_total", "counter", "Number of prefill tokens processed.", [e.prompt_tokens for e in engines])
    family(
        "generation_tokens_total",
        "counter",
        "Number of generation tokens processed.",
        [e.generated_tokens for e in engines],
    )
    by_reason = [where.replace(",model_name", ',finished_reason="length",model_name') for where in labels]
    family(
        "request_success_total",
        "counter",
        "Count of successfully processed requests.",
        [e.finished for e in engines],
        by_reason,
    )
    return "\n".join(lines) + "\n"


_GPU: tuple[tuple[str, str, str, Callable[[Gpu], float]], ...] = (
    ("DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", lambda g: g.clock_mhz),
    ("DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", lambda _: MEMORY_MHZ),
    ("DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", lambda g: round(g.temperature_c)),
    ("DEV_POWER_USAGE", "gauge", "Power draw (in W).", lambda g: round(g.power_w, 3)),
    ("DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).",
     lambda g: int(g.energy_j * 1e3)),
    ("DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", lambda g: round(100 * g.utilization)),
    ("DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", lambda g: MEMORY_MIB - g.memory_used_mib),
    ("DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", lambda g: g.memory_used_mib),
    ("DEV_FB_TOTAL", "gauge", "Total framebuffer memory (in MiB).", lambda _: MEMORY_MIB),
    ("DEV_THERMAL_VIOLATION", "counter", "Throttling duration due to thermal constraints (in ns).",
     lambda g: int(g.throttled_s * 1e9)),
    ("DEV_POWER_VIOLATION", "counter", "Throttling duration due to power constraints (in ns).", lambda _: 0),
    ("DEV_CLOCKS_EVENT_REASONS", "gauge", "Current clock event reasons (bitmask).", lambda g: g.reasons),
)  # fmt: skip


def dcgm(gpus: Sequence[Gpu], now_s: float) -> str:
    for gpu in gpus:
        gpu.read(now_s)
    lines = []
    for name, kind, help_, value in _GPU:
        lines.append(f"# HELP DCGM_FI_{name} {help_}\n# TYPE DCGM_FI_{name} {kind}")
        lines += [f"DCGM_FI_{name}{_labels(gpu)} {value(gpu)}" for gpu in gpus]
    return "\n".join(lines) + "\n"


def _labels(gpu: Gpu) -> str:
    i = gpu.index
    return (
        f'{{gpu="{i}",UUID="{gpu.uuid}",pci_bus_id="00000000:{i + 15:02X}:00.0",device="nvidia{i}",'
        f'modelName="Simulated GPU",Hostname="simulator"}}'
    )
