"""push, diff and pull against a server that implements Grafana's API after its own document, and the errors on the way."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from msgspec.structs import replace

from dashboards.alerts import ALERTS
from dashboards.grafana import build, commands, provision, rules
from dashboards.grafana.commands import Call
from dashboards.panels import DASHBOARDS
from loadtest.errors import UserError
from loadtest.simulator import Profile, Tls, start
from loadtest.store import Store
from tests.grafana_server import ADMIN, VIEWER, FakeGrafana, serving

pytest.importorskip("grafana_client")


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    made = FakeGrafana()
    yield made
    assert made.problems == []


@pytest.fixture
def call(fake: FakeGrafana, store: Store, tmp_path: Path) -> Iterator[Call]:
    token, contact = tmp_path / "token", tmp_path / "contact"
    token.write_text(ADMIN)
    contact.write_text("https://hooks.example/T0/secret-part")
    with serving(fake) as url:
        yield Call(
            url=url,
            token=f"file:{token}",
            store=store.address.directory,
            seen_as=None,
            contact=f"file:{contact}",
            runbook="https://runbooks.example/loadtest",
        )


def test_push_brings_everything_and_again_changes_nothing(
    fake: FakeGrafana, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.diff(call) == 1
    commands.push(call, overwrite=False)
    assert set(fake.dashboards) == {build.uid(each.name) for each in DASHBOARDS}
    assert fake.datasources[build.DATASOURCE_UID]["jsonData"]["username"] == "reader"
    [group] = fake.groups.values()
    assert [rule["title"] for rule in group["rules"]] == [alert.title for alert in ALERTS]
    first = group["rules"][0]
    assert first["annotations"]["runbook_url"] == "https://runbooks.example/loadtest#burn-fast"
    assert first["notification_settings"] == {"receiver": "loadtest"}
    capsys.readouterr()
    assert commands.diff(call) == 0
    writes = fake.writes
    commands.push(call, overwrite=False)
    assert fake.writes == writes
    told = capsys.readouterr().out
    assert told.count("unchanged") == 4 + len(DASHBOARDS)
    for secret in (ADMIN, "secret-part", fake.datasources[build.DATASOURCE_UID]["secureJsonData"]["password"]):
        assert secret not in told


def test_a_dashboard_edited_in_grafana_is_told_and_only_overwritten_when_asked(
    fake: FakeGrafana, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.push(call, overwrite=False)
    uid = build.uid("live")
    fake.edit_dashboard(uid, title="mine")
    capsys.readouterr()
    assert commands.diff(call) == 1
    assert 'dashboard live: title is "mine", not "loadtest: Live run"' in capsys.readouterr().out
    writes = fake.writes
    with pytest.raises(UserError, match=r"(?s)nothing was pushed.*live was edited in Grafana \(version 2 by eve\)"):
        commands.push(call, overwrite=False)
    assert fake.writes == writes
    commands.pull(replace(call, contact=None), tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "dashboard-live.json").read_text())["title"] == "mine"
    commands.push(call, overwrite=True)
    assert fake.dashboards[uid][-1]["dashboard"]["title"] == "loadtest: Live run"
    assert commands.diff(call) == 0


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ("datasource", "data source was edited in Grafana"),
        ("rule", "alert rules was made or edited in Grafana"),
        ("contact", "contact point was made or edited in Grafana"),
        ("folder", "folder was renamed"),
        ("file", "dashboard gpu comes from a file"),
        ("read only", "data source comes from a file"),
    ],
)
def test_whatever_else_was_edited_is_a_conflict(fake: FakeGrafana, call: Call, edit: str, told: str) -> None:
    commands.push(call, overwrite=False)
    [group] = fake.groups.values()
    match edit:
        case "datasource":
            fake.datasources[build.DATASOURCE_UID]["jsonData"]["username"] = "admin"
        case "rule":
            group["rules"][2] |= {"noDataState": "Alerting", "provenance": ""}
        case "contact":
            fake.contacts["loadtest"] |= {"provenance": "", "settings": {"url": "https://other.example"}}
        case "folder":
            fake.folders["loadtest"]["title"] = "ours"
        case "file":
            fake.edit_dashboard(build.uid("gpu"), title="from a file")
            fake.dashboards[build.uid("gpu")][-1]["file"] = True
        case "read only":
            fake.datasources[build.DATASOURCE_UID] |= {"readOnly": True, "name": "other"}
    assert commands.diff(call) == 1
    with pytest.raises(UserError, match=told):
        commands.push(call, overwrite=False)


def test_a_contact_point_whose_url_grafana_keeps_to_itself_is_written_anew(
    fake: FakeGrafana, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing differs of what can be seen; another URL of ours arrives; what was edited in Grafana is told."""
    fake.redacts = True
    commands.push(call, overwrite=False)
    assert commands.diff(call) == 0
    (tmp_path / "contact").write_text("https://hooks.example/T1/other")
    commands.push(call, overwrite=False)
    assert "contact point: written anew" in capsys.readouterr().out
    assert fake.contacts["loadtest"]["settings"]["url"] == "https://hooks.example/T1/other"
    fake.contacts["loadtest"] |= {"provenance": ""}
    assert commands.diff(call) == 1
    with pytest.raises(UserError, match="contact point was made or edited in Grafana"):
        commands.push(call, overwrite=False)


