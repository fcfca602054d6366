"""The local page in a real browser: every view drawn, while a run writes as well, by keyboard, without a word on the console
and without a request to anywhere else."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dashboards.page.serve import serving
from dashboards.panels import DASHBOARDS, PANELS
from loadtest.store import Store
from tests import sample_run

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed")

LOADTEST = Path(sys.executable).with_name("loadtest")
RUN = sample_run.RUN
TRACE = sample_run.result("acme", 0).trace_id
ALONE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
VIEWS = (
    "/",
    *(f"/{each.name}?run={RUN}&trace={TRACE}" for each in DASHBOARDS),
    f"/compare?run={RUN}&run={RUN}",
    "/nowhere",
)
WITHIN_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ALONE))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(store: Store) -> Iterator[str]:
    sample_run.insert(store)
    with serving(store) as url:
        yield url.rstrip("/")


class Tab:
    """One tab, and what went wrong in it."""

    def __init__(self, browser: Any, base: str, scheme: str = "light") -> None:
        self.tab = browser.new_page(
            viewport={"width": 1280, "height": 1000}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.base = base
        self.wrong: list[str] = []
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if request.url.startswith("http") and urlsplit(request.url).netloc != urlsplit(self.base).netloc:
            self.wrong.append(f"asked {request.url}")

    def open(self, path: str) -> Any:
        """The page, when all its parts are there."""
        self.tab.goto(self.base + path)
        sync_api.expect(self.tab.locator("[aria-busy=true]")).to_have_count(0, timeout=WITHIN_MS)
        return self.tab

    def states(self) -> dict[str, str]:
        found = self.tab.locator("[data-panel]")
        return {each.get_attribute("data-panel"): each.get_attribute("data-state") for each in found.all()}


@pytest.fixture
def tab(browser: Any, page: str) -> Iterator[Tab]:
    opened = Tab(browser, page)
    yield opened
    opened.tab.close()


@pytest.mark.parametrize(("scheme", "views"), [("light", VIEWS), ("dark", VIEWS[1:2])])
def test_every_view_is_drawn_without_a_word_on_the_console(
    browser: Any, page: str, scheme: str, views: tuple[str, ...]
) -> None:
    opened = Tab(browser, page, scheme)
    for path in views:
        opened.open(path)
        assert "failed" not in opened.states().values(), path
        for chart in opened.tab.locator(".plot[role=img]").all():
            chart.scroll_into_view_if_needed()
            sync_api.expect(chart.locator("canvas")).to_have_count(1)
    opened.tab.close()
    not_found = [word for word in opened.wrong if "404" in word]
    assert len(not_found) == views.count("/nowhere"), "the page that is not there, and nothing else"
    assert [word for word in opened.wrong if word not in not_found] == []


def test_charts_and_their_tables_say_the_same(tab: Tab) -> None:
    opened = tab.open(f"/live?run={RUN}&target=acme")
    panel = opened.locator("[data-panel=ttft]")
    panel.scroll_into_view_if_needed()
    panel.locator("summary").click()
    sync_api.expect(panel.locator("tbody tr").nth(9)).to_be_visible(timeout=WITHIN_MS)
    assert panel.locator("thead th").all_inner_texts()[0] == "time, UTC"
    link = panel.locator("tbody td a").last
    assert "from=2026-11-03T14%3A0" in link.get_attribute("href")
    link.click()
    opened.wait_for_url("**/request?**")
    sync_api.expect(opened.locator("[data-panel=requests] tbody tr").first).to_be_visible(timeout=WITHIN_MS)
    opened.locator("[data-panel=requests] td a").first.click()
    opened.wait_for_url("**trace=*#chunks")
    sync_api.expect(opened.locator("[data-panel=chunks] canvas")).to_have_count(1, timeout=WITHIN_MS)
    assert tab.wrong == []


def test_two_runs_are_chosen_in_the_list_and_compared(tab: Tab, store: Store) -> None:
    other = sample_run.PLAN_YAML.replace("nonce: 3f9c2ab8", "nonce: 00000000")
    store.insert("runs", {"run": ["other"], "started_ns": [1], "ended_ns": [2], "plan_name": ["old"], "plan": [other]})
    opened = tab.open("/")
    button = opened.get_by_role("button", name="Compare the two chosen")
    assert button.is_disabled()
    for name in (RUN, "other"):
        opened.get_by_label(f"Compare {name}").check()
    button.click()
    opened.wait_for_url("**/compare?**")
    sync_api.expect(opened.locator("[data-part]")).to_contain_text(
        "Only run A has acme in stage steady", timeout=WITHIN_MS
    )
    assert "Their plans are the same but for the nonce" in opened.locator("[data-part]").inner_text()


def test_all_of_it_can_be_reached_by_keyboard(tab: Tab) -> None:
    opened = tab.open(f"/live?run={RUN}")
    opened.keyboard.press("Tab")
    assert opened.evaluate("() => document.activeElement.textContent") == "To the content"
    seen = []
    for _ in range(120):
        opened.keyboard.press("Tab")
        seen.append(opened.evaluate("() => { const e = document.activeElement; return e.closest('[data-panel]')?.dataset.panel"
                                    " ?? e.closest('form, nav')?.getAttribute('aria-label') ?? e.tagName }"))  # fmt: skip
        if seen[-1] == "BODY":
            break
    texts = {panel.name for panel in PANELS if panel.view in ("stat", "bar")}  # nothing in them is to be pressed
    drawn = {name for name, state in tab.states().items() if state == "ok"} - texts
    assert {"Places", "What is shown", *drawn} <= set(seen)
    opened.locator("[data-panel=ttft] summary").focus()
    opened.keyboard.press("Enter")
    sync_api.expect(opened.locator("[data-panel=ttft] .figures table")).to_be_visible()
    opened.locator("#controls details summary").first.focus()
    opened.keyboard.press("Enter")
    sync_api.expect(opened.locator("#controls details[open]")).to_have_count(1)
    opened.keyboard.press("Escape")
    sync_api.expect(opened.locator("#controls details[open]")).to_have_count(0)


def test_what_is_chosen_goes_into_the_address(tab: Tab) -> None:
    opened = tab.open(f"/live?run={RUN}")
    opened.locator("#controls summary", has_text="Target").click()
    opened.locator("#controls").get_by_label("globex").check()
    opened.wait_for_url("**target=globex*")
    assert f"run={RUN}" in opened.url
    assert "last=" not in opened.url
    opened.get_by_label("Time").select_option("1h")
    opened.wait_for_url("**last=1h*")
    assert "target=globex" in opened.url


def test_the_theme_is_chosen_and_remembered(tab: Tab) -> None:
    opened = tab.open("/")
    for theme in ("light", "dark"):
        opened.get_by_role("button", name="Theme").click()
        assert opened.locator("html").get_attribute("data-theme") == theme
    tab.open("/providers")
    assert opened.locator("html").get_attribute("data-theme") == "dark"
    assert opened.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(15, 17, 20)"


def test_a_page_whose_server_has_gone_says_so_and_keeps_what_it_shows(browser: Any, store: Store) -> None:
    with serving(store) as url:
        opened = Tab(browser, url.rstrip("/"))
        opened.tab.goto(f"{url}providers?last=1h")
        opened.tab.evaluate("() => document.documentElement.dataset.feed")
        sync_api.expect(opened.tab.locator("html[data-feed=ended]")).to_have_count(1, timeout=WITHIN_MS)
        opened.tab.goto(f"{url}live?run=none-such&last=1h")  # a range that goes on: so does the stream
        sync_api.expect(opened.tab.locator("html[data-feed=live]")).to_have_count(1, timeout=WITHIN_MS)
    sync_api.expect(opened.tab.locator("#trouble")).to_contain_text("does not answer", timeout=WITHIN_MS)
    opened.tab.close()


@pytest.mark.skipif(not AXE.exists(), reason="npm install --no-save axe-core brings it")
@pytest.mark.parametrize(("scheme", "views"), [("light", VIEWS), ("dark", VIEWS[:2])])
def test_axe_finds_no_fault(browser: Any, page: str, scheme: str, views: tuple[str, ...]) -> None:
    opened = Tab(browser, page, scheme)
    source = AXE.read_text()
    for path in views:
        opened.open(path)
        opened.tab.evaluate(f"{source}; null")
        found = opened.tab.evaluate(
            "() => axe.run(document).then(r => r.violations.map(v => v.id + ': ' + v.nodes[0].html))"
        )
        assert found == [], path
    opened.tab.close()


def test_a_run_is_seen_while_it_goes_on(tab: Tab, store: Store, simulator: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"""
name: seen-live
targets: [{{name: here, url: "{simulator}/v1", dialect: openai-chat, model: sim}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 8}}
stages: [{{name: steady, arrivals: {{kind: constant, rate: 10}}, duration_s: 12, drain_s: 5}}]
""")
    command = [
        str(LOADTEST),
        "run",
        str(plan),
        "--store",
        str(store.address),
        "--out",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL) as process:
        try:
            opened = _open_when_it_runs(tab)
            sync_api.expect(opened.locator("#status")).to_contain_text("goes on", timeout=WITHIN_MS)
            done = opened.locator("[data-panel=counts] tbody tr").first
            sync_api.expect(done).to_contain_text("here", timeout=WITHIN_MS)
            before = done.inner_text()
            sync_api.expect(done).not_to_have_text(before, timeout=WITHIN_MS)
            assert process.wait(WITHIN_MS / 1000) in (0, 3)
            sync_api.expect(opened.locator("html[data-feed=ended]")).to_have_count(1, timeout=WITHIN_MS)
        finally:
            process.terminate()
    assert "goes on" not in opened.locator("#status").inner_text()
    assert set(tab.states()) == {panel.name for panel in PANELS if panel.dashboard == "live"}
    assert tab.wrong == []


def _open_when_it_runs(tab: Tab) -> Any:
    """The newest run's page, once that is ours."""
    opened = tab.tab
    for _ in range(WITHIN_MS // 250):
        opened.goto(f"{tab.base}/")
        if opened.get_by_role("cell", name="seen-live").count():
            opened.get_by_role("row", name="seen-live").get_by_role("link").click()
            return opened
        opened.wait_for_timeout(250)
    raise AssertionError("the run did not begin")
