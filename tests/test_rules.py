"""What the parts of a plan must agree on: each rule broken once, and what looks like a mistake and is none."""

from pathlib import Path

import pytest

from loadtest import plan
from loadtest.errors import PlanError

PLAN = """
name: rules
targets:
  - {name: fast, url: "http://127.0.0.1:1/v1", dialect: openai-chat, TARGET}
  - {name: slow, url: "http://127.0.0.1:2/v1", dialect: openai-chat}
prompts: {kind: synthetic, input_tokens: 10}
stages:
  - {name: warm-up, arrivals: {kind: constant, rate: 1}, duration_s: 1, warmup: true}
  - {name: open, arrivals: {kind: poisson, rate: 5}, duration_s: 30, STAGE}
  - {name: closed, arrivals: {kind: closed}, concurrency: 4, requests: 9, CLOSED}
"""


def filled(target: str = "", stage: str = "", closed: str = "", more: str = "") -> str:
    return PLAN.replace("TARGET", target).replace("STAGE", stage).replace("CLOSED", closed) + more


def problems_of(text: str) -> list[str]:
    try:
        plan.parse(text, "/")
    except PlanError as error:
        return str(error).split("\n")
    return []


def test_the_plan_itself_is_fine() -> None:
    assert problems_of(filled()) == []


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("method: GET", "targets[0].method is 'GET'; leave it out, only the dialect http has it"),
        ("expect_status: 201", "targets[0].expect_status is 201; leave it out, only the dialect http has it"),
        (
            "timeouts: {first_byte_s: 50, total_s: 40}",
            "targets[0].timeouts.total_s is 40; it must be at least first_byte_s (50)",
        ),
        ("timeouts: {idle_s: 50, total_s: 40}", "targets[0].timeouts.total_s is 40; it must be at least idle_s (50)"),
        (
            "stream: false, continuous_usage: true",
            "targets[0].continuous_usage is true; leave it out, only a streamed answer has chunks",
        ),
        (
            "headers: {x-a: a, X-A: b}",
            "targets[0].headers.X-A is given twice, in different case; keep one of them",
        ),
    ],
)
def test_targets(target: str, problem: str) -> None:
    assert problems_of(filled(target=target)) == [problem]


def test_what_the_dialect_http_cannot_use() -> None:
    target = "tokenizer: gpt2, continuous_usage: true"
    text = filled(target=target).replace("dialect: openai-chat, tok", "dialect: http, tok")
    assert problems_of(text) == [
        "targets[0].continuous_usage is true; leave it out, only a streamed answer has chunks",
        "targets[0].tokenizer is 'gpt2'; leave it out, the dialect http does not look into answers",
    ]


def test_a_shared_prefix_is_a_part_of_its_prompt() -> None:
    def with_prefix(tokens: int) -> list[str]:
        return problems_of(
            filled().replace("input_tokens: 10", f"input_tokens: 10, cache: {{shared_prefix_tokens: {tokens}}}")
        )

    assert with_prefix(9) == []
    assert with_prefix(10) == [
        "prompts.cache.shared_prefix_tokens is 10; it must be below input_tokens (10), which it is a part of"
    ]


def test_a_short_total_alone_is_no_mistake() -> None:
    assert problems_of(filled(target="timeouts: {total_s: 3}")) == []


def test_a_cap_below_the_number_of_workers_would_starve_some() -> None:
    text = filled(target="max_in_flight: 3", more="fleet: {workers: 4}")
    assert problems_of(text) == ["targets[0].max_in_flight is 3; it must be at least fleet.workers (4), which share it"]
    assert problems_of(filled(target="max_in_flight: 4", more="fleet: {workers: 4}")) == []


def test_the_dialect_http_has_a_method_and_a_status() -> None:
    text = filled(target="method: GET, expect_status: 204").replace(
        "dialect: openai-chat, method", "dialect: http, method"
    )
    assert problems_of(text) == []


@pytest.mark.parametrize(
    ("url", "start"),
    [
        ("ftp://127.0.0.1/v1", "targets[0].url is 'ftp://127.0.0.1/v1'; it must be http:// or https://, a host"),
        ("127.0.0.1:8000", "targets[0].url is '127.0.0.1:8000'; it must be http:// or https://, a host"),
        ("http:///v1", "targets[0].url is 'http:///v1'; it must be http:// or https://, a host"),
        ("http://127.0.0.1:99999/v1", "targets[0].url is 'http://127.0.0.1:99999/v1', which cannot be read"),
        ("http://127.0.0.1/v1#top", "targets[0].url has a part after #, which is never sent; take it out"),
    ],
)
def test_urls(url: str, start: str) -> None:
    (problem,) = problems_of(filled().replace("http://127.0.0.1:1/v1", url))
    assert problem.startswith(start)


