"""Grafana's dashboards: what is committed is what the table makes, and no value can break out of a statement."""

import json
import re
from typing import Any

import pytest
import yaml

from dashboards import panels
from dashboards.alerts import ALERTS
from dashboards.grafana import build, rules
from dashboards.grafana.__main__ import CHART, DASHBOARDS, PROVISIONING, texts


def test_what_is_committed_is_what_the_tables_make() -> None:
    committed = {
        path: path.read_text() for where in (DASHBOARDS, PROVISIONING) for path in where.rglob("*") if path.is_file()
    }
    chart = [*CHART.glob("dashboards/*.json"), CHART / "alerting.yaml"]
    committed |= {path: path.read_text() for path in chart}
    assert committed == texts(), "run: python -m dashboards.grafana"


def test_a_rule_in_a_file_is_the_rule_that_is_pushed_once_grafana_has_read_it() -> None:
    """Grafana's provisioning expands $NAME, and makes $$ one dollar."""
    text = (PROVISIONING / "alerting" / "loadtest.yaml").read_text()
    assert not re.search(r"(?<!\$)\$(?!\$)", text)
    [group] = yaml.safe_load(text.replace("$$", "$"))["groups"]
    assert group["rules"] == [rules.rule(alert, rules.RUNBOOK) for alert in ALERTS]


@pytest.mark.parametrize("name", [each.name for each in panels.DASHBOARDS])
def test_every_panel_is_there_with_its_query_and_nothing_unrendered(name: str) -> None:
    made = build.dashboards()[name]
    assert [panel["title"] for panel in made["panels"]] == [p.title for p in panels.PANELS if p.dashboard == name]
    known = {variable["name"] for variable in made["templating"]["list"]}
    for panel in made["panels"]:
        [query] = panel["targets"]
        assert not re.search(r"(?<!\$)\{\w+:", query["rawSql"])
        assert set(re.findall(r"\$\{(\w+):percentencode\}", query["rawSql"])) <= known
        assert panel["fieldConfig"]["defaults"]["noValue"]


def test_links_lead_to_a_dashboard_of_ours_and_keep_what_is_known() -> None:
    uids = {made["uid"]: {v["name"] for v in made["templating"]["list"]} for made in build.dashboards().values()}
    links = [link for made in build.dashboards().values() for panel in made["panels"] for link in _links(panel)]
    assert len(links) > 5
    for link in links:
        there = re.fullmatch(r"/d/([\w-]+)\?(.*)", link["url"])
        assert there, link
        assert there[1] in uids, link
        assert set(re.findall(r"var-(\w+)=|\{(\w+):queryparam\}", there[2])) <= {
            pair for name in uids[there[1]] for pair in ((name, ""), ("", name))
        }


def _links(panel: dict[str, Any]) -> list[dict[str, Any]]:
    config = panel["fieldConfig"]
    properties = [each for override in config["overrides"] for each in override["properties"]]
    return [*config["defaults"].get("links", []), *(ln for p in properties if p["id"] == "links" for ln in p["value"])]


def test_json_is_small_enough_to_be_read() -> None:
    for made in build.dashboards().values():
        assert made["schemaVersion"] >= 42
        assert len(json.dumps(made)) < 400_000, made["title"]
