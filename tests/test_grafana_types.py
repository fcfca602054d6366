"""The dashboards as typed literals under tsc, against Grafana's own types: `make dashboards-types` installs those."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dashboards.grafana import build

SCHEMA = Path(__file__).parent / "grafana_schema"
TSC = SCHEMA / "node_modules" / "typescript" / "bin" / "tsc"
OPTIONS = ["--strict", "--noEmit", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]

pytestmark = pytest.mark.skipif(
    not (TSC.exists() and shutil.which("node")), reason="needs node and make dashboards-types"
)


def complaints(directory: Path, dashboards: dict[str, Any]) -> str:
    lines = [f"import type {{ AnyDashboard, AnyPanel }} from '{SCHEMA}/types';"]
    for name, made in dashboards.items():  # panels apart: of one literal only the first complaint is told
        lines.append(f"export const {name}: AnyDashboard = {json.dumps(made | {'panels': []})};")
        lines += [f"export const {name}{p['id']}: AnyPanel = {json.dumps(p)};" for p in made["panels"]]
    literal = directory / "literal.ts"
    literal.write_text("\n".join(lines))
    done = subprocess.run(
        ["node", str(TSC), *OPTIONS, str(literal)], capture_output=True, text=True, check=False, cwd=SCHEMA
    )
    return done.stdout


def test_dashboards_are_what_grafana_takes_and_a_wrong_name_or_value_is_noticed(tmp_path: Path) -> None:
    dashboards = build.dashboards()
    found = complaints(tmp_path, dashboards)
    assert found == "", found[:4000]
    wrong = copy.deepcopy(dashboards["live"])
    panels = {panel["type"]: panel for panel in wrong["panels"]}
    panels["timeseries"]["options"]["legned"] = {}
    panels["heatmap"]["options"]["rowsFrame"]["layout"] = "sideways"
    panels["table"]["targets"][0]["format"] = 7
    panels["xychart"]["fieldConfig"]["defaults"]["custom"]["spanNulls"] = True
    found = complaints(tmp_path, {"wrong": wrong})
    for word in ("legned", "sideways", "7", "spanNulls"):
        assert word in found, found[:4000]
