"""The table of alert rules as Grafana's provisioning API has them."""

from collections.abc import Sequence
from typing import Any

from dashboards.alerts import ALERTS, Alert
from dashboards.grafana.build import DATASOURCE_UID, FOLDER_UID, PLUGIN, PLUGIN_VERSION, TABLE, uid
from dashboards.panels import PANELS

GROUP = "loadtest"
INTERVAL_S = 60
RUNBOOK = "docs/runbook.md"
"""Where the runbook is, unless whoever pushes says where it can be read."""
LOOKBACK_S = 600  # Grafana wants a time range; the queries have their own


def group(receiver: str | None, runbook: str) -> dict[str, Any]:
    """The rule group. `receiver`: the contact point that is told; None: whoever the notification policies name."""
    rules = [{"orgID": 1, "folderUID": FOLDER_UID, "ruleGroup": GROUP, **rule(each, runbook)} for each in ALERTS]
    if receiver:
        for each in rules:
            each["notification_settings"] = {"receiver": receiver}
    return {"title": GROUP, "folderUid": FOLDER_UID, "interval": INTERVAL_S, "rules": rules}


def rule(alert: Alert, runbook: str) -> dict[str, Any]:
    dashboard, name = alert.panel
    there = [panel.name for panel in PANELS if panel.dashboard == dashboard]
    return {
        "uid": uid(alert.name),
        "title": alert.title,
        "condition": "C",
        "data": _query_and_threshold(alert),
        "noDataState": alert.no_data,
        "execErrState": alert.on_error,
        "for": _duration(alert.for_s),
        "annotations": {
            "summary": alert.summary,
            "runbook_url": f"{runbook}#{alert.name}",
            "__dashboardUid__": uid(dashboard),
            "__panelId__": str(there.index(name) + 1),
        },
        "labels": {"severity": alert.severity, "source": "loadtest"},
        "isPaused": False,
    }


def _query_and_threshold(alert: Alert) -> Sequence[dict[str, Any]]:
    """Query A yields a number for each set of labels; C says which of them are too large."""
    query = {
        "refId": "A",
        "datasource": {"type": PLUGIN, "uid": DATASOURCE_UID},
        "editorType": "sql",
        "rawSql": alert.sql,
        "format": TABLE,
        "pluginVersion": PLUGIN_VERSION,
        "intervalMs": 1000,
        "maxDataPoints": 43200,
    }
    threshold = {
        "refId": "C",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "type": "threshold",
        "expression": "A",
        "conditions": [{"evaluator": {"type": "gt", "params": [alert.above]}}],
    }
    range_s = {"from": LOOKBACK_S, "to": 0}
    return [
        {"refId": "A", "datasourceUid": DATASOURCE_UID, "relativeTimeRange": range_s, "model": query},
        {"refId": "C", "datasourceUid": "__expr__", "relativeTimeRange": range_s, "model": threshold},
    ]


def _duration(seconds: int) -> str:
    """As Grafana writes it, so that what comes back is what was sent."""
    return f"{seconds // 60}m" if seconds and seconds % 60 == 0 else f"{seconds}s"
