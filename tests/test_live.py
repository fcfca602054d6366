"""The terminal: what a Watch makes of snapshots, and what is read from it at a glance."""

import io
import math
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from rich.text import Text

from loadtest import closing, columns, listings, live
from loadtest.frames import StageCount, TargetCount
from loadtest.history import Counted as Measured
from loadtest.history import Listed
from loadtest.host import Sample, Status
from loadtest.metrics import METRICS
from loadtest.progress import Progress, TargetProgress, Watch, percentile
from loadtest.report.model import AfterRetries, Generator, Integrity, SloRow, Stat, Summary, TargetFigures
from loadtest.report.words import elided, told_apart
from loadtest.run import Snapshot, StageTimes
from loadtest.types import Plan
from tests import sample_run
from tests.sample_report import report

SECOND_NS = 1_000_000_000
START_NS = sample_run.START_NS
PLAN = msgspec.yaml.decode(sample_run.PLAN_YAML, type=Plan)
STEADY = 1  # the index of the stage


def snapshot(at_s: float, acme: TargetCount, samples: list[Sample] | None = None, stage: int = STEADY) -> Snapshot:
    """One host; globex does nothing."""
    counts = StageCount(stage, START_NS, [acme, TargetCount()])
    now_ns = START_NS + round(at_s * SECOND_NS)
    host = Status(worker=0, state="ready", stages=[counts], samples=samples or [], now_ns=now_ns)
    times = [StageTimes(stage, START_NS)]
    return Snapshot(PLAN, "r", START_NS, now_ns, stage, times, [host], phase="running")


def sample(at_s: float, ttft_ms: float, error: str | None = None, tokens: int = 10) -> Sample:
    done_ns = START_NS + round(at_s * SECOND_NS)
    return Sample(
        "acme", "steady", done_ns, None if error else ttft_ms, 2 * ttft_ms, 0.5, 0 if error else tokens, error
    )


