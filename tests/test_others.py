"""What `loadtest report --as` says of a stored run, and the section of the report that has all tools side by side."""

import csv
import io
import re

import pytest

from loadtest.definitions import DEFINITIONS, TOOLS
from loadtest.errors import UserError
from loadtest.report import others
from loadtest.report.model import Report, Stat
from loadtest.report.others import Said
from loadtest.report.sections import others as section
from loadtest.store import Store
from tests import sample_run
from tests.sample_report import report

RUN = sample_run.RUN


@pytest.fixture(scope="module")
def stored(store: Store) -> Store:
    sample_run.insert(store)
    return store


def of(store: Store, tool: str, stats: tuple[str, ...], chunks_at_once: int = 1_000_000) -> dict[tuple[str, str], Said]:
    """By figure and target. acme's first tokens came after 101, 102 ... 300 ms, then nine more, 20 ms apart."""
    said = others.said(store, RUN, [TOOLS[tool]], others.groups(store, RUN), stats, chunks_at_once)
    return {(figure.name, figure.target): figure for figure in said}


def test_the_groups_are_the_measured_ones_in_order(stored: Store) -> None:
    assert others.groups(stored, RUN) == [("steady", "acme"), ("steady", "globex")]


def test_figures_as_vllm_would_print_them(stored: Store) -> None:
    found = of(stored, "vllm", ("mean", "p50", "p99"))
    ttft = found["vllm.ttft_ms", "acme"]
    assert (ttft.stage, ttft.n) == ("steady", 200)
    assert ttft.stats == pytest.approx({"mean": 200.5, "p50": 200.5, "p99": 298.01})  # 0.01 of the way from 298 to 299
    assert found["vllm.itl_ms", "acme"].n == 1800
    assert found["vllm.itl_ms", "acme"].stats == pytest.approx({"mean": 20, "p50": 20, "p99": 20})
    assert found["vllm.e2e_ms", "acme"].stats == pytest.approx({"mean": 380.5, "p50": 380.5, "p99": 478.01})
    assert found["vllm.ttft_ms", "globex"].n == 150  # a refusal is left out


def test_a_tool_that_counts_failures_counts_them(stored: Store) -> None:
    latency = of(stored, "mlcommons", ("p5", "p50"))["mlcommons.e2e_ms", "globex"]
    assert latency.n == 200
    assert latency.stats["p5"] == 5  # a quarter was refused after 5 ms


def test_figures_that_the_rows_cannot_give_are_none(stored: Store) -> None:
    speed = of(stored, "artificial_analysis", ("p50",))["artificial_analysis.output_speed", "acme"]
    assert (speed.n, speed.stats) == (0, {"p50": None})


def test_large_runs_are_read_one_figure_at_a_time(stored: Store) -> None:
    stats = ("mean", "p99")
    assert of(stored, "vllm", stats, chunks_at_once=0) == of(stored, "vllm", stats)


def test_a_tool_by_its_name() -> None:
    assert [tool.name for tool in others.tools_named("vLLM")] == ["vllm", "vllm_033"]
    assert [tool.name for tool in others.tools_named("genai-bench")] == ["genai_bench"]
    with pytest.raises(UserError, match="'vlm' is no tool whose definitions are known; write one of: aiperf, guidellm"):
        others.tools_named("vlm")
    for tool in TOOLS.values():
        assert {each.stats for each in others.tools_named(tool.name)} == {tool.stats}


def test_a_table_for_the_terminal(stored: Store) -> None:
    tools = [TOOLS["aiperf"]]
    said = others.said(stored, RUN, tools, [("steady", "acme")], ("mean", "p50"))
    lines = list(others.plain(RUN, tools, said))
    assert lines[0] == f"AIPerf: what version 0.13.0 would print of run {RUN}"
    assert "  stage steady, target acme" in lines
    [head] = [line.split() for line in lines if line.split()[:1] == ["figure"]]
    assert head == ["figure", "called", "n", "mean", "p50"]
    [ttft] = [re.split(r"  +", line.strip()) for line in lines if "aiperf.ttft_ms" in line]
    assert ttft == ["aiperf.ttft_ms", "Time to First Token", "200", "200", "200"]  # three digits
    assert "No request" in "\n".join(others.plain(RUN, tools, []))


