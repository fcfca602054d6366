"""The report: what it says, that it holds together as HTML, and that nothing in it can become markup."""

import json
import math
import re
from html.parser import HTMLParser

import msgspec
import pytest

from loadtest.report import html
from loadtest.report.figures import Axis, Line, Spec, XAxis, figure, spans_decades
from loadtest.report.gather import Buckets, carried, points_for, shares_for, step_for
from loadtest.report.headline import headline, limit, reasons
from loadtest.report.model import (
    AfterRetries,
    Integrity,
    Report,
    SloRow,
    Spread,
    Stat,
    TargetSeries,
    Validity,
    summary_of,
)
from loadtest.report.sections.account import account
from loadtest.report.sections.charts import nines
from loadtest.report.sections.errors import errors
from loadtest.report.sections.objectives import interval, picture
from loadtest.report.sections.targets import targets
from loadtest.report.summary import NoSuchRun
from loadtest.store import Store
from loadtest.validity import Judged
from tests import sample_run
from tests.sample_report import report

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;</title></style>"


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, no id twice; keeps what the tests ask for."""

    VOID = frozenset({"meta", "br", "hr", "col", "link", "img", "input"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self._attributes(tag, attrs)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._attributes(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.words.append(data)

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                assert value not in self.ids, f"id {value} twice"
                self.ids.append(value or "")
            if name in ("href", "src", "action", "srcset", "xlink:href"):
                self.links.append((tag, name, value or ""))
            if name.startswith("on") or name == "style":
                self.handlers.append(f"{tag} {name}")
            if name == "content" and value and "default-src" in value:
                self.policy = value

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def stored(store: Store) -> Report:
    sample_run.insert(store)
    return html.load(store, sample_run.RUN)


# The sentence


def slo(target: str, outcome: str, **more: object) -> SloRow:
    row = {"metric": "ttft_ms", "stat": "p99", "limit": 2000, "target": target, "stage": "peak", "outcome": outcome}
    return msgspec.convert(row | more, SloRow)


@pytest.mark.parametrize(
    ("oks", "slos", "sentence"),
    [
        ({"a": 0}, [], "None of 8,400 requests to a succeeded; no objective was set."),
        ({"a": 0, "b": 9}, [], "16,800 requests measured at 2 targets. None of 8,400 requests to a succeeded; no objective"
         " was set."),
        ({"a": 0, "b": 0}, [], "No request to a and b succeeded; no objective was set."),
        ({"a": 0}, [slo("a", "undecided")], "None of 8,400 requests to a succeeded. a left its objective undecided."),
    ],
)  # fmt: skip
def test_where_nothing_succeeded_the_sentence_says_so(oks: dict[str, int], slos: list[SloRow], sentence: str) -> None:
    summary = report().summary
    summary.targets = {name: msgspec.structs.replace(summary.targets["acme"], ok=ok) for name, ok in oks.items()}
    summary.slos = slos
    assert headline(summary).sentence == sentence


@pytest.mark.parametrize(
    ("outcomes", "state", "sentence"),
    [
        ({"a": ["met"]}, "met", "a met its objective."),
        ({"a": ["met", "met"]}, "met", "a met both objectives."),
        ({"a": ["met"], "b": ["met"]}, "met", "Both targets met every objective."),
        ({"a": ["met"], "b": ["met"], "c": ["met"]}, "met", "All 3 targets met every objective."),
        ({"a": ["met"], "b": ["breached"]}, "breached", "a met its objective; b breached its objective."),
        ({"a": ["breached", "met", "undecided"]}, "breached", "a breached 1 of 3 objectives and left 1 undecided."),
        ({"a": ["undecided", "met"]}, "undecided", "a left 1 of 2 objectives undecided."),
        ({"a": ["undecided", "undecided"]}, "undecided", "a left both objectives undecided."),
        (
            {"a": ["met"], "b": ["breached"], "c": ["undecided"], "d": ["met"]},
            "breached",
            "Of 4 targets 2 met every objective, 1 breached an objective and 1 left an objective undecided.",
        ),
    ],
)
def test_the_verdict_is_a_sentence(outcomes: dict[str, list[str]], state: str, sentence: str) -> None:
    summary = report().summary
    summary.targets = dict.fromkeys(outcomes, summary.targets["acme"])
    summary.slos = [slo(name, outcome) for name, each in outcomes.items() for outcome in each]
    assert (headline(summary).state, headline(summary).sentence) == (state, sentence)


def test_an_objective_of_a_name_that_no_request_had_is_told() -> None:
    summary = report().summary
    summary.slos = [slo("acme", "met"), slo("GET /misspelt", "undecided")]
    assert headline(summary).state == "undecided"
    assert headline(summary).sentence == "acme met its objective. No request had the name GET /misspelt."
    summary.slos = [slo("GET /misspelt", "undecided")]
    assert headline(summary).sentence == "No request had the name GET /misspelt."


def test_invalid_comes_before_any_verdict() -> None:
    made = report(valid=False)
    page = Page(html.render(made))
    assert headline(made.summary).state == "invalid"
    assert "INVALID: this run cannot judge its targets." in page.text
    assert "1 worker process was lost or had to be restarted." in page.text
    assert "Look into the worker's log beside the frame file; give the workers more memory" in page.text
    assert "met, but the run is INVALID" in page.text


def test_without_objectives_nothing_is_judged() -> None:
    made = report()
    made.summary.slos = []
    assert headline(made.summary).sentence == "16,800 requests measured at 2 targets; no objective was set."
    assert "The plan sets no objective" in Page(html.render(made)).text


def test_reasons_are_split_into_finding_and_remedy() -> None:
    found = reasons(Validity(False, ["unknown: of 3 request(s) it is unknown; repeat the run; twice"]))
    assert found == [("of 3 requests it is unknown", "repeat the run; twice")]


# Sections


def test_every_validity_rule_is_shown_with_its_limit_and_whose_it_is() -> None:
    page = html.render(report(valid=False))
    assert "what was measured and its limit. The plan set those of schedule_lag" in page
    table = page[page.index("Whether the run counts") :].partition("</details>")[0]
    assert [
        words for words in ("1 worker<", "0.93 ms", "100 ms", "set by the plan, not 25 ms") if words not in table
    ] == []
    assert (table.count("broken</span>"), table.count("kept</span>")) == (1, 1)
    assert "The plan set its own limits for this: schedule_lag." in html.render(report())


def test_targets_are_compared_over_rounds_and_it_is_said_why_not() -> None:
    """Differences of -690 + 2 i ms, i from 0 to 9: -681 on average, and the error rates by 1% this way or that."""
    section = (
        Page(html.render(report())).text.partition("Do the targets differ?")[2].partition("Were the objectives")[0]
    )
    for words in ("acme less globex", "−681 ms", "acme is better", "no difference shown", "in 1 of 2 comparisons"):
        assert words in section, words
    assert "The stage had one round." in section


def test_an_account_that_does_not_add_up_is_said() -> None:
    made = report()
    made.summary.integrity = Integrity(scheduled=10, sent=8, missed=1, stored=8)
    assert "does not add up" in account(made)
    made.summary.integrity = Integrity(scheduled=10, sent=8, missed=2, stored=8, missed_by={"cap": 2})
    assert "2 missed above a target's max_in_flight." in account(made)


def test_an_objective_shows_limit_interval_and_further_requests() -> None:
    row = slo("a", "undecided", value=1950.0, low=1810.0, high=2120.0, more_requests=4210)
    made = report()
    made.summary.slos = [msgspec.structs.replace(row, target="acme")]
    words = Page(html.render(made)).text
    assert limit(row) == "≤ 2,000 ms"
    assert interval(row) == "1,810 to 2,120 ms"
    assert "about 4,210 more requests would decide" in words
    assert interval(slo("a", "met", metric="error_rate", stat=None, low=0.0, high=0.0031)) == "0% to 0.310%"
    assert interval(slo("a", "breached", low=3120.0, high=math.inf)) == "3,120 ms to ∞"
    assert interval(slo("a", "met", low=5.0)) == "from 5.00 ms"
    assert interval(slo("a", "met", high=5.0)) == "up to 5.00 ms"
    assert interval(slo("a", "undecided")) == "–"
    assert limit(slo("a", "met", metric="success_rate", stat=None, limit=0.999)) == "≥ 99.9%"


def test_the_picture_of_an_infinite_value_stays_inside() -> None:
    drawn = picture(slo("a", "breached", value=math.inf, low=3120.0, high=math.inf))
    assert drawn is not None
    assert "inf" not in re.sub(r'aria-label="[^"]*"', "", drawn)
    assert picture(slo("a", "undecided", value=None)) is None


def test_failures_count_as_infinity_beside_the_successes() -> None:
    words = Page(targets(report())).text
    assert "with failures" in words
    assert re.search(r"Time to first token p50 .* p99 .* ∞", words)
    clean = report()
    for target in clean.summary.targets.values():
        for stage in target.stages.values():
            stage.ok = stage.requests
            stage.errors = {}
        target.ok = target.requests
    assert "with failures" not in Page(targets(clean)).text


def test_more_targets_than_fit_beside_each_other_are_rows() -> None:
    made = report()
    three = dict.fromkeys("abc", made.summary.targets["acme"])
    made.summary.targets = {**three, "globex": made.summary.targets["globex"]}
    page = targets(made)
    assert "by-target" in page
    assert "compare" not in page
    words = Page(page).text
    assert "a 1,200 0% 0 of 1,200, 0% to 0.307% 252 ms 448 ms 569 ms" in words
    assert "globex 1,200 12.0% 144 of 1,200, 10.2% to 14.0% 546 ms 600 ms 1,350 ms ∞" in words
    made.summary.targets = three
    assert "by-target" not in targets(made)


def test_one_figure_stands_under_neither_heading() -> None:
    assert '<td colspan="2" class="whole">1,200</td>' in targets(report())


def test_interrupted_requests_are_no_failures_to_compare() -> None:
    made = report()
    for target in made.summary.targets.values():
        target.ok = target.requests - 3
        for stage in target.stages.values():
            stage.ok, stage.errors = stage.requests - 1, {"cancelled": 1}
    assert "with failures" not in Page(targets(made)).text


def test_a_figure_below_what_its_stamps_are_exact_to_says_so() -> None:
    made = report()
    made.summary.targets["acme"].stages["calm"].uncertainty_p99_ms = 30.0
    words = Page(html.render(made)).text
    assert "28.0 ms stamps exact to 30.0 ms in 99% of the requests" in words
    assert words.count("stamps exact to") == 1
    assert "1% of the requests have a stamp that is exact to 30.0 ms only." in words


def test_how_exact_a_valid_runs_stamps_are_is_said_beside_the_limit() -> None:
    made = report()
    assert "in 99% of the requests no stamp may be off by more than 0.210 ms." in Page(html.render(made)).text
    made.summary.generator.uncertainty_ms = Spread(p99=53.6, max=80.0, over_1_ms=0.021)
    made.summary.validity.rules = [Judged(rule="uncertainty", value=60.0, limit=100, default=100)]
    assert (
        "in 2.10% of the requests one read found several chunks, the first of which may have come more than 1 ms before its "
        "stamp; in 1% of the requests 53.6 ms before or more (more than 100 ms would make the run INVALID)."
    ) in Page(html.render(made)).text


def test_the_account_explains_the_warm_up() -> None:
    made = report()
    assert "warm-up" not in account(made)
    made.summary.integrity = Integrity(scheduled=16_824, sent=16_824, stored=16_824)
    assert "24 of the stored are warm-up: kept, and left out of the figures." in account(made)


def test_tokens_that_nobody_counted_are_told() -> None:
    made = report()
    made.summary.targets["acme"].stages["calm"].unknown_tokens = 12
    assert "without 12 answers whose tokens are not known" in Page(targets(made)).text


def test_cost_is_shown_with_its_parts() -> None:
    """1,200 requests of 551 input tokens at 0.60 USD and 148 output tokens at 0.80 USD a million."""
    words = Page(targets(report())).text
    assert "Cost 0.539 USD input 0.397 USD, output 0.142 USD" in words
    assert "per 1,000 successes 0.449 USD" in words


def test_cached_tokens_retries_and_the_way_are_shown_where_there_are_any() -> None:
    plain = Page(html.render(report())).text
    assert not any(words in plain for words in ("of it cached", "After retries", "Connections to"))
    made = report()
    calm = made.summary.targets["acme"].stages["calm"]
    calm.cached_tokens, calm.reconnects, calm.proxies = 66_120, 2, ["10.0.0.1:3128"]
    calm.after_retries = AfterRetries(retried=7, success_rate=0.995, due_e2e_ms=Stat(p50=4100, p99=9000, n=1194))
    words = Page(html.render(made)).text
    assert "of it cached 66,120 10.0% of the input –" in words
    assert "After retries further attempts 7 none" in words
    assert "succeeded in the end 99.5% none" in words
    assert "from due to the end, p99 9,000 ms none" in words
    assert "through the proxy 10.0.0.1:3128; 2 requests sent again on a fresh connection" in words


def test_a_target_without_a_success_says_so() -> None:
    made = report()
    for name, stage in made.summary.targets["globex"].stages.items():
        stage.ok, stage.errors, stage.error_rate = 0, {"connect": stage.requests}, 1.0
        stage.ttft_ms = stage.itl_ms = stage.e2e_ms = Stat(with_failures=Stat())
        charts = next(c for c in made.stages if c.stage == name)
        nothing: dict[str, list[float | None]] = {p: [None] * 120 for p in ("p50", "p95", "p99")}
        charts.series[1].ttft_ms = charts.series[1].itl_ms = nothing
    words = Page(html.render(made)).text
    assert "no success" in words
    assert "None of 4,800 requests to globex succeeded, so there is no latency to show: see the errors." in words


def test_a_run_that_was_stopped_before_its_first_request_has_no_verdict() -> None:
    made = report()
    made.summary.interrupted = True
    for target in made.summary.targets.values():
        target.requests = target.ok = 0
    assert headline(made.summary).state == "undecided"
    page = Page(html.render(made))
    assert "Interrupted before its end. Nothing was measured: no request was sent in a measured stage." in page.text
    assert "Here is what was measured" not in page.text
    assert "the load generator did not limit the run" not in page.text


def test_a_run_of_nothing_renders() -> None:
    made = report()
    made.summary.targets, made.summary.slos, made.stages, made.errors, made.plan = {}, [], [], [], None
    words = Page(html.render(made)).text
    assert "No measured stage was reached" in words
    assert "there is nothing to draw" in words
    assert "No request was stored." in words


def test_errors_name_their_fault_and_an_example() -> None:
    words = Page(errors(report())).text
    assert "rate_limited answered 429: too many requests the endpoint's globex peak 96 429 Too Many Requests" in words
    assert "connection reset by peer after 18 chunks" in words


# Charts


def chart(values: list[float | None]) -> Spec:
    x = XAxis(label="time", unit="s", values=[0.0, 1.0, 2.0])
    return Spec(kind="line", x=x, y=Axis(label="ms", unit="ms"), series=[Line(label="p99", color="t0", values=values)])


def test_a_chart_has_its_question_its_figures_and_its_data() -> None:
    page = Page(figure("f", "How long?", "p99 3 ms.", chart([1.23456, None, math.inf])))
    assert page.text.startswith("How long? p99 3 ms. Vertical: ms. Horizontal: time.")
    assert "time p99 0 1.23 1 – 2 ∞" in page.text
    [spec] = [json.loads(script) for script in page.scripts]
    assert spec["series"][0]["values"] == [1.235, None, None]


def test_axes_are_logarithmic_only_over_decades() -> None:
    assert spans_decades([[10.0, None], [500.0]])
    assert not spans_decades([[10.0, 499.0]])
    assert not spans_decades([[None]])
    assert (nines(0.9), round(nines(0.999), 9)) == (1, 3)


def test_buckets_fit_the_page() -> None:
    assert [step_for(span_s, 150) for span_s in (5, 120, 151, 600, 86_400)] == [1, 1, 2, 5, 600]
    assert points_for(1, 2) == 150
    assert points_for(6, 4) == 35
    assert points_for(40, 10) == 20


def test_values_are_placed_in_their_buckets() -> None:
    buckets = Buckets(start_ns=10, step_s=1, n=4)
    rows = [{"t_ns": 10, "v": 5.0}, {"t_ns": 2_000_000_010, "v": 7.0}, {"t_ns": 9_000_000_000, "v": 9.0}]
    assert buckets.place(rows, "v") == [5.0, None, 7.0, None]
    assert buckets.place(rows, "v", empty=0) == [5.0, 0, 7.0, 0]


def test_requests_in_flight_are_carried_over_quiet_buckets() -> None:
    buckets = Buckets(start_ns=0, step_s=1, n=4)
    rows = [{"t_ns": 0, "most": 3, "last": 2}, {"t_ns": 2_000_000_000, "most": 1, "last": 0}]
    assert carried(buckets, rows) == [3, 2, 2, 0]


def test_percentile_curves_go_as_far_as_the_sample() -> None:
    shares = shares_for(1000)
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0, 0.999)
    assert shares_for(0)[-1] == 0.9


# From the store


def test_series_of_a_stored_run(stored: Report) -> None:
    """10 requests/s for 20 s to each; globex refuses each fourth at once. Warm-up is left out."""
    [stage] = stored.stages
    acme, globex = stage.series
    assert (stage.stage, stage.bucket_s, len(stage.offsets_s)) == ("steady", 1, 21)
    assert acme.offered_per_s == globex.offered_per_s == [10.0] * 20 + [None]
    assert sum(v or 0 for v in acme.achieved_per_s) == 200
    assert sum(v or 0 for v in globex.achieved_per_s) == 150
    assert globex.errors == {"rate_limited": [2, 3] * 10 + [0]}
    assert acme.errors == {}


def test_latencies_of_a_stored_run(stored: Report) -> None:
    [stage] = stored.stages
    first_second = sorted(sample_run.ttft_ms("acme", seq) for seq in range(10))
    assert stage.series[0].ttft_ms["p50"][0] == first_second[5]
    assert stage.series[0].ttft_ms["p99"][0] == first_second[9]
    assert stage.series[0].ttft_ms["p50"][20] is None
    assert set(stage.series[0].itl_ms["p99"]) == {20, None}


def test_requests_in_flight_of_a_stored_run(stored: Report) -> None:
    """In the first second: acme's answers take 281 to 480 ms at a request each 100 ms."""
    spans = [(i * 100, i * 100 + sample_run.ttft_ms("acme", i) + 180) for i in range(30)]
    most = max(sum(a <= t < b for a, b in spans) for t in (a for a, _ in spans if a < 1000))
    [stage] = stored.stages
    assert stage.series[0].in_flight[0] == most