def test_an_unknown_dialect_is_answered_with_the_known_ones() -> None:
    (problem,) = problems_of(filled().replace("dialect: openai-chat}", "dialect: openai}"))
    assert problem.startswith("targets[1].dialect is 'openai'; it must be one of ")
    assert "openai-chat" in problem


def test_names_differ_by_more_than_case() -> None:
    text = filled().replace("name: slow", "name: Fast").replace("name: closed", "name: open")
    assert problems_of(text) == [
        "targets[1].name is 'Fast', as is that of targets[0]; give each a name of its own",
        "stages[2].name is 'open', as is that of stages[1]; give each a name of its own",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "duration_s: 30, STAGE",
            "",
            "stages[1].duration_s is missing, and so is requests; a stage ends by one of them or by both, whichever "
            "comes first",
        ),
        ("STAGE", "concurrency: 4", "stages[1].concurrency is 4; leave it out, only closed load has it"),
        (
            "STAGE",
            "rounds: 5, overlap: true",
            "stages[1].rounds is 5, with overlap: true; leave one of them out, a round is measured and drained",
        ),
        ("STAGE", "rounds: 1000", "stages have 1,002 rounds together; they must have at most 1,000"),
        ("STAGE", "ramp_up_s: 0", "stages[1].ramp_up_s is 0; leave it out, only closed load has it"),
        (
            "concurrency: 4, ",
            "",
            "stages[2].concurrency is missing; closed load needs the number of requests to keep in flight",
        ),
        ("CLOSED", "duration_s: 5, ramp_up_s: 5", "stages[2].ramp_up_s is 5; it must be below duration_s (5)"),
        (
            "{kind: poisson, rate: 5}, duration_s: 30",
            "{kind: ramp, from: 1, to: 2}, requests: 5",
            "stages[1].duration_s is missing; a ramp is the change of the rate over it",
        ),
        (
            "{kind: poisson, rate: 5}",
            "{kind: ramp, from: 0, to: 0}",
            "stages[1].arrivals.to is 0, as is from; one of them must be above 0",
        ),
    ],
)
def test_stages(old: str, new: str, problem: str) -> None:
    text = PLAN.replace(old, new, 1)
    assert problems_of(text.replace("TARGET", "").replace("STAGE", "").replace("CLOSED", "")) == [problem]


def test_a_plan_of_warm_up_alone_would_have_no_result() -> None:
    text = filled(stage="warmup: true", closed="warmup: true")
    assert problems_of(text) == ["stages are warm-up only, which no result is taken from; add one without warmup: true"]


@pytest.mark.parametrize(
    ("slo", "problem"),
    [
        ("metric: tft_ms, stat: p99, limit: 5", "slos[0].metric is 'tft_ms'; did you mean ttft_ms?"),
        (
            "metric: ttft_ms, limit: 5",
            "slos[0].stat is missing; ttft_ms has a value for each request: write p50, p99, p99.9 or mean",
        ),
        ("metric: error_rate, stat: p99, limit: 0", "slos[0].stat is 'p99'; leave it out, error_rate is one number"),
        (
            "metric: error_rate, limit: 5",
            "slos[0].limit is 5; error_rate is a share, so it must be at most 1: 1% is 0.01",
        ),
        ("metric: ttft_ms, stat: p99, limit: -5", "slos[0].limit is -5; it must be at least 0"),
        ("metric: e2e_ms, stat: p99, limit: 5, target: fst", "slos[0].target is 'fst'; did you mean fast?"),
        (
            "metric: e2e_ms, stat: p99, limit: 5, stage: x",
            "slos[0].stage is 'x'; it must be one of warm-up, open, closed",
        ),
        (
            "metric: e2e_ms, stat: p99, limit: 5, stage: warm-up",
            "slos[0].stage is 'warm-up', a warm-up stage, which no result is taken from; name another one",
        ),
        (
            "metric: due_e2e_ms, stat: p99, limit: 5, stage: closed",
            "slos[0].metric is 'due_e2e_ms', which closed load does not have: nothing is due there; write e2e_ms",
        ),
        (
            "metric: icl_ms, stat: p99, limit: 5, rule: mlperf",
            "slos[0].rule is 'mlperf', which decides a percentile of one value a request; leave it out, or ask p99 of ttft_ms",
        ),
        (
            "metric: e2e_ms, stat: p99, limit: 5, rule: loadgen",
            "slos[0].rule is 'loadgen'; it must be one of interval, mlperf",
        ),
        (
            "metric: goodput, limit: 5",
            "slos[0].metric is 'goodput', but the plan does not say what is good; add goodput: {ttft_ms: 2000}",
        ),
    ],
)
def test_slos(slo: str, problem: str) -> None:
    assert problems_of(filled(more=f"slos: [{{{slo}}}]")) == [problem]


