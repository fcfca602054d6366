"""What exporters show, read as prometheus-client reads it, and under our names: values worked out by hand."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from loadtest.gpu import names
from loadtest.gpu.exposition import Exposition, Malformed
from loadtest.gpu.names import RULES, SAMPLED
from loadtest.gpu.series import Reader, Series

TEXTS = Path(__file__).with_name("transcripts") / "gpu"
DOCS = Path(__file__).parent.parent / "docs" / "gpu.md"
H100 = "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52"
Found = tuple[str, tuple[tuple[str, str], ...]]


def text_of(name: str) -> str:
    return (TEXTS / f"{name}.txt").read_text(encoding="utf-8")


def described(name: str, labels: Mapping[str, str], _: str) -> Found:
    return name, tuple(sorted(labels.items()))


def by_the_reference(text: str) -> list[tuple[Found, float]]:
    """One line at a time: as a family, counters would be renamed."""
    out: list[tuple[Found, float]] = []
    for line in text.split("\n"):
        for family in text_string_to_metric_families(line + "\n"):
            out += [(described(s.name, s.labels, ""), float(s.value)) for s in family.samples]
    return out


# The text


metric_names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
label_names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,5}", fullmatch=True).filter(lambda n: not n.startswith("__"))
label_values = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from('\\"\n{}#, ='), max_size=8
)
numbers = (
    st.floats(allow_nan=False).map(repr)
    | st.integers(-(10**15), 10**15).map(str)
    | st.sampled_from(["NaN", "+Inf", "-Inf", "1e3"])
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    labels = draw(st.dictionaries(label_names, label_values, max_size=3))
    escaped = {k: v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for k, v in labels.items()}
    inner = ",".join(f'{k}="{v}"' for k, v in escaped.items())
    stamp = draw(st.just("") | st.integers(0, 2**41).map(lambda t: f" {t}"))
    space = draw(st.sampled_from([" ", " ", " ", "  ", "\t"]))
    return f"{draw(metric_names)}{'{' + inner + '}' if inner else ''}{space}{draw(numbers)}{stamp}"


@settings(max_examples=100)
@given(st.lists(lines(), min_size=1, max_size=6), st.data())
def test_whatever_is_read_is_what_prometheus_client_reads(first: list[str], data: st.DataObject) -> None:
    """Twice, the second time with other values: by then the series are known."""
    exposition: Exposition[Found] = Exposition(described)
    second = [re.sub(r"(?<=[ \t])[^ \t]+$", data.draw(numbers), line) for line in first]
    for text in ("\n".join(first), "\n".join(second) + "\n", "\n".join(first)):
        expected = by_the_reference(text)
        read = exposition.read(text)
        assert [found for found, _ in read] == [found for found, _ in expected]
        assert all(a == b or (math.isnan(a) and math.isnan(b)) for (_, a), (_, b) in zip(read, expected, strict=True))


@pytest.mark.parametrize("path", sorted(TEXTS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_transcripts_are_read_as_prometheus_client_reads_them(path: Path) -> None:
    exposition: Exposition[Found] = Exposition(described)
    text = path.read_text(encoding="utf-8")
    for _ in range(2):
        assert exposition.read(text) == by_the_reference(text)


def test_a_line_with_an_exemplar_is_never_mistaken_for_a_series() -> None:
    exposition: Exposition[Found] = Exposition(described)
    for value, exemplar in ((5, 0.5), (5, 5), (5, 0.7), (6, 0.7)):
        read = exposition.read(f'a_bucket{{le="1"}} {value} # {{trace_id="x"}} {exemplar}')
        assert [v for _, v in read] == [value]


@pytest.mark.parametrize(
    "text", ["<html>no such page</html>", "a 1\nb", "a one", 'a{b="c} 1', "a 1_000", "{} 1", "a 1\na{x=1} 2"]
)
def test_what_is_no_exposition_is_refused(text: str) -> None:
    exposition: Exposition[Found] = Exposition(described)
    for _ in range(2):
        with pytest.raises(Malformed):
            exposition.read(text)


def test_a_source_that_renames_its_series_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.gpu.exposition.MOST_SERIES", 10)
    exposition: Exposition[Found] = Exposition(described)
    for turn in range(20):
        assert len(exposition.read("\n".join(f'a{{pod="{turn}-{i}"}} 1' for i in range(5)))) == 5
    assert len(exposition._known) <= 15


# The names


def read(
    kind: str, text: str, targets: Mapping[str, list[str]] | None = None, **metrics: str
) -> list[tuple[Series, float]]:
    return Reader(kind, {"loadtest.source": "s"}, targets or {}, metrics).read(text)


def values(samples: list[tuple[Series, float]], *attributes: str) -> dict[tuple[str, ...], float]:
    return {(s.name, *(s.attributes.get(a, "") for a in attributes)): pytest.approx(v) for s, v in samples}


def test_dcgm() -> None:
    samples = read("dcgm", text_of("dcgm"))
    assert values(samples, "gpu.index", "reason") == {
        ("gpu.clock.sm", "0", ""): 1755e6,
        ("gpu.clock.sm", "1", ""): 345e6,
        ("gpu.memory.temperature", "0", ""): 62,  # of GPU 1 it is blank, which is no temperature
        ("hw.temperature", "0", ""): 71,
        ("hw.power", "0", ""): 612.478,
        ("hw.energy", "0", ""): 912345678.901,
        ("hw.gpu.utilization", "0", ""): 0.97,
        ("hw.gpu.utilization", "1", ""): 0.0,
        ("hw.gpu.memory.usage", "0", ""): 73408 * 2**20,
        ("gpu.throttle.time", "0", "thermal"): 1.5,
        ("gpu.throttle.active", "0", "power"): 1.0,  # 68 = 0x40 + 0x04
        ("gpu.throttle.active", "0", "hw_thermal"): 1.0,
        ("gpu.throttle.active", "0", "thermal"): 0.0,
        ("gpu.throttle.active", "0", "hw_slowdown"): 0.0,
        ("gpu.throttle.active", "0", "power_brake"): 0.0,
    }
    [series] = [s for s, _ in samples if s.name == "hw.power"]
    assert series.attributes == {
        "loadtest.source": "s",
        "loadtest.source_metric": "DCGM_FI_DEV_POWER_USAGE",
        "hw.type": "gpu",
        "hw.id": H100,
        "hw.model": "NVIDIA H100 80GB HBM3",
        "gpu.index": "0",
        "pci_bus_id": "00000000:0F:00.0",
        "device": "nvidia0",
        "Hostname": "node1",
        "DCGM_FI_DRIVER_VERSION": "570.86.15",
    }
    assert (series.unit, series.table) == ("W", "gauge")


def test_amd_gives_one_power_though_it_shows_three() -> None:
    samples = read("amd", text_of("amd"))
    assert values(samples, "loadtest.source_metric") == {
        ("gpu.clock.sm", "gpu_clock"): 2101e6,
        ("gpu.clock.memory", "gpu_clock"): 900e6,
        ("hw.energy", "gpu_energy_consumed"): 5.12345e6,
        ("hw.gpu.utilization", "gpu_gfx_activity"): 0.88,
        ("hw.temperature", "gpu_junction_temperature"): 64,
        ("hw.power", "gpu_package_power"): 611,
        ("hw.gpu.memory.limit", "gpu_total_vram"): 196592 * 2**20,
        ("hw.gpu.memory.usage", "gpu_used_vram"): 176000 * 2**20,
        ("gpu.throttle.active", "gpu_violation_socket_thermal_residency_percentage"): 0.25,
    }
    assert {s.attributes["hw.id"] for s, _ in samples} == {"692409005408"}


@pytest.mark.parametrize("change", [str.upper, lambda name: f"amd_{name}"], ids=["upper", "prefixed"])
def test_amd_exporters_that_name_otherwise(change: object) -> None:
    text = re.sub(r"(?m)^gpu_\w+", lambda found: change(found[0]), text_of("amd"))  # type: ignore[operator]
    assert values(read("amd", text)) == values(read("amd", text_of("amd")))


def test_vllm() -> None:
    assert values(read("vllm", text_of("vllm")), "finished_reason") == {
        ("engine.running", ""): 24,
        ("engine.batch_size", ""): 24,
        ("engine.queue_length", ""): 72,
        ("engine.kv_cache_utilization", ""): 0.4565217391304348,
        ("engine.prefix_cache.queries", ""): 250_000,
        ("engine.prefix_cache.hits", ""): 200_000,
        ("engine.preemptions", ""): 3,
        ("engine.tokens.prompt", ""): 2_000_000,
        ("engine.tokens.generated", ""): 15_000,
        ("engine.requests.completed", "stop"): 900,
        ("engine.requests.completed", "length"): 100,
    }


def test_the_others() -> None:
    assert values(read("sglang", text_of("sglang"))) == {
        ("engine.tokens.prompt",): 8_128_902,
        ("engine.tokens.generated",): 7_557_572,
        ("engine.kv_cache_utilization",): 0.28,
        ("engine.running",): 162,
        ("engine.batch_size",): 162,
        ("engine.queue_length",): 2826,
    }
    assert values(read("tgi", text_of("tgi"))) == {
        ("engine.requests.completed",): 40,
        ("engine.running",): 5,
        ("engine.batch_size",): 5,
        ("engine.queue_length",): 3,
        ("engine.tokens.generated",): 8000,
    }
    assert values(read("triton", text_of("triton")), "model") == {
        ("engine.requests.completed", "tensorrt_llm"): 161,
        ("engine.queue_length", "preprocessing"): 2,
        ("engine.queue_length", "tensorrt_llm"): 7,
        ("engine.batch_size", "tensorrt_llm"): 31,
        ("engine.running", "tensorrt_llm"): 38,
        ("engine.kv_cache_utilization", "tensorrt_llm"): 0.62,
        ("hw.gpu.utilization", ""): 0.91,
        ("hw.gpu.memory.limit", ""): 85899345920,
        ("hw.gpu.memory.usage", ""): 72635523072,
        ("hw.power", ""): 355.137,
        ("hw.energy", ""): 9380.053,
    }
    assert values(read("trtllm", text_of("trtllm"))) == {
        ("engine.requests.completed",): 120,
        ("engine.tokens.generated",): 30_000,
        ("engine.kv_cache_utilization",): 0.62,
        ("engine.running",): 16,
        ("engine.queue_length",): 4,
        ("engine.batch_size",): 15,
    }


@pytest.mark.parametrize("kind", sorted(RULES))
def test_a_source_of_no_kind_is_known_by_its_names(kind: str) -> None:
    known = {s.name for s, _ in read(kind, text_of(kind))}
    assert {s.name for s, _ in read("auto", text_of(kind)) if s.name in SAMPLED} == known


def test_anything_else_keeps_its_own_names() -> None:
    text = "# TYPE my_queue gauge\nmy_queue 3\n# TYPE served_total counter\nserved_total 7\nbare 1\n" + (
        '# TYPE lat histogram\nlat_bucket{le="1"} 1\nlat_bucket{le="+Inf"} 1\nlat_sum 1\nlat_count 1\n'
    )
    samples = read("prometheus", text, my_queue="engine.queue_length")
    assert [(s.name, s.table, v) for s, v in samples] == [
        ("engine.queue_length", "gauge", 3),
        ("served_total", "sum", 7),
        ("bare", "gauge", 1),
    ]
    assert samples[0][0].attributes["loadtest.source_metric"] == "my_queue"
    assert read("dcgm", text) == []


def test_devices_are_mapped_to_targets_by_index_or_id() -> None:
    def served(targets: dict[str, list[str]]) -> dict[str, str]:
        samples = read("dcgm", text_of("dcgm"), targets)
        return {s.attributes["gpu.index"]: s.attributes.get("loadtest.target", "") for s, _ in samples}

    assert served({"a": ["*"]}) == {"0": "a", "1": "a"}
    assert served({"a": ["0"], "b": ["1"]}) == {"0": "a", "1": "b"}
    assert served({"a": [H100], "b": ["*"]}) == {"0": "a,b", "1": "b"}
    assert served({"a": ["7"]}) == {"0": "", "1": ""}


def test_not_a_number_is_not_provided() -> None:
    text = "vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\nvllm:kv_cache_usage_perc 0.5\n"
    assert values(read("vllm", text)) == {("engine.kv_cache_utilization",): 0.5}


def test_a_slice_of_a_gpu_is_a_device_of_its_own() -> None:
    line = 'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",modelName="H100",GPU_I_PROFILE="1g.10gb",GPU_I_ID="7"} 10\n'
    [(series, _)] = read("dcgm", line)
    assert series.attributes["hw.id"] == "GPU-a/7"


def test_every_name_of_a_rule_is_a_name_of_ours() -> None:
    assert {rule.name for rules in RULES.values() for rule in rules} <= set(SAMPLED)


def test_the_tables_of_the_docs_are_these() -> None:
    assert DOCS.read_text(encoding="utf-8").endswith(names.catalogue()), "python -m loadtest.gpu.names makes them"


def test_the_counters_for_dcgm_are_those_that_are_read() -> None:
    """A field that is misspelt makes dcgm-exporter refuse to start; one that nobody reads costs time for nothing."""
    lines = (DOCS.parent.parent / "deploy/dcgm/counters.csv").read_text(encoding="utf-8").split("\n")
    fields = [line.split(",") for line in lines if line and not line.startswith("#")]
    assert all(len(field) == 3 and field[1].strip() in ("gauge", "counter", "label") for field in fields)
    read = {rule.metric for rule in RULES["dcgm"]}
    assert {field[0] for field in fields if field[1].strip() != "label"} <= read
    left_out = {r.metric for r in RULES["dcgm"] if r.name.startswith("gpu.throttle")} - {f[0] for f in fields}
    assert left_out == {  # an older name of CLOCKS_EVENT_REASONS, and counters that an older DCGM does not know
        "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
        *(rule.metric for rule in RULES["dcgm"] if rule.metric.endswith("_NS")),
    }


def test_newer_and_older_counters_of_one_reason_are_one() -> None:
    labels = '{gpu="0",UUID="a"}'
    newer = f"DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS{labels} 2e9\n"
    older = f"DCGM_FI_DEV_POWER_VIOLATION{labels} 3e9\n"
    for text in (newer + older, older + newer):
        assert values(read("dcgm", text), "reason") == {("gpu.throttle.time", "power"): 3.0}
