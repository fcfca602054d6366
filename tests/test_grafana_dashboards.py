"""Grafana's dashboards: what is committed is what the table makes, and no value can break out of a statement."""

import json
import re
from typing import Any

import pytest

from dashboards.grafana import build
from dashboards.grafana.__main__ import DIRECTORY, texts
from dashboards.panels import DASHBOARDS, PANELS


def test_committed_json_is_what_the_table_makes() -> None:
    committed = {path.name: path.read_text() for path in DIRECTORY.glob("*.json")}
    assert committed == texts(), "run: python -m dashboards.grafana"


@pytest.mark.parametrize("name", [each.name for each in DASHBOARDS])
def test_every_panel_is_there_with_its_query_and_nothing_unrendered(name: str) -> None:
    made = build.dashboards()[name]
    assert [panel["title"] for panel in made["panels"]] == [p.title for p in PANELS if p.dashboard == name]
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
    for name, text in texts().items():
        assert json.loads(text)["schemaVersion"] >= 42, name
        assert len(text) < 400_000, name