def test_a_stat_that_is_none_is_refused() -> None:
    (problem,) = problems_of(filled(more="slos: [{metric: ttft_ms, stat: p200, limit: 5}]"))
    assert problem.startswith("slos[0].stat is 'p200': ")
    number = problems_of(filled(more="slos: [{metric: ttft_ms, stat: 99, limit: 5}]"))
    assert number == ["slos[0].stat is 99; it must be p50, p90, p95, p99, p99.9 or mean"], "one round is enough"


def test_an_slo_asked_twice_is_refused() -> None:
    one = "{metric: e2e_ms, stat: p99, limit: 5}"
    assert problems_of(filled(more=f"slos: [{one}, {one.replace('5', '9')}]")) == [
        "slos[1] asks the same as slos[0]; keep one of them"
    ]
    assert problems_of(filled(more=f"slos: [{one}, {one.replace('p99', 'p50')}]")) == []


def test_a_due_metric_is_fine_where_one_of_the_stages_is_open() -> None:
    assert problems_of(filled(more="slos: [{metric: due_e2e_ms, stat: p99, limit: 5}]")) == []


def test_a_metric_of_streams_needs_a_target_that_streams() -> None:
    slo = "slos: [{metric: ttft_ms, stat: p99, limit: 5, target: fast}]"
    (problem,) = problems_of(filled(target="stream: false", more=slo))
    assert problem == (
        "slos[0].metric is 'ttft_ms', which only a streamed answer has; write e2e_ms, or stream: true for a target"
    )
    assert problems_of(filled(target="stream: false", more=slo.replace("fast", "slow"))) == []


@pytest.mark.parametrize(
    ("goodput", "problem"),
    [
        ("{tft_ms: 5}", "goodput.tft_ms is no figure of a single request; did you mean ttft_ms?"),
        ("{e2e_ms: 0}", "goodput.e2e_ms is 0; it must be above 0"),
    ],
)
def test_goodput(goodput: str, problem: str) -> None:
    assert problems_of(filled(more=f"goodput: {goodput}")) == [problem]
    (problem,) = problems_of(filled(more="goodput: {error_rate: 1}"))
    assert problem.startswith("goodput.error_rate is no figure of a single request; it must be one of ttft_ms, ")


@pytest.mark.parametrize(
    ("validity", "problem"),
    [
        ("{shedule_lag: 5}", "validity.shedule_lag is no rule; did you mean schedule_lag?"),
        ("{schedule_lag: -1}", "validity.schedule_lag is -1; it must be at least 0"),
        ("{faults: 5}", "validity.faults is 5; it is a share, so it must be at most 1: 1% is 0.01"),
    ],
)
def test_validity(validity: str, problem: str) -> None:
    assert problems_of(filled(more=f"validity: {validity}")) == [problem]
    (unknown,) = problems_of(filled(more="validity: {x: 1}"))
    assert unknown.startswith("validity.x is no rule; it must be one of refused, worker_lost, ")
    assert plan.parse(filled(more="validity: {schedule_lag: 100}"), "/").validity == {"schedule_lag": 100}


