"""One set of names for what exporters call by theirs.

Where OpenTelemetry's semantic conventions have a name, it is that one (docs/hardware/gpu.md and common.md of
open-telemetry/semantic-conventions, status Development): hw.gpu.utilization, hw.gpu.memory.usage, hw.gpu.memory.limit,
hw.power, hw.energy, hw.temperature, with the attributes hw.type, hw.id and hw.model. They have none for clocks and
throttling, and none for what an inference server has in its queue, batch and cache: those are `gpu.` and `engine.`.
Units are UCUM's. Each scrape is recorded as Prometheus does it: up, scrape_duration_seconds, scrape_samples_scraped.

What a source calls a value stays with it, as the attribute loadtest.source_metric, and so do the source's other labels.
The exporters' names were read in their sources in November 2026; tests/transcripts says where.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

MHZ, MIB, PERCENT = 1e6, 2.0**20, 0.01


class Sampled(Struct, frozen=True):
    """What a name means. A sum only grows."""

    unit: str
    doc: str
    table: Literal["gauge", "sum"] = "gauge"


SAMPLED: Mapping[str, Sampled] = {
    "hw.gpu.utilization": Sampled("1", "share of the time that the GPU had work"),
    "hw.gpu.memory.usage": Sampled("By", "memory in use"),
    "hw.gpu.memory.limit": Sampled("By", "memory that there is"),
    "hw.power": Sampled("W", "power drawn"),
    "hw.energy": Sampled("J", "energy used", "sum"),
    "hw.temperature": Sampled("Cel", "temperature of the chip"),
    "gpu.power.limit": Sampled("W", "power that it may draw"),
    "gpu.memory.temperature": Sampled("Cel", "temperature of the memory"),
    "gpu.memory.activity": Sampled("1", "share of the time that memory was read or written"),
    "gpu.tensor.activity": Sampled("1", "share of the cycles that the tensor cores worked"),
    "gpu.clock.sm": Sampled("Hz", "clock of the processors"),
    "gpu.clock.memory": Sampled("Hz", "clock of the memory"),
    "gpu.throttle.active": Sampled(
        "1", "share of the moment that its clock was held down, by `reason`; 0 or 1 where the source only says whether"
    ),
    "gpu.throttle.time": Sampled("s", "how long its clock was held down, by `reason`", "sum"),
    "engine.running": Sampled("{request}", "requests that are being worked on"),
    "engine.queue_length": Sampled("{request}", "requests that wait"),
    "engine.batch_size": Sampled("{request}", "requests in the batch"),
    "engine.kv_cache_utilization": Sampled("1", "share of the KV cache that is taken"),
    "engine.tokens.prompt": Sampled("{token}", "prompt tokens processed", "sum"),
    "engine.tokens.generated": Sampled("{token}", "tokens generated", "sum"),
    "engine.requests.completed": Sampled("{request}", "requests completed", "sum"),
    "engine.preemptions": Sampled("{request}", "requests put back because the cache was full", "sum"),
    "engine.prefix_cache.queries": Sampled("{token}", "prompt tokens looked up in the prefix cache", "sum"),
    "engine.prefix_cache.hits": Sampled("{token}", "prompt tokens found there", "sum"),
    "up": Sampled("1", "1 where the scrape succeeded, 0 where it failed, with the word why as `error.type`"),
    "scrape_duration_seconds": Sampled("s", "how long the scrape took"),
    "scrape_samples_scraped": Sampled("1", "values that the source gave"),
}


class Rule(Struct, frozen=True, kw_only=True):
    """A source's metric, and what it is to us: `scale` times it, or whether `bit` of it is set."""

    metric: str
    name: str
    scale: float = 1.0
    bit: int = 0
    where: Mapping[str, str] = {}  # labels that it must have
    attributes: Mapping[str, str] = {}


def _rules(*rows: tuple[str, str] | tuple[str, str, float]) -> tuple[Rule, ...]:
    return tuple(Rule(metric=row[0], name=row[1], scale=row[2] if len(row) == 3 else 1.0) for row in rows)


def _throttled(metric: str, reason: str, scale: float) -> Rule:
    name = "gpu.throttle.time" if scale < PERCENT else "gpu.throttle.active"
    return Rule(metric=metric, name=name, scale=scale, attributes={"reason": reason})


