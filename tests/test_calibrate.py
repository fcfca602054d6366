"""The measurement itself, short; what is kept of it; and that `loadtest run` goes by what was kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadtest import calibrate, capacity
from loadtest import plan as plans
from loadtest.calibrate import Calibration, Load, Spread
from loadtest.disturbance import VARIED_LIMIT, Disturbance
from loadtest.errors import NotKept

LOADTEST = str(Path(sys.executable).with_name("loadtest"))

PLAN = """
name: small
targets: [{{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 5, output_tokens: 10}}
stages: [{{name: only, arrivals: {{kind: constant, rate: 10}}, duration_s: 0.3, drain_s: 5}}]
"""


def made(**changes: object) -> Calibration:
    load = Load(
        streams=64,
        chunks_per_s=6200,
        offered_per_s=6277,
        busy=0.2,
        ttft_error_ms=Spread(0.011, 0.05),
        itl_error_ms=Spread(0.001, 0.02),
    )
    found = Calibration(
        version=calibrate.__version__,
        machine=calibrate.machine(),
        cores=4,
        measured_at="2026-11-25T02:30:00Z",
        request_us=140,
        chunk_us=14,
        loads=[load],
    )
    return msgspec.structs.replace(found, **changes)


def test_a_worker_is_measured_against_the_endpoints_own_stamps() -> None:
    said: list[str] = []
    found = calibrate.measure(said.append, steps=(8, 12), stage_s=1.8)
    assert said == [
        "requests that are not streamed",
        "8 streams, 785 chunks a second",
        "12 streams, 1,177 chunks a second",
    ]
    assert [load.streams for load in found.loads] == [8, 12]
    for load in found.loads:
        assert load.chunks_per_s == pytest.approx(load.offered_per_s, rel=0.25)
        assert 0 < load.busy < 1
        # the kernel's stamps: exact to some hundredths of a millisecond where most chunks are concerned
        assert load.ttft_error_ms.p50 < 2 < calibrate.PACE_S * 1000
        assert load.itl_error_ms.p50 < 2
    assert 20 < found.request_us < 5000
    assert 2 < found.chunk_us < 2000


def test_it_is_kept_for_this_machine_and_version(tmp_path: Path) -> None:
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    assert calibrate.known(environ) == capacity.GUESS
    other = made(machine="another", request_us=9)
    calibrate.keep(other, environ)
    assert calibrate.known(environ) == capacity.GUESS
    path = calibrate.keep(made(), environ)
    assert calibrate.known(environ) == capacity.Capacity(140, 14, "2026-11-25T02:30:00Z")
    assert {each["machine"] for each in json.loads(path.read_text())} == {"another", calibrate.machine()}
    calibrate.keep(made(version="0.0.1"), environ)
    assert calibrate.known(environ) == capacity.GUESS, "another version is another worker"
    path.write_text("no JSON")
    assert calibrate.known(environ) == capacity.GUESS


def test_how_it_is_told() -> None:
    words = "\n".join(calibrate.text(made()))
    assert "requests, not streamed     5,000 /s      140 µs of CPU each" in words
    assert "chunks of streams         50,000 /s       14 µs of CPU each" in words
    assert "       64     6,200   20%    0.011    0.050    0.001    0.020" in words
    assert "too small" not in words
    assert "shared" not in words
    assert "this command shared 2 cores: the pauses of each" in "\n".join(calibrate.text(made(cores=2)))
    slow = made(loads=[msgspec.structs.replace(made().loads[0], chunks_per_s=4000)])
    assert "was to send 6,277 a second: this machine is too small for both" in "\n".join(calibrate.text(slow))
    plan = plans.parse(PLAN.format(url="http://127.0.0.1:1"), "/")
    told = list(calibrate.text_of_plan(plan, made().capacity))
    assert told == [
        "small, at its busiest in stage only: 10 requests/s with 100 chunks/s",
        "  0.400% of what one worker can do; one worker planned will do",
    ]
    as_json = calibrate.as_json(made(), plan)
    assert as_json["chunks_per_s"] == pytest.approx(50_000)
    assert json.loads(json.dumps(as_json))["plan"]["workers_needed"] == 1


def test_figures_of_a_busy_machine_are_told_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(NotKept) as refused:
        calibrate.tell(made(disturbed=Disturbance(cores=4, others=0.5)), None, as_json_=False)
    assert refused.value.exit_status == 3
    assert str(refused.value).startswith(
        "this calibration is not kept, since the machine was busy: other programs used 2 of 4 cores meanwhile"
    )
    assert str(refused.value).endswith("run and validate go on by a cautious guess")
    assert calibrate.kept() is None
    assert "Meanwhile other programs used 50.0% of 4 cores" in capsys.readouterr().out
    calibrate.tell(made(), None, as_json_=True)
    assert json.loads(capsys.readouterr().out)["kept"] is True
    assert calibrate.kept() == made()
    with pytest.raises(NotKept, match="go on by the one of 2026-11-25"):
        calibrate.tell(made(disturbed=Disturbance(varied=0.9)), None, as_json_=True)
    assert json.loads(capsys.readouterr().out)["kept"] is False


def test_where_nothing_can_be_kept_the_figures_are_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(NotKept, match=r"cannot be kept: .*file/loadtest: Not a directory; name a directory"):
        calibrate.tell(made(), None, as_json_=False)
    assert "requests, not streamed" in capsys.readouterr().out
    with pytest.raises(NotKept):
        calibrate.tell(made(), None, as_json_=True)
    assert json.loads(capsys.readouterr().out)["kept"] is False


def test_a_run_warns_beforehand_and_runs(simulator: str, tmp_path: Path) -> None:
    """A machine on which a request takes half a second of CPU."""
    calibrate.keep(made(request_us=500_000), {"XDG_DATA_HOME": str(tmp_path / "data")})
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.format(url=simulator))
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "LOADTEST_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [LOADTEST, "run", str(plan), "--quiet", "--out", str(tmp_path / "out")],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert "warning: stage only needs 8 workers (10 requests/s with 100 chunks/s" in done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_rounds_without_any_cpu_time_tell_nothing_and_are_not_trusted() -> None:
    assert calibrate._varied([0.0] * 5 + [90.0]) > VARIED_LIMIT
    assert calibrate._varied([100.0, 100, 100, 100, 100, 900]) == 0