SOURCE = 'name: n, url: "http://h:9400/metrics", targets: {fast: ["0"]}'


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (SOURCE.replace("http:", "ftp:"), "url must be http:// or https://, a host, and the path of its metrics"),
        (SOURCE.replace("http://h:9400/metrics", "http://[h"), "url must be http:// or https://"),
        (SOURCE.replace("h:9400", "me:secret@h"), "url holds a user name or a password; take it out and set key"),
        (SOURCE.replace("/metrics", "/metrics?token=x"), "url holds a secret in its parameter token"),
        (SOURCE.replace("fast", "fats"), "targets is 'fats'; did you mean fast?"),
        (SOURCE.replace('["0"]', "[]"), 'targets.fast has no device; write ["*"] for all of this source'),
        (f"{SOURCE}, kind: nvml", "url is given; leave it out, nvml reads the GPUs of the machine that drives the run"),
        (f"{SOURCE}, metrics: {{q: Queue Length}}", "metrics.q is 'Queue Length'; it must be a name such as engine."),
    ],
)
def test_a_gpu_source_that_cannot_be(source: str, problem: str) -> None:
    found = problems_of(filled(more=f"gpu: {{sources: [{{{source}}}]}}"))
    assert [line.startswith(f"gpu.sources[0].{problem}") for line in found] == [True], found
    assert "secret" not in "".join(found).replace("a secret", "")


def test_gpu_sources_that_can_be() -> None:
    assert problems_of(filled(more=f"gpu: {{sources: [{{{SOURCE}}}, {{name: here, kind: nvml}}], every_s: 0.5}}")) == []
    twice = problems_of(filled(more=f"gpu: {{sources: [{{{SOURCE}}}, {{{SOURCE}}}]}}"))
    assert twice == ["gpu.sources[1].name is 'n', as is that of gpu.sources[0]; give each a name of its own"]
    number = problems_of(filled(more='gpu: {sources: [{name: n, url: "http://h", targets: {fast: [0]}}]}'))
    assert number == ["gpu.sources[0].targets.fast[0] is 0; it must be text: put it in quotes"]


def test_an_objective_of_gpus_needs_gpus() -> None:
    slo = "slos: [{metric: gpu_utilization, stat: p50, limit: 50}]"
    assert problems_of(filled(more=slo)) == [
        "slos[0].metric is 'gpu_utilization', but no source of gpu: names its target; add one, with targets"
    ]
    assert problems_of(filled(more=f"{slo}\ngpu: {{sources: [{{{SOURCE}}}]}}")) == []


def test_keys_of_sources_are_theirs_alone(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("of-the-exporter\n")
    read = plan.parse(filled(more=f"gpu: {{sources: [{{{SOURCE}, key: file:key}}]}}"), tmp_path)
    assert plan.resolve_gpu_keys(read) == {"n": "of-the-exporter"}
    assert plan.resolve_keys(read) == {}  # which go to the workers
    (tmp_path / "key").unlink()
    with pytest.raises(PlanError, match=r"gpu source n has no usable key: the file .*key is empty or not there"):
        plan.resolve_gpu_keys(read)


def test_regions_of_one_address_are_told_apart_by_labels() -> None:
    def problems(*regions: str) -> list[str]:
        named = (f"{{name: r{i}, address: '{region}}}" for i, region in enumerate(regions))
        return problems_of(filled(more=f"fleet: {{workers: 3, regions: [{', '.join(named)}]}}"))

    assert problems("a:1', labels: {at: eu}", "b:1'", "a:1', labels: {at: us}") == []
    assert problems("a:1', labels: {at: eu}", "b:1'", "a:1', token_file: t") == [
        "fleet.regions[2].labels is empty, but regions[0] has the address 'a:1' too; name the labels that its nodes alone "
        "have, as in {ray.io/region: eu-west-1}"
    ]
    assert len(problems("a:1'", "a:1'")) == 2


def test_a_region_is_a_cluster_or_a_part_of_one() -> None:
    def problems(region: str) -> list[str]:
        return problems_of(filled(more=f"fleet: {{regions: [{{name: eu, {region}}}]}}"))

    for good in (
        "labels: {where: eu}",
        "address: 'head.eu.example:6379'",
        "address: '[2001:db8::1]:6379', token_file: t",
    ):
        assert problems(good) == []
    [empty] = problems("labels: {}")
    assert empty.startswith("fleet.regions[0].labels is empty; name the labels of its nodes")
    for bad in ("head.eu.example", "ray://head:10001", "http://head:6379"):
        assert problems(f"address: '{bad}'") == [
            f"fleet.regions[0].address is '{bad}'; write host:port of the head, as in head.eu.example:6379"
        ]
    [alone] = problems("labels: {where: eu}, token_file: t")
    assert alone.startswith("fleet.regions[0].token_file is given, but no address")
