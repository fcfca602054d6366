"""A new panel is one entry in the table: Grafana and the local page have it, and nothing else was touched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import sample_run

ROOT = Path(__file__).parent.parent
ENTRY = """\
    Panel(
        dashboard="live",
        name="tokens-of-the-longest",
        title="Tokens of the longest answer",
        question="How many tokens had the longest answer of each target?",
        view="bar",
        labels=("target",),
        sql="SELECT target, max(output_tokens) AS tokens FROM requests WHERE " + q.selected("run", "target")
        + " GROUP BY target ORDER BY target",
        unit="count",
    ),
)
"""
LOOK = """
import json, sys, httpx
from dashboards.grafana.__main__ import texts
from dashboards.page.serve import serving
from loadtest.store import open_store
from tests import sample_run, test_page

with open_store(sys.argv[1]) as store:
    store.migrate()
    sample_run.insert(store)
    with serving(store) as url, httpx.Client(base_url=url) as page:
        query = f"live?run={sample_run.RUN}"
        shown, streamed = page.get(f"/{query}").text, test_page.stream(page, f"/events/{query}")
print(json.dumps([{str(path): text for path, text in texts().items()}, shown, streamed]))
"""


def test_a_new_panel_is_one_entry_of_the_table(tmp_path: Path) -> None:
    """In a copy of the package, whose table has an entry more."""
    shutil.copytree(ROOT / "dashboards", tmp_path / "dashboards")
    table = tmp_path / "dashboards" / "panels.py"
    text = table.read_text()
    assert text.endswith("    ),\n)\n")
    table.write_text(text.removesuffix(")\n") + ENTRY)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, tmp_path / "store"], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files, shown, streamed = json.loads(done.stdout)

    boards = [json.loads(text) for path, text in files.items() if path.endswith("live.json")]
    assert len(boards) == 2, "for Grafana's own provisioning, and for the chart"
    for board in boards:
        panel = board["panels"][-1]
        assert panel["title"] == "Tokens of the longest answer"
        assert panel["description"] == "How many tokens had the longest answer of each target?"
        assert "max(output_tokens)" in panel["targets"][0]["rawSql"]

    assert 'data-panel="tokens-of-the-longest"' in shown
    panels = {content["panel"]: content for event, content in streamed if event == "panel"}
    assert "failed" not in {content["state"] for content in panels.values()}
    figures = panels["tokens-of-the-longest"]["shape"]["figures"]
    tokens = sample_run.result("acme", 0).output_tokens
    assert [(each["name"], each["value"]) for each in figures] == [("acme", tokens), ("globex", tokens)]
