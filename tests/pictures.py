"""`make pictures`: plays the incident of examples/incident.py, and takes the pictures of docs/dashboards.md of it.

With --store of an incident that was played already, that one is shown. Each picture is of one dashboard, in light and dark.
Told is also when which alert rule would have fired and cleared.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, expect, sync_playwright

from dashboards.page.links import stamp
from dashboards.page.serve import serving
from loadtest.store import Store, open_store
from tests import alert_replay

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
ALONE = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
WIDTH, MOST_BYTES = 1360, 200_000
HEIGHTS = {"live": 920, "live-latency": 900, "providers": 1240, "gpu": 900, "request": 840}
BEGINS = {"live-latency": "ttft", "gpu": "utilization"}
"""Pictures that begin at a panel, and not at the top of the page."""
WITHIN_MS = 120_000
CLEARED_NS = 6 * 60 * 1_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="of an incident that was played already")
    parser.add_argument("--minutes", type=float, default=10, help="how long the incident is that is played otherwise")
    parser.add_argument("--out", type=Path, default=PICTURES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = options.store or played(Path(scratch), options.minutes)
        options.out.mkdir(parents=True, exist_ok=True)
        with open_store(store) as opened:
            opened.migrate()
            take(opened, options.out)
            [run] = opened.query("SELECT started_ns, ended_ns FROM runs WHERE plan_name = 'incident'")
            print(
                *alert_replay.told(opened, run["started_ns"], run["ended_ns"] - run["started_ns"] + CLEARED_NS),
                sep="\n",
            )


def played(scratch: Path, minutes: float) -> str:
    store = str(scratch / "store")
    command = [sys.executable, str(ROOT / "examples" / "incident.py"), "--store", store, "--minutes", str(minutes)]
    subprocess.run([*command, "--out", str(scratch / "out")], check=True)
    return store


def take(store: Store, out: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("pictures are taken with chromium, which is not installed: apt-get install chromium")
    addresses = addresses_of(store)
    with serving(store) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ALONE))
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": WIDTH, "height": 1000}, color_scheme=scheme, reduced_motion="reduce"
            )
            for name, query in addresses.items():
                path = out / f"{name}-{scheme}.png"
                take_one(context.new_page(), f"{url}{name.partition('-')[0]}?{urlencode(query)}", path, name)
                print(path, path.stat().st_size)
        browser.close()


def addresses_of(store: Store) -> dict[str, dict[str, str]]:
    """What each picture shows: the run under load, the probes beside it, the slowest request of those that succeeded."""
    sql = "SELECT run, started_ns, ended_ns, plan_name FROM runs ORDER BY started_ns"
    found = {row["plan_name"]: row for row in store.query(sql)}
    load = found["incident"]
    slow = (
        "SELECT trace_id FROM requests WHERE run = {run:String} AND error = '' ORDER BY done_ns - sent_ns DESC LIMIT 1"
    )
    [slowest] = store.query(slow, {"run": load["run"]})
    time = {"from": stamp(load["started_ns"] / 1e9 - 5), "to": stamp(load["ended_ns"] / 1e9 + 5)}
    run = {"run": load["run"]}
    return {
        "live": run,
        "live-latency": run,
        "providers": time,
        "gpu": run,
        "request": {**run, "trace": slowest["trace_id"]},
    }


def take_one(tab: Page, address: str, path: Path, name: str) -> None:
    tab.goto(address)
    expect(tab.locator("html[data-feed=ended]")).to_have_count(1, timeout=WITHIN_MS)
    for chart in tab.locator(".plot[role=img]").all():
        chart.scroll_into_view_if_needed()
        expect(chart.locator("canvas")).to_have_count(1)
    tab.evaluate("() => scrollTo(0, 0)")
    tab.mouse.move(0, 0)
    begin = tab.locator(f"[data-panel={BEGINS[name]}]").bounding_box()["y"] - 16 if name in BEGINS else 0
    size = {"x": 0, "y": begin, "width": WIDTH, "height": HEIGHTS[name]}
    while len(content := tab.screenshot(full_page=True, clip=size)) > MOST_BYTES:
        size["height"] -= 40  # as much of the page as fits
    path.write_bytes(content)
    tab.close()


if __name__ == "__main__":
    main()