def test_curves_of_a_stored_run(stored: Report) -> None:
    """acme: 101 ... 300 ms, each once. globex: a quarter failed, so its last success stands at share 0.745."""
    [stage] = stored.stages
    acme, globex = stage.ttft
    at = stage.shares.index(0.45)
    assert (acme.value_ms[0], acme.value_ms[at]) == (101, 191)
    assert acme.value_ms == acme.with_failures_ms
    good = sorted(sample_run.ttft_ms("globex", seq) for seq in range(200) if seq % 4 != 3)
    assert globex.value_ms[at] == good[67]
    assert globex.with_failures_ms[at] == good[90]
    assert [v is None for v in globex.with_failures_ms] == [share >= 0.75 for share in stage.shares]


def test_errors_workers_and_environment_of_a_stored_run(stored: Report) -> None:
    [row] = stored.errors
    assert (row.target, row.error, row.fault, row.requests) == ("globex", "rate_limited", "endpoint", 50)
    assert row.detail.startswith("429 Too Many Requests")
    assert [(w.worker, w.cpu_s, w.peak_rss_bytes) for w in stored.workers] == [(0, 1.5, 100 * 2**20)]
    assert stored.environment["loadtest"]


def test_a_run_that_is_not_there(store: Store) -> None:
    with pytest.raises(NoSuchRun, match="nowhere"):
        html.load(store, "nowhere")


