"""Who measured what under which key: what the report states, what it leaves open, and that no key can be found out."""

from hashlib import sha256
from html import unescape
from pathlib import Path

from msgspec.structs import replace

from loadtest.arrivals import Closed
from loadtest.prompts import Dataset
from loadtest.provenance import TOO_SHORT, fingerprint, provenance
from loadtest.report.sections.method import _the_same
from loadtest.report.sections.provenance import limits
from loadtest.report.sections.provenance import provenance as section
from loadtest.types import Stage
from tests.sample_report import report

KEY = "sk-live-7Qx9vKw2LmZr4TbN"


def test_the_owner_of_a_key_can_work_out_its_fingerprint() -> None:
    assert fingerprint(KEY) == f"sha256:{sha256(KEY.encode()).hexdigest()[:16]}"
    assert fingerprint("a-short-password") == TOO_SHORT, "whoever tries all short ones would find it"


def test_only_fingerprints_are_kept() -> None:
    plan = report().plan
    assert plan is not None
    name = plan.targets[0].name
    made = provenance(plan, {name: KEY, f"proxy of {name}": "user:password"})
    assert made.keys == {name: fingerprint(KEY)}
    assert made.prompts_sha256 == "", "they are synthetic"
    assert made.host
    assert made.version


def test_a_dataset_is_told_by_its_files_sum(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"prompt": "hi"}\n')
    plan = replace(report().plan, prompts=Dataset(path=str(path)))
    assert provenance(plan, {}).prompts_sha256 == sha256(path.read_bytes()).hexdigest()


def test_no_more_is_promised_of_a_second_run_than_holds() -> None:
    plan = report().plan
    assert _the_same(plan).endswith("send the same requests at the same times")
    own = replace(plan, prompts=Dataset(path="x", history="model"))
    assert _the_same(own).endswith(
        "at the same times; later turns of conversations hold what the model said, and differ"
    )
    closed = replace(plan, stages=[Stage(name="s", arrivals=Closed(), concurrency=2, requests=5)])
    assert _the_same(closed).endswith("in the same order, at the same times but under closed load")


def test_what_the_plan_does_not_say_is_not_claimed() -> None:
    made = report()
    words = str(section(made))
    assert "not said: `measured_by` of the plan names nobody" in words
    assert "not said: `announced` of the target is empty" in words
    told = replace(
        made.summary.provenance,
        measured_by="SRE of Example, sre@example.org",
        announced=dict.fromkeys(made.summary.targets, "ticket 4711"),
        keys={"acme": fingerprint(KEY)},
    )
    words = str(section(replace(made, summary=replace(made.summary, provenance=told))))
    assert "SRE of Example" in words
    assert "ticket 4711" in words
    assert f"fingerprint {fingerprint(KEY)}" in words
    assert KEY not in words


def test_limits_are_those_of_this_run() -> None:
    made = report()
    told = " ".join(limits(made))
    assert "It is one run, " in told
    assert "Whether answers were right was not looked at." in told
    assert "INVALID" not in told
    assert "announced" not in told, "a run of an older version does not know"
    assert "p99" not in told
    summary = replace(made.summary, interrupted=True, slos=[])
    summary.provenance = replace(summary.provenance, announced=dict.fromkeys(made.summary.targets))
    summary.validity = replace(summary.validity, valid=False)
    told = " ".join(limits(replace(made, summary=summary)))
    assert "Whether any target is good or bad: the run is INVALID" in told
    assert "The plan does not say that the test was announced to acme" in told
    assert "The run was interrupted" in told
    assert "No limit was set beforehand" in told


def test_a_p99_of_few_requests_is_told_with_how_many_it_rests_on() -> None:
    """Of 150, sorted, it is number 148 from 0: two are as slow or slower."""
    made = report()
    next(iter(made.summary.targets["acme"].stages.values())).requests = 150
    assert "of 150 in one stage, 2 at most took that long or longer." in " ".join(limits(made))


def test_behind_a_proxy_no_address_is_said_to_be_the_endpoints() -> None:
    made = report()
    for stage in made.summary.targets["acme"].stages.values():
        stage.addresses, stage.proxies = ["10.0.0.1"], ["http://proxy:3128"]
    told = "10.0.0.1, by way of the proxy http://proxy:3128, behind which the endpoint's own address is not seen"
    assert str(section(made)).count("not seen") == 1
    assert told in unescape(str(section(made)))


def test_of_plain_http_no_prompts_are_told() -> None:
    made = report()
    plan = replace(made.plan, targets=[replace(target, dialect="http") for target in made.plan.targets])
    told = " ".join(limits(replace(made, plan=plan)))
    assert "random English words" in " ".join(limits(made))
    assert "random English words" not in told
    assert "not looked at, beyond their status" in told
    asked = replace(plan, targets=[replace(target, body={"q": ["ask {prompt}"]}) for target in plan.targets])
    assert "random English words" in " ".join(limits(replace(made, plan=asked)))
    literal = replace(plan, targets=[replace(target, body={"q": "{{prompt}}"}) for target in plan.targets])
    assert "random English words" not in " ".join(limits(replace(made, plan=literal)))