def test_json_and_csv(stored: Store) -> None:
    tools = [TOOLS["guidellm"]]
    said = others.said(stored, RUN, tools, [("steady", "acme")], ("mean", "p50"))
    found = others.as_json(RUN, tools, said)
    assert (found["run"], found["tools"]["guidellm"]["percentiles"]) == (RUN, "by nearest rank, ceil(p n)")
    figure = found["tools"]["guidellm"]["stages"]["steady"]["acme"]["guidellm.ttft_ms"]
    assert figure == {"called": "TTFT", "unit": "ms", "n": 200, "mean": pytest.approx(200.5), "p50": 200}
    rows = {row["figure"]: row for row in csv.DictReader(io.StringIO(others.as_csv(RUN, said)))}
    assert rows["guidellm.ttft_ms"] | {"mean": ""} == {
        "run": RUN, "stage": "steady", "target": "acme", "figure": "guidellm.ttft_ms", "called": "TTFT", "unit": "ms",
        "n": "200", "mean": "", "p50": "200.0",
    }  # fmt: skip
    assert float(rows["guidellm.ttft_ms"]["mean"]) == pytest.approx(200.5)


# The section


def said(name: str, p50: float | None, stage: str = "calm", target: str = "acme") -> Said:
    return Said(name=name, stage=stage, target=target, n=0 if p50 is None else 7, stats={"p50": p50, "p99": 900.0})


@pytest.fixture
def made() -> Report:
    """A stage in which our median first token came after 200 ms, our median token after 20."""
    made = report()
    figures = made.summary.targets["acme"].stages["calm"]
    figures.ttft_ms = Stat(p50=200, p99=800, n=10)
    figures.tpot_ms = Stat(p50=20, p99=40, n=10)
    figures.itl_ms = Stat(p50=25, p99=60, n=90)
    made.others = [
        said("aiperf.ttft_ms", 200.5),
        said("aiperf.itl_ms", 22),
        said("aiperf.icl_ms", 25),
        said("vllm.ttft_ms", 100),
        said("llmperf.ttft_ms", 500),
        said("artificial_analysis.output_speed", None),
        said("vllm.ttft_ms", 300, target="globex"),
    ]
    return made


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_the_section_says_between_what_a_figure_is_told(made: Report) -> None:
    page = text_of(section.others(made))
    assert "The median time to first token is 200 ms here; it is told as anything from 100 ms (vLLM" in page
    assert "to 500 ms (LLMPerf)" in page


def test_the_section_sets_each_figure_beside_ours(made: Report) -> None:
    page = text_of(section.others(made))
    assert "AIPerf TTFT 200 900 same ITL 22.0 900 +10.0%" in page  # an average beside our TPOT
    assert "ICL 25.0 900 same" in page  # a gap beside our ITL
    assert "up to 0.32 TTFT 100 900 −50.0%" in page
    assert "LLMPerf TTFT 500 900 2.50 ×" in page
    assert "Artificial Analysis Output" not in page  # it has no value here; its sentence stands below


def test_every_tool_has_its_reason_below(made: Report) -> None:
    page = text_of(section.others(made))
    assert [tool.name for tool in TOOLS.values() if tool.differs not in page] == []


def test_further_groups_are_folded(made: Report) -> None:
    html = section.others(made)
    assert html.count("<details>") == 1
    assert "Stage calm, globex" in text_of(html)


def test_what_is_left_out_is_said_and_a_group_is_small(made: Report) -> None:
    groups = [(stage, name) for name, target in made.summary.targets.items() for stage in target.stages]
    made.others = [said(name, 123.4, *group) for group in groups[:5] for name in DEFINITIONS]
    html = section.others(made)
    assert "1 further pair of stage and target: loadtest report" in text_of(html)
    assert len(html) < 5 * 8_000


def test_a_run_of_nothing_says_so(made: Report) -> None:
    made.others = []
    assert "there is nothing to compare" in text_of(section.others(made))


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ([("loadtest", 200.0), ("a", 200.5)], "All tell the same median time to first token, 200 ms."),
        ([("loadtest", None), ("a", 200.0)], "The time to first token cannot be told."),
        (
            [("loadtest", 200.0), ("a", 300.0), ("b", None)],
            "The median time to first token is 200 ms here; it is told as anything from 200 ms (loadtest) to 300 ms (a).",
        ),
    ],
)
def test_the_spread_in_words(told: list[tuple[str, float | None]], sentence: str) -> None:
    assert section.spread(told) == sentence