def test_the_stored_page_speaks(stored: Report) -> None:
    words = Page(html.render(stored)).text
    assert "acme met both objectives; globex breached 1 of 2 objectives" in words
    assert "420 scheduled = 420 sent + 0 missed + 0 unknown" in words
    assert "Completed requests per second: acme 9.85 and globex 7.30; 10.0 were offered to each." in words
    assert "50 requests of 200 failed." in words
    assert "2026-11-03 14:02:09 to 14:02:32 UTC" in words


def test_infinities_come_back_from_json() -> None:
    plain = {
        "run": "r", "plan": "p", "nonce": "", "started_at": "", "ended_at": "", "integrity": {},
        "validity": {"valid": True}, "slos": [], "generator": {},
        "targets": {"a": {"stages": {"s": {"ttft_ms": {"p50": 1, "p99": None, "infinite": ["p99"]}}}}},
    }  # fmt: skip
    stat = summary_of(plain).targets["a"].stages["s"].ttft_ms
    assert (stat.p50, stat.p95, stat.p99) == (1, None, math.inf)


# The page as a whole


def test_the_page_is_well_formed_and_needs_no_network() -> None:
    source = html.render(report())
    page = Page(source)
    assert len(source.encode()) < 1_000_000
    assert {value for _, _, value in page.links if not value.startswith("#")} == set()
    assert all(value[1:] in page.ids for _, _, value in page.links)
    assert page.handlers == []
    assert not re.search(r"@import|url\(", source)
    assert "'unsafe-inline'" not in page.policy
    assert page.policy.startswith("default-src 'none';")