def test_what_we_ourselves_changed_since_is_no_conflict(fake: FakeGrafana, call: Call) -> None:
    commands.push(call, overwrite=False)
    old = fake.dashboards[build.uid("gpu")][-1]["dashboard"]
    old["panels"] = old["panels"][1:]  # as an older version of ours would have left it
    [group] = fake.groups.values()
    group["rules"] = group["rules"][1:]
    commands.push(replace(call, runbook="https://elsewhere.example"), overwrite=False)
    assert len(fake.dashboards[build.uid("gpu")]) == 2
    assert len(next(iter(fake.groups.values()))["rules"]) == len(ALERTS)


def test_a_password_that_no_longer_works_is_written_anew(fake: FakeGrafana, call: Call) -> None:
    commands.push(call, overwrite=False)
    fake.datasources[build.DATASOURCE_UID]["secureJsonData"]["password"] = "old"
    assert commands.diff(call) == 1
    commands.push(call, overwrite=False)
    assert commands.diff(call) == 0


def test_a_store_that_grafana_does_not_reach_is_said(fake: FakeGrafana, call: Call) -> None:
    with pytest.raises(UserError, match="Grafana does not reach the store with it"):
        commands.push(replace(call, seen_as="127.0.0.1:1"), overwrite=False)
    assert fake.datasources[build.DATASOURCE_UID]["jsonData"]["port"] == 1


def test_a_store_may_be_seen_as_an_address_of_ipv6(fake: FakeGrafana, call: Call) -> None:
    with pytest.raises(UserError, match="Grafana does not reach the store with it"):
        commands.push(replace(call, seen_as="[::1]:1"), overwrite=False)
    settings = fake.datasources[build.DATASOURCE_UID]["jsonData"]
    assert (settings["host"], settings["port"]) == ("[::1]", 1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"url": "http://127.0.0.1:1"},
            "no Grafana answers at http://127.0.0.1:1: nothing listens at port 1 of 127.0.0.1; start Grafana, or",
        ),
        ({"url": "http://nowhere.invalid"}, "no address is known for the name nowhere.invalid; correct the URL's host"),
        ({"url": "grafana"}, "is no URL of a Grafana"),
        ({"url": "http://["}, "is no URL of a Grafana"),
        ({"url": "http://localhost:many"}, "is no URL of a Grafana"),
        ({"url": "http://admin:admin@localhost:3000"}, "give a token by --token"),
        ({"token": "glsa_in_the_open"}, "--token must be env:NAME or file:PATH"),
        ({"token": "env:LOADTEST_NO_SUCH_TOKEN"}, "LOADTEST_NO_SUCH_TOKEN is empty or not there"),
        ({"seen_as": ":x"}, "write host or host:port"),
        ({"seen_as": "2001:db8::1"}, "write host or host:port"),
        ({"seen_as": "host/path"}, "write host or host:port"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(call: Call, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        commands.push(replace(call, **changes), overwrite=False)


def test_a_grafana_that_speaks_another_protocol_or_is_not_trusted(call: Call, tmp_path: Path) -> None:
    plain = call.url.replace("http:", "https:")
    with pytest.raises(
        UserError, match=f"at {plain}: it does not speak TLS there; write {call.url}, or the port that does"
    ):
        commands.push(replace(call, url=plain), overwrite=False)
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    with start(Profile(), tls=Tls(str(tmp_path / "server.pem"))) as url, pytest.raises(UserError) as untrusted:
        commands.push(replace(call, url=url), overwrite=False)
    assert "its certificate is not trusted (" in str(untrusted.value)
    assert "; add its authority to this machine's certificates, or name the file in REQUESTS_CA_BUNDLE" in str(
        untrusted.value
    )
    assert "Error" not in str(untrusted.value)


def test_a_wrong_grafana_is_told_in_a_sentence(fake: FakeGrafana, call: Call, tmp_path: Path) -> None:
    def told() -> str:
        with pytest.raises(UserError) as error:
            commands.push(call, overwrite=False)
        return str(error.value)

    fake.plugin = None
    assert "lacks the ClickHouse plugin: grafana cli plugins install grafana-clickhouse-datasource" in told()
    fake.plugin = "3.3.0"
    assert "ClickHouse plugin in version 3.3.0" in told()
    fake.plugin, fake.version = "4.20.0", "9.5.1"
    assert "is version 9.5.1; the dashboards need 11 or newer" in told()
    fake.version = "13.2.3"
    (tmp_path / "token").write_text("glsa_nobody")
    assert "does not know the token" in told()
    (tmp_path / "token").write_text(VIEWER)
    assert "does not let the token's account do this: POST /folders" in told()
    call = replace(call, url=call.url + "/nowhere")
    assert "no Grafana" in told()


def test_a_user_who_may_write_is_refused(store: Store) -> None:
    class Server:
        """A store at a server, whose user's `readonly` is 0."""

        address = dataclasses.replace(store.address, directory="", user="admin")
        query = store.query

    with pytest.raises(UserError, match="give --store a user with readonly = 1 or 2"):
        commands._read_only(Server())  # type: ignore[arg-type]


def test_rules_are_what_the_provisioning_api_takes() -> None:
    made = rules.group("somebody", "https://runbooks.example")
    assert {rule["for"] for rule in made["rules"]} == {"0s", "1m"}
    assert len({rule["uid"] for rule in made["rules"]}) == len(ALERTS)
    assert provision._digest(provision._datasource(_address())) != provision._digest(
        provision._datasource(dataclasses.replace(_address(), port=1))
    )


def _address() -> Any:
    from loadtest.store.address import parse

    return parse("clickhouse://reader@127.0.0.1:8123/loadtest", {})
