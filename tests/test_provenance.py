"""Who measured what under which key: what the report states, what it leaves open, and that no key can be found out."""

from hashlib import sha256

from msgspec.structs import replace

from loadtest.provenance import TOO_SHORT, fingerprint, provenance
from loadtest.report.sections.provenance import limits
from loadtest.report.sections.provenance import provenance as section
from tests.sample_report import report

KEY = "sk-live-7Qx9vKw2LmZr4TbN"


def test_the_owner_of_a_key_can_work_out_its_fingerprint() -> None:
    assert fingerprint(KEY) == f"sha256:{sha256(KEY.encode()).hexdigest()[:16]}"
    assert fingerprint("a-short-password") == TOO_SHORT, "whoever tries all short ones would find it"


def test_only_fingerprints_are_kept() -> None:
    plan = report().plan
    assert plan is not None
    name = plan.targets[0].name
    made = provenance(plan, ["node-b", "", "node-a", "node-b"], {name: KEY, f"proxy of {name}": "user:password"})
    assert made.keys == {name: fingerprint(KEY)}
    assert made.nodes == ["node-a", "node-b"]
    assert made.host
    assert made.version


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
    summary = replace(made.summary, interrupted=True, slos=[])
    summary.provenance = replace(summary.provenance, announced=dict.fromkeys(made.summary.targets))
    summary.validity = replace(summary.validity, valid=False)
    told = " ".join(limits(replace(made, summary=summary)))
    assert "Whether any target is good or bad: the run is INVALID" in told
    assert "The plan does not say that the test was announced to acme" in told
    assert "The run was interrupted" in told
    assert "No limit was set beforehand" in told