def test_nothing_hostile_becomes_markup() -> None:
    plain, hostile = Page(html.render(report())), html.render(report(HOSTILE, HOSTILE + "2"))
    page = Page(hostile)
    assert page.tags == plain.tags
    assert page.handlers == []
    assert HOSTILE in page.text
    assert [script.count("<script") for script in page.scripts[:-1]] == [0] * (len(page.scripts) - 1)


@pytest.mark.parametrize(("stages", "targets"), [(24, 1), (3, 8), (1, 24)])
def test_the_largest_page_stays_small(stages: int, targets: int) -> None:
    made = report()
    made.summary.targets = {f"target-{k}": made.summary.targets["globex"] for k in range(targets)}
    for each in made.summary.targets.values():
        each.stages = {f"stage-{i}": each.stages["calm"] for i in range(stages)} | {"calm": each.stages["calm"]}
    n = points_for(stages, targets)
    charts = made.stages[0]
    charts.offsets_s = [float(t) for t in range(n)]
    charts.series = [busy_series(charts.series[1], f"target-{k}", n) for k in range(targets)]
    charts.ttft = [msgspec.structs.replace(charts.ttft[1], target=s.target) for s in charts.series]
    charts.e2e = charts.ttft
    made.stages = [msgspec.structs.replace(charts, stage=f"stage-{i}") for i in range(stages)]
    size = len(html.render(made).encode())
    assert 400_000 < size < 1_000_000


def busy_series(like: TargetSeries, target: str, n: int) -> TargetSeries:
    values: list[float | None] = [1234.5] * n
    return msgspec.structs.replace(
        like,
        target=target,
        offered_per_s=values,
        achieved_per_s=values,
        in_flight=values,
        ttft_ms=dict.fromkeys(("p50", "p95", "p99"), values),
        itl_ms=dict.fromkeys(("p50", "p95", "p99"), values),
        errors={word: [123] * n for word in ("rate_limited", "reset", "empty", "timeout_idle")},
    )