def shown(progress: Progress, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(live.render(progress, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_round_is_told_with_its_number() -> None:
    stages = [msgspec.structs.replace(PLAN.stages[STEADY], rounds=3)] * 3
    plan = msgspec.structs.replace(PLAN, stages=[*PLAN.stages[:STEADY], *stages])
    seen = msgspec.structs.replace(snapshot(1, TargetCount(), stage=STEADY + 1), plan=plan)
    progress = Watch().take(seen)
    assert (progress.stage, progress.stage_index, progress.stage_count) == ("steady, round 2 of 3", STEADY, STEADY + 1)


def running(**more: object) -> Progress:
    target = TargetProgress(name="acme", offered_per_s=20, achieved_per_s=19.8, in_flight=34, oldest_age_s=2.1)
    fields = {"run": "r", "plan": "p", "phase": "running", "targets": [target], "stage": "peak", "stage_index": 1}
    return msgspec.structs.replace(
        Progress(**(fields | {"stage_count": 3, "elapsed_s": 34.0, "planned_s": 120.0})), **more
    )


# Watch


def test_rates_and_percentiles_are_of_the_last_ten_seconds() -> None:
    """100 answers in 10 s of 1 to 100 ms; 50 older ones are forgotten."""
    watch = Watch()
    watch.take(snapshot(10, TargetCount(scheduled=60), [sample(5, 999) for _ in range(50)]))
    new = [sample(11 + i / 20, i + 1) for i in range(100)]
    watch.take(snapshot(16, TargetCount(scheduled=120), new))
    progress = watch.take(snapshot(20, TargetCount(scheduled=160, done=150)))
    acme = progress.targets[0]
    assert acme.achieved_per_s == 10
    assert acme.offered_per_s == 10
    assert acme.output_tokens_per_s == 100
    assert (acme.ttft_p50_ms, acme.ttft_p99_ms) == (51, 100)
    assert (acme.e2e_p50_ms, acme.e2e_p99_ms) == (102, 200)
    assert progress.schedule_lag_p99_ms == 0.5
    assert (progress.elapsed_s, progress.planned_s, progress.stage) == (20, 20, "steady")


def test_errors_are_counted_by_word_over_the_stage_and_no_latency() -> None:
    watch = Watch()
    watch.take(snapshot(1, TargetCount(), [sample(0.5, 5, "reset"), sample(0.6, 5, "empty"), sample(0.7, 5, "empty")]))
    acme = watch.take(snapshot(40, TargetCount(missed_cap=2, missed_worker_lost=1, unknown=4))).targets[0]
    assert acme.errors == {"empty": 2, "reset": 1}
    assert list(acme.errors) == ["empty", "reset"]
    assert (acme.ttft_p50_ms, acme.achieved_per_s, acme.missed, acme.unknown) == (None, 0, 3, 4)


def test_a_snapshot_that_comes_twice_counts_once() -> None:
    """As that of a lost worker does, and the last one of a run."""
    watch = Watch()
    again = snapshot(1, TargetCount(), [sample(0.5, 5, "reset"), sample(0.6, 5)])
    watch.take(again)
    acme = watch.take(again).targets[0]
    assert (acme.errors, acme.achieved_per_s) == ({"reset": 1}, 1)


def test_a_new_stage_begins_empty() -> None:
    watch = Watch()
    watch.take(snapshot(1, TargetCount(), [sample(0.5, 5, "reset"), sample(0.6, 5)]))
    acme = watch.take(snapshot(2, TargetCount(), stage=0)).targets[0]
    assert (acme.errors, acme.ttft_p50_ms) == ({}, None)


def test_an_endpoint_that_hangs_is_told_before_any_request_ends() -> None:
    watch = Watch()
    hanging = TargetCount(scheduled=50, in_flight=50, oldest_ns=START_NS)
    early, late = (watch.take(snapshot(at_s, hanging)).targets for at_s in (2.9, 12.3))
    assert early[0].stalled_s is None
    assert late[0].stalled_s == pytest.approx(12.3)
    assert (late[0].in_flight, late[0].oldest_age_s) == (50, pytest.approx(12.3))
    assert late[1].stalled_s is None


def test_answers_that_take_their_time_are_no_stall() -> None:
    """Answers of 8 s, the last one 7 s ago, then 17 s ago."""
    watch = Watch()
    busy = TargetCount(in_flight=3, oldest_ns=START_NS + SECOND_NS)
    watch.take(snapshot(10, busy, [sample(10, 4000)]))
    assert watch.take(snapshot(17, busy)).targets[0].stalled_s is None
    assert watch.take(snapshot(27, busy)).targets[0].stalled_s == pytest.approx(17)


def test_counts_are_added_over_workers() -> None:
    made = snapshot(5, TargetCount(in_flight=3, oldest_ns=START_NS + 7, done=4))
    other = StageCount(STEADY, START_NS, [TargetCount(in_flight=2, oldest_ns=START_NS + 5, done=1), TargetCount()])
    made.hosts.append(Status(worker=1, state="restarting", stages=[other], problems=["worker 1 died of signal 9"]))
    made.lost_hosts = [2]
    progress = Watch().take(made)
    assert (progress.targets[0].in_flight, progress.targets[0].ended) == (5, 5)
    assert progress.targets[0].oldest_age_s == pytest.approx(5 - 5e-9)
    assert (progress.worker_states, progress.workers_lost) == (["ready", "restarting"], 1)
    assert progress.messages == [
        "worker 2 does not answer any more: it or its machine is lost",
        "worker 1 died of signal 9",
    ]


def test_percentile_is_the_element_at_the_floor() -> None:
    assert percentile([], 0.5) is None
    assert [percentile([3, 1, 2], share) for share in (0, 0.5, 0.99)] == [1, 2, 3]


# What is seen


def test_a_target_fits_into_80_columns() -> None:
    target = TargetProgress(
        name="a-provider-with-a-long-name",
        offered_per_s=12345,
        achieved_per_s=12345,
        output_tokens_per_s=1234567,
        in_flight=12345,
        oldest_age_s=1234,
        stalled_s=1234,
        ttft_p50_ms=12345,
        ttft_p99_ms=12345,
        e2e_p50_ms=123456,
        e2e_p99_ms=123456,
        errors={"timeout_first_byte": 12345, "rate_limited": 1234, "overloaded": 123, "reset": 12},
    )
    seen = shown(running(targets=[target, target], messages=["worker 1 died of signal 9; restarting"]))
    assert all(len(line) <= 80 for line in seen.splitlines())
    assert "! no answer for 1,234 s  timeout_first_byte 12,345" in seen


def test_a_glance_at_a_stage() -> None:
    seen = shown(running(worker_states=["ready", "ready"], schedule_lag_p99_ms=0.113))
    assert "Stage 2 of 3  peak  running  0:34 of 2:00" in seen
    assert "acme        19.8    20.0     34   2.1 s      –      –       –       –       0" in seen
    assert "no errors" in seen
    assert "workers: 2 ready · schedule lag p99 0.113 ms" in seen


def test_nothing_jumps_when_something_happens() -> None:
    calm = running()
    [target] = calm.targets
    trouble = msgspec.structs.replace(target, errors={"reset": 3}, stalled_s=9.0, missed=2)
    assert len(shown(calm).splitlines()) == len(shown(msgspec.structs.replace(calm, targets=[trouble])).splitlines())


def test_an_interrupt_says_what_the_next_one_does() -> None:
    seen = shown(running(interrupted=True))
    assert "stopping" in seen
    assert "Ctrl-C again: at once." in seen


def test_requests_instead_of_a_duration_and_before_the_first_stage() -> None:
    seen = shown(running(planned_s=None, planned_requests=500))
    assert "0:34  0 of 500" in seen
    assert "p  starting" in shown(running(stage=None, phase="starting"))


def test_more_room_goes_to_the_names() -> None:
    [target] = running().targets
    long = running(targets=[msgspec.structs.replace(target, name="a-provider-with-a-long-name")])
    assert "a-provider-with-a-long-name" not in shown(long, 80)
    assert "a-provider-with-a-long-name" in shown(long, 120)


def test_lines_for_a_log() -> None:
    [target] = running().targets
    busy = msgspec.structs.replace(
        target, ttft_p50_ms=85.3, e2e_p50_ms=912, e2e_p99_ms=1220, output_tokens_per_s=310, ended=5
    )
    [line] = live.lines(running(targets=[busy]))
    assert line == (
        "0:34 peak running acme: 20.0 requests/s due, 19.8 done; 34 in flight, oldest 2.1 s; "
        "TTFT p50 85.3 ms p99 –; E2E p50 912 ms p99 1,220 ms; 310 tokens/s; no errors"
    )
    [plain] = live.lines(running(targets=[busy], tokens=False))
    assert plain.endswith("; 34 in flight, oldest 2.1 s; E2E p50 912 ms p99 1,220 ms; no errors")
    [closed] = live.lines(running(targets=[msgspec.structs.replace(busy, offered_per_s=None, in_flight=0)]))
    assert "acme: 19.8 requests/s done; 0 in flight; TTFT" in closed
    [early] = live.lines(running(targets=[TargetProgress(name="acme")]))
    assert early == "0:34 peak running acme: nothing sent yet"


def test_clock() -> None:
    assert [live.clock(s) for s in (0, 34.9, 725, 3725)] == ["0:00", "0:34", "12:05", "1:02:05"]


# The end


def ended(valid: bool = True, width: int = 200, summary: Summary | None = None, store: str | None = None) -> str:
    shown = closing.closing(summary or report(valid=valid).summary, Path("runs/x"), width, store)
    return "\n".join(line.plain.rstrip() for line in shown)


def alone(**of_stage: object) -> Summary:
    """The summary of a run of one target and stage, without objectives."""
    made = report().summary
    own = msgspec.structs.replace(made.targets["acme"].stages["calm"], **of_stage)
    made.targets = {"acme": TargetFigures(requests=own.requests, ok=own.ok, errors=own.errors, stages={"calm": own})}
    made.slos = []
    return made


def test_what_became_of_requests_that_were_sent_again_is_told() -> None:
    seen = ended(summary=alone(after_retries=AfterRetries(retried=9, success_rate=0.978)))
    assert "  9 further attempts: 97.8% of the requests succeeded in the end" in seen
    assert "further attempt" not in ended(summary=alone())


def test_the_end_of_a_run_of_no_request_tells_no_figures() -> None:
    seen = ended(summary=alone(requests=0, ok=0, errors={}))
    assert "· Nothing was measured: no request was sent in a measured stage." in seen
    assert "VALID" not in seen
    assert "  calm  no request\n" in seen
    assert "TTFT" not in seen
    assert "Next     raise the rate or make the stages longer" in seen


def test_the_end_says_verdict_account_and_what_next() -> None:
    seen = ended()
    assert "✘ acme met all 6 objectives; globex breached 3 of 6 objectives and left 3 undecided." in seen
    assert "VALID: the load generator did not limit the run" in seen
    assert "16,800 scheduled = 16,800 sent + 0 missed + 0 unknown" in seen
    assert "16,800 sent = 16,800 stored + 0 lost" in seen
    assert "✘ breached   globex, calm: Time to first token p99 ∞, asked ≤ 1,500 ms" in seen
    assert (
        "? undecided  globex, calm: Error rate 2.70%, asked ≤ 3%\n             about 4,210 more requests would decide"
        in seen
    )
    assert "Report   runs/x/report.html" in seen
    assert "Next     open the report" in seen
    assert "loadtest report 20261103-140211-7k2m --format csv" in seen


def test_the_table_at_the_end_fits_and_tells_failures_apart() -> None:
    seen = ended(width=80).splitlines()
    assert all(len(line) <= 80 for line in seen)
    [acme] = [line for line in seen if line.startswith("● acme          4,800")]
    assert acme == "● acme          4,800      0%    372    662    840   6,450   9,690  40.0   5,920"
    below = seen[seen.index(next(line for line in seen if line.startswith("■ globex        4,800"))) + 1]
    assert below.split() == ["failed", "=", "∞", "1,020", "3,060", "∞", "17,400", "∞"]


def test_an_invalid_end_gives_reason_and_remedy() -> None:
    seen = ended(valid=False)
    assert "! INVALID: this run cannot judge its targets." in seen
    assert "INVALID  1 worker process was lost or had to be restarted" in seen
    assert "INVALID  18 requests were due and not sent, for no cap of the plan" in seen
    assert "repeat the run; with more workers if these were too busy" in seen
    assert "Next     do what INVALID says above and run again" in seen


def test_each_kind_of_error_has_an_example() -> None:
    details = {
        "connect": "127.0.0.1:9 refused the connection",
        "http_4xx": "401 Unauthorized: no such key " + "x" * 400,
    }
    summary = alone(errors={"http_4xx": 3, "connect": 48}, error_examples=details)
    seen = ended(summary=summary, width=500).splitlines()
    assert "  connect 48  127.0.0.1:9 refused the connection" in seen
    [long] = [line for line in seen if "401 Unauthorized" in line]
    assert seen.index(long) == seen.index("  connect 48  127.0.0.1:9 refused the connection") + 1
    assert long.endswith("x…")
    assert len(long) == len("  http_4xx 3  ") + 240


def test_a_long_line_goes_on_below_its_words() -> None:
    line = Text("  reset 3  one two three four five")
    assert [part.plain for part in columns.wrapped(line, 24)] == [
        "  reset 3  one two three",
        "           four five",
    ]
    assert [part.plain for part in columns.wrapped(Text("! one two three"), 9)] == ["! one two", "  three"]


@pytest.mark.parametrize(("width", "left_out"), [(80, "nothing"), (70, "tokens"), (52, "E2E, ms"), (40, "TTFT, ms")])
def test_a_narrow_terminal_leaves_groups_out_and_breaks_nothing(width: int, left_out: str) -> None:
    seen = shown(running(targets=[TargetProgress(name="a-provider-with-a-long-name")]), width)
    assert all(len(line) <= width for line in seen.splitlines())
    assert left_out not in seen
    assert "in flight" in seen or width < 41
    table = [line for line in ended(width=width).splitlines() if "runs/x" not in line and "--format" not in line]
    assert all(len(line) <= width for line in table)


def test_failures_are_infinite_only_where_the_endpoint_or_the_network_failed() -> None:
    assert "failed = ∞" not in ended(summary=alone(ok=1190, errors={"cancelled": 10}))
    assert "failed = ∞" in ended(summary=alone(ok=1190, errors={"reset": 10}))


def test_without_an_answer_there_is_no_clock_and_the_end_says_what_failed() -> None:
    summary = alone(requests=116, ok=0, errors={"connect": 116}, error_rate=1.0)
    summary.generator = Generator()
    seen = ended(summary=summary)
    assert "· None of 116 requests to acme succeeded; no objective was set." in seen
    assert "VALID: the load generator did not limit the run." in seen
    assert "Next     see above why nothing succeeded at acme, and run again" in seen


def test_an_interrupted_run_says_so_first() -> None:
    summary = alone()
    summary.interrupted = True
    assert "Interrupted before its end. 1,200 requests measured at 1 target; no objective was set." in ended(
        summary=summary
    )


def test_warm_up_explains_what_the_account_has_more() -> None:
    summary = alone()
    summary.integrity = Integrity(scheduled=1224, sent=1224, stored=1224)
    assert "24 of the stored are warm-up: kept, and left out of the figures" in ended(summary=summary)
    summary.integrity = Integrity(scheduled=1200, sent=1200, stored=1200)
    assert "warm-up" not in ended(summary=summary)


def test_what_the_stamps_cannot_tell_is_said() -> None:
    assert "a stamp may be off by 900 ms or more: beyond the TTFT p50" in ended(summary=alone(uncertainty_p99_ms=900.0))
    assert "may be off" not in ended(summary=alone(uncertainty_p99_ms=3.0))


def test_an_undecided_objective_without_a_number_gives_its_advice() -> None:
    summary = alone()
    summary.slos = [
        SloRow(metric="ttft_ms", stat="p95", limit=1, target="acme", stage="calm", value=math.inf, advice="See why.")
    ]
    assert "p95 ∞, asked ≤ 1 ms\n             See why." in ended(summary=summary)
    assert "Next     see beside each undecided objective what it lacks" in ended(summary=summary)


def test_the_rows_are_found_in_the_store_of_the_run() -> None:
    assert "report 20261103-140211-7k2m --format csv --store '/tmp/my store'" in ended(store="/tmp/my store")


def test_the_command_is_written_as_it_can_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / ".venv" / "bin" / "loadtest"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert closing.called_as([str(program)], tmp_path) == ".venv/bin/loadtest"
    assert closing.called_as([str(program)], Path("/elsewhere")) == str(program)
    assert closing.called_as(["/usr/bin/pytest"], tmp_path) == "loadtest"
    monkeypatch.setenv("PATH", str(program.parent))
    assert closing.called_as([str(program)], tmp_path) == "loadtest"


def test_runs_are_listed_in_full_with_how_they_ended() -> None:
    console = Console(file=io.StringIO(), width=40)
    ends = (("met", ""), ("INVALID", "2 workers lost, 1 request unknown"), ("", ""), ("failed", "no Ray"), ("done", ""))
    found = [
        Listed(
            run=f"r{k}",
            started_ns=START_NS,
            ended_ns=START_NS + 61 * SECOND_NS,
            plan_name="a-plan-with-a-name-of-its-own",
            kind="load",
            targets=["a"],
            going_on=k == 2,
            result=result,
            told=told,
        )
        for k, (result, told) in enumerate(ends)
    ]
    listings.runs(found, {"r0": Measured(requests=1000, failed=3)}, "somewhere", console)
    seen = text_of(console).splitlines()
    assert [line.split()[0] for line in seen] == ["run", "r0", "r1", "r2", "r3", "r4"]
    whole = "r0  a-plan-with-a-name-of-its-own  2026-11-03  14:02:11  61  1,000  0.300%  met"
    assert "  ".join(seen[1].split()) == whole
    assert [line.rsplit("  ", 1)[1] for line in seen[2:]] == [
        "INVALID, 2 workers lost, 1 request unknown",
        "goes on",
        "failed, no Ray",
        "no objective",
    ]
    assert [line for line in seen if line != line.rstrip()] == []


# The views


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_gets_lines_when_a_phase_begins() -> None:
    console = Console(file=io.StringIO(), width=80)
    view = live.view(False, console)
    with view:
        view.say("starting the workers")
        for at_s in (1.0, 1.2, 1.4):
            view.show(snapshot(at_s, TargetCount(scheduled=3)))
        ending = snapshot(2, TargetCount(scheduled=3))
        ending.phase = "draining"
        view.show(ending)
    seen = text_of(console).splitlines()
    assert seen[0] == "starting the workers"
    assert [line.partition(";")[0] for line in seen[1:]] == [
        "0:01 steady running acme: nothing sent yet",
        "0:01 steady running globex: nothing sent yet",
        "0:02 steady last answers acme: nothing sent yet",
        "0:02 steady last answers globex: nothing sent yet",
    ]


def test_a_log_gets_each_message_once() -> None:
    console = Console(file=io.StringIO(), width=80)
    view = live.view(False, console)
    for at_s in (1.0, 1.2, 1.4):
        made = snapshot(at_s, TargetCount())
        made.hosts[0].problems = ["results of worker 0 wait in w.frames"]
        made.lost_hosts = [] if at_s == 1.0 else [3]
        view.show(made)
    told = [line for line in text_of(console).splitlines() if line.startswith("!")]
    assert told == [
        "! results of worker 0 wait in w.frames",
        "! worker 3 does not answer any more: it or its machine is lost",
    ]


def test_the_last_answers_get_a_line_where_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LINES_EVERY_S", 0.0)
    console = Console(file=io.StringIO(), width=80)
    view = live.view(False, console)
    for at_s, in_flight in ((20, 3), (21, 3), (22, 2), (23, 2)):
        made = snapshot(at_s, TargetCount(in_flight=in_flight, oldest_ns=START_NS + 19 * SECOND_NS))
        made.phase = "draining"
        view.show(made)
    seen = text_of(console).splitlines()
    assert [line.split(";")[1].split()[0] for line in seen if "acme" in line] == ["3", "2"]
    assert len([line for line in seen if "globex" in line]) == 1


def test_that_nothing_was_sent_yet_gets_one_line_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LINES_EVERY_S", 0.0)
    console = Console(file=io.StringIO(), width=80)
    view = live.view(False, console)
    for at_s in (1, 2, 3):
        view.show(snapshot(at_s, TargetCount()))
    for at_s in (4, 5):
        view.show(snapshot(at_s, TargetCount(scheduled=1, in_flight=1, oldest_ns=START_NS + 4 * SECOND_NS)))
    seen = text_of(console).splitlines()
    assert ["nothing sent yet" in line for line in seen if "acme" in line] == [True, False, False]
    assert len([line for line in seen if "globex" in line]) == 1


def test_the_clock_and_the_load_due_stand_still_during_the_last_answers() -> None:
    """20 s at 10/s, then 7 s of answers."""
    watch = Watch()
    watch.take(snapshot(10, TargetCount(scheduled=100)))
    watch.take(snapshot(20, TargetCount(scheduled=200)))
    late = snapshot(27, TargetCount(scheduled=200, in_flight=1, oldest_ns=START_NS))
    late.phase = "draining"
    progress = watch.take(late)
    assert (progress.elapsed_s, progress.targets[0].offered_per_s) == (20, 10)
    late.hosts[0].stages[0].end_ns = START_NS + 12 * SECOND_NS  # interrupted
    assert watch.take(late).elapsed_s == 12


def test_a_low_screen_keeps_what_concerns_the_run() -> None:
    targets = [
        TargetProgress(name=f"provider-{k:02d}-of-many-eu", errors={"reset": 1} if k == 11 else {}) for k in range(12)
    ]
    crowded = running(
        targets=targets, worker_states=["ready"], workers_lost=1, messages=["worker 1 died of signal 9; " + "x " * 40]
    )
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(live.render(crowded, 80, 24))
    seen = text_of(console).splitlines()
    assert len(seen) <= 23
    assert seen[1].startswith("workers: 1 LOST, 1 ready")
    assert seen[2].startswith("! worker 1 died of signal 9;")
    assert seen[3].startswith("  x x")
    assert seen[-1] == "… and 5 more, 1 of them in trouble: provider-11-of-many-eu"


def test_names_are_cut_where_they_can_be_told_apart() -> None:
    assert (elided("acme", 4), elided("a-long-name-eu-1", 9)) == ("acme", "a-long…")
    assert (elided("inference-provider", 9), elided("peak-hours-eu-west", 12)) == ("inferenc…", "peak-hours…")
    alike = [f"provider-{k:02d}-of-many-eu" for k in range(12)]
    assert list(told_apart(alike, 9).values()) == [f"…{k:02d}-…y-eu" for k in range(12)]
    assert told_apart(["acme-of-the-north", "acme"], 9) == {"acme-of-the-north": "acme-of…", "acme": "acme"}
    targets = [TargetProgress(name=f"a-provider-in-region-{k}") for k in range(3)]
    seen = shown(running(targets=targets))
    assert [f"…on-{k} " in seen for k in range(3)] == [True, True, True]


def test_where_answers_have_no_tokens_nothing_is_said_of_them() -> None:
    long = [TargetProgress(name="a-shop-with-a-long-name")]
    seen = shown(running(targets=long, tokens=False), 80)
    assert "TTFT" not in seen
    assert "tokens" not in seen
    assert "a-shop-with-a-long-name" in seen, "there is room for it now"
    plan = msgspec.structs.replace(
        PLAN, targets=[msgspec.structs.replace(target, dialect="http") for target in PLAN.targets]
    )
    made = snapshot(1, TargetCount())
    assert [Watch().take(each).tokens for each in (made, msgspec.structs.replace(made, plan=plan))] == [True, False]
    plain = alone(ttft_ms=Stat(), output_tokens=None)
    at_end = ended(summary=plain, width=80)
    assert "TTFT" not in at_end.partition("Report")[0]
    assert "tokens" not in at_end
    assert [line.split()[:2] for line in at_end.splitlines() if line.startswith("●")] == [["●", "acme"]]


def test_a_terminal_is_redrawn_and_keeps_the_last_view() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    view = live.view(False, console)
    with view:
        view.show(snapshot(1, TargetCount(scheduled=3)))
        done = snapshot(20, TargetCount(scheduled=200))
        done.phase = "done"
        view.show(done)
    assert "Stage 2 of 2  steady  done  0:20 of 0:20" in text_of(console)


def test_quiet_prints_nothing() -> None:
    console = Console(file=io.StringIO(), width=80)
    with live.view(True, console) as view:
        view.say("starting")
        view.show(snapshot(1, TargetCount()))
    assert text_of(console) == ""


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    console.print(live.render(running()))
    assert "\x1b[3" not in text_of(console)
    assert "acme" in text_of(console)


def test_the_catalogue_lists_every_metric() -> None:
    console = Console(file=io.StringIO(), width=120)
    listings.catalogue(METRICS.values(), console)
    assert all(name in text_of(console) for name in METRICS)