REASON_BITS = {0x04: "power", 0x08: "hw_slowdown", 0x20: "thermal", 0x40: "hw_thermal", 0x80: "power_brake"}
"""Of NVML's clock event reasons, which DCGM hands on: those that hold a working GPU's clock down."""
_DCGM_REASONS = tuple(
    Rule(metric=metric, name="gpu.throttle.active", bit=bit, attributes={"reason": reason})
    for metric in ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")
    for bit, reason in REASON_BITS.items()
)
_DCGM_VIOLATIONS = tuple(
    _throttled(f"DCGM_FI_DEV_{word}_VIOLATION", reason, 1e-9)
    for word, reason in (
        ("POWER", "power"),
        ("THERMAL", "thermal"),
        ("SYNC_BOOST", "sync_boost"),
        ("BOARD_LIMIT", "board_limit"),
        ("RELIABILITY", "reliability"),
    )
) + tuple(  # of newer DCGM, beside the older ones
    _throttled(f"DCGM_FI_DEV_CLOCKS_EVENT_REASON_{word}_NS", reason, 1e-9)
    for word, reason in (
        ("SW_POWER_CAP", "power"),
        ("SW_THERM_SLOWDOWN", "thermal"),
        ("HW_THERM_SLOWDOWN", "hw_thermal"),
        ("HW_POWER_BRAKE_SLOWDOWN", "power_brake"),
        ("SYNC_BOOST", "sync_boost"),
    )
)
_AMD_VIOLATIONS = tuple(
    _throttled(f"gpu_violation_{word}_residency_percentage", reason, PERCENT)
    for word, reason in (
        ("ppt", "power"),
        ("socket_thermal", "thermal"),
        ("hbm_thermal", "memory_thermal"),
        ("vr_thermal", "regulator_thermal"),
        ("processor_hot", "hw_thermal"),
    )
)

RULES: Mapping[str, tuple[Rule, ...]] = {
    "dcgm": (
        *_rules(
            ("DCGM_FI_DEV_GPU_UTIL", "hw.gpu.utilization", PERCENT),
            ("DCGM_FI_DEV_FB_USED", "hw.gpu.memory.usage", MIB),
            ("DCGM_FI_DEV_FB_TOTAL", "hw.gpu.memory.limit", MIB),
            ("DCGM_FI_DEV_POWER_USAGE", "hw.power"),
            ("DCGM_FI_DEV_POWER_MGMT_LIMIT", "gpu.power.limit"),
            ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "hw.energy", 1e-3),
            ("DCGM_FI_DEV_GPU_TEMP", "hw.temperature"),
            ("DCGM_FI_DEV_MEMORY_TEMP", "gpu.memory.temperature"),
            ("DCGM_FI_DEV_SM_CLOCK", "gpu.clock.sm", MHZ),
            ("DCGM_FI_DEV_MEM_CLOCK", "gpu.clock.memory", MHZ),
            ("DCGM_FI_PROF_DRAM_ACTIVE", "gpu.memory.activity"),
            ("DCGM_FI_DEV_MEM_COPY_UTIL", "gpu.memory.activity", PERCENT),
            ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gpu.tensor.activity"),
        ),
        *_DCGM_VIOLATIONS,
        *_DCGM_REASONS,
    ),
    "amd": (
        *_rules(
            ("gpu_gfx_activity", "hw.gpu.utilization", PERCENT),
            ("gpu_used_vram", "hw.gpu.memory.usage", MIB),
            ("gpu_total_vram", "hw.gpu.memory.limit", MIB),
            ("gpu_package_power", "hw.power"),
            ("gpu_average_package_power", "hw.power"),
            ("gpu_power_usage", "hw.power"),
            ("gpu_energy_consumed", "hw.energy", 1e-6),
            ("gpu_junction_temperature", "hw.temperature"),
            ("gpu_edge_temperature", "hw.temperature"),
            ("gpu_memory_temperature", "gpu.memory.temperature"),
            ("gpu_umc_activity", "gpu.memory.activity", PERCENT),
        ),
        Rule(metric="gpu_clock", name="gpu.clock.sm", scale=MHZ, where={"clock_type": "system"}),
        Rule(metric="gpu_clock", name="gpu.clock.memory", scale=MHZ, where={"clock_type": "memory"}),
        *_AMD_VIOLATIONS,
    ),
    "vllm": _rules(
        ("vllm:num_requests_running", "engine.running"),
        ("vllm:num_requests_running", "engine.batch_size"),
        ("vllm:num_requests_waiting", "engine.queue_length"),
        ("vllm:kv_cache_usage_perc", "engine.kv_cache_utilization"),
        ("vllm:gpu_cache_usage_perc", "engine.kv_cache_utilization"),
        ("vllm:prompt_tokens_total", "engine.tokens.prompt"),
        ("vllm:generation_tokens_total", "engine.tokens.generated"),
        ("vllm:request_success_total", "engine.requests.completed"),
        ("vllm:num_preemptions_total", "engine.preemptions"),
        ("vllm:prefix_cache_queries_total", "engine.prefix_cache.queries"),
        ("vllm:prefix_cache_hits_total", "engine.prefix_cache.hits"),
    ),
    "sglang": _rules(
        ("sglang:num_running_reqs", "engine.running"),
        ("sglang:num_running_reqs", "engine.batch_size"),
        ("sglang:num_queue_reqs", "engine.queue_length"),
        ("sglang:token_usage", "engine.kv_cache_utilization"),
        ("sglang:prompt_tokens_total", "engine.tokens.prompt"),
        ("sglang:generation_tokens_total", "engine.tokens.generated"),
        ("sglang:num_requests_total", "engine.requests.completed"),
        ("sglang:cached_tokens_total", "engine.prefix_cache.hits"),
    ),
    "tgi": _rules(
        ("tgi_batch_current_size", "engine.running"),
        ("tgi_batch_current_size", "engine.batch_size"),
        ("tgi_queue_size", "engine.queue_length"),
        ("tgi_request_input_length_sum", "engine.tokens.prompt"),
        ("tgi_request_generated_tokens_sum", "engine.tokens.generated"),
        ("tgi_request_success", "engine.requests.completed"),
    ),
    "triton": (
        *_rules(
            ("nv_gpu_utilization", "hw.gpu.utilization"),
            ("nv_gpu_memory_used_bytes", "hw.gpu.memory.usage"),
            ("nv_gpu_memory_total_bytes", "hw.gpu.memory.limit"),
            ("nv_gpu_power_usage", "hw.power"),
            ("nv_gpu_power_limit", "gpu.power.limit"),
            ("nv_energy_consumption", "hw.energy"),
        ),
        *(
            Rule(metric="nv_trt_llm_request_metrics", name=name, where={"request_type": word})
            for word, name in (
                ("active", "engine.running"),
                ("scheduled", "engine.batch_size"),
                ("waiting", "engine.queue_length"),
            )
        ),
        Rule(
            metric="nv_trt_llm_kv_cache_block_metrics",
            name="engine.kv_cache_utilization",
            where={"kv_cache_block_type": "fraction"},
        ),
        *_rules(
            ("nv_inference_pending_request_count", "engine.queue_length"),
            ("nv_inference_request_success", "engine.requests.completed"),
        ),
    ),
    "trtllm": _rules(
        ("trtllm_num_requests_running", "engine.running"),
        ("trtllm_num_scheduled_requests", "engine.batch_size"),
        ("trtllm_num_requests_waiting", "engine.queue_length"),
        ("trtllm_kv_cache_utilization", "engine.kv_cache_utilization"),
        ("trtllm_prompt_tokens_total", "engine.tokens.prompt"),
        ("trtllm_generation_tokens_total", "engine.tokens.generated"),
        ("trtllm_request_success_total", "engine.requests.completed"),
        ("trtllm_prompt_cached_tokens_total", "engine.prefix_cache.hits"),
    ),
}
"""By the kind of source. Of rules that would give one thing one name twice, the first that applies is taken."""

