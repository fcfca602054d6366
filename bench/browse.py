"""How soon the page's dashboards are there, in a browser: `python -m bench.browse --store DIR`, of bench.panels' store.

Each dashboard is opened several times by a browser that has never seen it, over five minutes in the middle of the day. Told
is, from the start of the navigation, when the page can be used (its scripts have run and its controls answer), when the
first chart is drawn, when every panel in sight is there, and when all of them are: the median, and the range.
"""

import argparse
import shutil
from statistics import median
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from bench.panels import BEGAN_NS, DAY_NS, RUN, WINDOW_S, trace_of
from dashboards.page.links import stamp
from dashboards.page.serve import serving
from dashboards.panels import DASHBOARDS
from loadtest.store import Store, open_store

LOADS = 5
WITHIN_MS = 60_000
ALONE = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
WATCH = """
    addEventListener("DOMContentLoaded", () => {
      window.there = {};
      new MutationObserver(() => {
        for (const el of document.querySelectorAll("[data-panel]:not([aria-busy=true])")) {
          const chart = el.querySelector(".plot[role=img]");
          const drawn = !chart || chart.querySelector("canvas");
          if (drawn && !(el.id in there)) there[el.id] = [performance.now(), Boolean(chart)];
        }
      }).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["aria-busy"] });
    });"""
TOLD = """() => {
    const panels = [...document.querySelectorAll("[data-panel]")];
    const ready = (els) => Math.max(...els.map((el) => there[el.id]?.[0] ?? 0));
    const seen = panels.filter((el) => el.getBoundingClientRect().top < innerHeight);
    return {
      interactive: performance.getEntriesByName("interactive")[0].startTime,
      "first panel": Math.min(...Object.values(there).map(([at]) => at)),
      "first chart": Math.min(...Object.values(there).filter(([, chart]) => chart).map(([at]) => at)),
      "all in sight": ready(seen),
      "all panels": ready(panels),
    };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="one that bench.panels has filled")
    parser.add_argument("--loads", type=int, default=LOADS)
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("this is measured in chromium, which is not installed: apt-get install chromium")
    with open_store(given.store) as store, sync_playwright() as playwright:
        store.migrate()
        query = urlencode(asked(store))
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ALONE))
        for dashboard in DASHBOARDS:
            told = []
            for _ in range(given.loads):
                with serving(store) as url:  # a server that has answered nothing yet
                    told.append(load(browser, f"{url}{dashboard.name}?{query}"))
            figures = (sorted(each[name] for each in told) for name in told[0])
            cells = (f"{median(ms):,.0f} ({ms[0]:,.0f} to {ms[-1]:,.0f})" for ms in figures)
            if dashboard is DASHBOARDS[0]:
                print(f"| page | {' | '.join(told[0])} |", flush=True)
            print(f"| {dashboard.title} | {' | '.join(cells)} |", flush=True)
        browser.close()


def asked(store: Store) -> dict[str, str]:
    from_ns = BEGAN_NS + DAY_NS // 2
    between = {"from": stamp(from_ns / 1e9), "to": stamp(from_ns / 1e9 + WINDOW_S)}
    return {"run": RUN, "trace": trace_of(store, from_ns), **between}


def load(browser: Any, address: str) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    tab = context.new_page()
    tab.add_init_script(WATCH)
    tab.goto(address, wait_until="commit")
    tab.wait_for_selector("html[data-feed=ended]", state="attached", timeout=WITHIN_MS)
    tab.wait_for_function("() => Object.keys(there).length > 0")
    told: dict[str, float] = tab.evaluate(TOLD)
    context.close()
    return told


if __name__ == "__main__":
    main()
