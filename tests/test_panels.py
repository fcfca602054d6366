"""The table of panels: each entry whole, and its query good on a store with a run in it, as our page and Grafana ask."""

from collections import Counter

import pytest

from dashboards.panels import DASHBOARDS, PANELS
from dashboards.types import Panel
from loadtest.metrics import METRICS

BY_NAME = {f"{panel.dashboard}.{panel.name}": panel for panel in PANELS}


def test_names_are_unique_and_dashboards_known() -> None:
    assert max(Counter((panel.dashboard, panel.name) for panel in PANELS).values()) == 1
    assert {panel.dashboard for panel in PANELS} == {dashboard.name for dashboard in DASHBOARDS}


@pytest.mark.parametrize("panel", BY_NAME.values(), ids=BY_NAME)
def test_a_panel_names_known_metrics_and_asks_a_question(panel: Panel) -> None:
    assert set(panel.metrics) <= set(METRICS)
    assert all(METRICS[metric].sql in panel.sql for metric in panel.metrics)
    assert panel.question.endswith("?")
    assert [t.at for t in panel.thresholds] == sorted(t.at for t in panel.thresholds)