IDS: Mapping[str, tuple[str, ...]] = {
    "gpu.index": ("gpu", "gpu_id"),
    "hw.id": ("UUID", "gpu_uuid", "serial_number"),
    "hw.model": ("modelName", "card_series", "card_model"),
    "engine.id": ("engine", "dp_rank", "tp_rank"),
}
"""Attribute -> the labels that it may be called by: of GPUs, and of engines behind one exporter."""

_BLANKS = (2.0**31 - 16, 2.0**47, 2.0**63)


def blank(value: float) -> bool:
    """DCGM's way to say that there is no value, as a number: its blanks for integers and floats, and up to 15 more, which
    say why (dcgm_structs.h). As doubles, those of 64 bits are all one."""
    return any(0 <= value - base < 16 for base in _BLANKS)


def catalogue() -> str:
    """Two tables of docs/gpu.md: the names, and what each kind of source calls them."""
    out = ["| name | unit | meaning |", "|---|---|---|"]
    out += [
        f"| `{name}` | {each.unit} | {each.doc}{'; only grows' if each.table == 'sum' else ''} |"
        for name, each in SAMPLED.items()
    ]
    out += ["", "| kind | its metric | our name | times |", "|---|---|---|---|"]
    for kind, rules in RULES.items():
        for rule in rules:
            labels = ", ".join(f'{key}="{value}"' for key, value in rule.where.items())
            reason = f", reason `{rule.attributes['reason']}`" if rule.attributes else ""
            factor = f"bit {rule.bit:#x}" if rule.bit else f"{rule.scale:g}"
            source = f"{rule.metric}{{{labels}}}" if labels else rule.metric
            out.append(f"| {kind} | `{source}` | `{rule.name}`{reason} | {factor} |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    print(catalogue(), end="")
