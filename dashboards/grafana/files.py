"""The same as files for Grafana's own provisioning: what containers start with (deploy/compose.yaml, helm/loadtest).

Grafana replaces $NAME in these files by the environment, so that a dollar sign is written twice.
"""

from typing import Any

import yaml

from dashboards.alerts import ALERTS
from dashboards.grafana.build import DATASOURCE_UID, FOLDER_UID, PLUGIN
from dashboards.grafana.rules import GROUP, INTERVAL_S, RUNBOOK, rule

MADE_BY = "# Made by `python -m dashboards.grafana` from dashboards/panels.py and dashboards/alerts.py.\n"
DASHBOARDS_IN = "/etc/grafana/dashboards"
PASSWORD_IN = "/run/secrets/reader-password"


def texts() -> dict[str, str]:
    """Path under Grafana's provisioning directory -> what it must hold."""
    made = {"datasources": _datasource(), "dashboards": _provider(), "alerting": alerting()}
    return {f"{name}/loadtest.yaml": MADE_BY + _yaml(each) for name, each in made.items()}


def _yaml(made: dict[str, Any]) -> str:
    return yaml.safe_dump(made, sort_keys=False, width=120, allow_unicode=True)


def _datasource() -> dict[str, Any]:
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "uid": DATASOURCE_UID,
                "name": "loadtest",
                "type": PLUGIN,
                "access": "proxy",
                "jsonData": {
                    "host": "clickhouse",
                    "port": 8123,
                    "protocol": "http",
                    "username": "reader",
                    "defaultDatabase": "loadtest",
                },
                "secureJsonData": {"password": f"$__file{{{PASSWORD_IN}}}"},
            }
        ],
    }


def _provider() -> dict[str, Any]:
    provider = {
        "name": "loadtest",
        "type": "file",
        "folder": "loadtest",
        "folderUid": FOLDER_UID,
        "allowUiUpdates": False,
        "options": {"path": DASHBOARDS_IN},
    }
    return {"apiVersion": 1, "providers": [provider]}


def alerting() -> dict[str, Any]:
    rules = [_escaped(rule(alert, RUNBOOK)) for alert in ALERTS]
    group = {"orgId": 1, "name": GROUP, "folder": "loadtest", "interval": f"{INTERVAL_S}s", "rules": rules}
    return {"apiVersion": 1, "groups": [group]}


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.replace("$", "$$")
        case dict():
            return {name: _escaped(each) for name, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
        case _:
            return value
