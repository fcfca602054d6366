"""The local page over HTTP: who is let in, what each address answers, what its stream of events holds."""

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from dashboards.page.drawing import Painter
from dashboards.page.serve import serving
from dashboards.panels import DASHBOARDS, PANELS
from dashboards.types import Selection
from loadtest.errors import RunFailed
from loadtest.history import Objective
from loadtest.report.figures import Spec
from loadtest.store import Store, open_store
from tests import sample_run

RUN = sample_run.RUN


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the page, on loopback, over a store with one run in it and no other, which might be newer."""
    with open_store(str(tmp_path_factory.mktemp("page"))) as store:
        store.migrate()
        sample_run.insert(store)
        with serving(store) as url, httpx.Client(base_url=url) as client:
            yield client


def stream(client: httpx.Client, path: str) -> list[tuple[str, dict]]:
    """The events of a dashboard that does not go on: (name, content)."""
    blocks = client.get(path, timeout=60).text.split("\n\n")
    parsed = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks if "event: " in block]
    return [(each["event"], json.loads(each["data"])) for each in parsed]


def test_runs_are_listed_with_a_way_to_each(page: httpx.Client) -> None:
    answer = page.get("/")
    assert answer.status_code == 200
    assert f'href="/live?run={RUN}"' in answer.text
    assert ">two-providers<" in answer.text
    assert ">acme, globex<" in answer.text
    assert ">400<" in answer.text  # measured requests
    assert ">12.5%<" in answer.text  # 50 of them failed


@pytest.mark.parametrize("name", [dashboard.name for dashboard in DASHBOARDS])
def test_each_dashboard_has_a_place_for_each_of_its_panels_and_the_stream_fills_it(
    page: httpx.Client, name: str
) -> None:
    answer = page.get(f"/{name}?run={RUN}")
    panels = [panel.name for panel in PANELS if panel.dashboard == name]
    assert answer.text.count("data-panel=") == len(panels)
    events = stream(page, f"/events/{name}?run={RUN}")
    assert [event for event, _ in events] == ["status", *["panel"] * len(panels), "options", "end"]
    drawn = [content for event, content in events if event == "panel"]
    assert sorted(each["panel"] for each in drawn) == sorted(panels)
    assert [each["answer"] for each in drawn if each["state"] == "failed"] == []


def test_panels_in_sight_come_first_and_what_is_over_is_asked_for_once(page: httpx.Client) -> None:
    address = f"/events/live?run={RUN}&target=globex"
    sight = ["e2e-heat", "generator-lag"]
    drawn = [e for n, e in stream(page, f"{address}&sight={sight[0]}&sight={sight[1]}") if n == "panel"]
    assert {each["panel"] for each in drawn[:2]} == set(sight)
    again = {e["panel"]: e for n, e in stream(page, address) if n == "panel"}
    asked = {name for name, each in again.items() if each.get("took_ms")}
    assert asked == {"runs"}, "of what is no run's own; the others are those of the run, which is over"
    assert all(
        each | {"took_ms": 0} == again[each["panel"]] | {"took_ms": 0} for each in drawn if each["panel"] != "runs"
    )


def test_a_panel_shows_what_was_measured(page: httpx.Client) -> None:
    [ttft] = [
        e for n, e in stream(page, f"/events/live?run={RUN}&target=acme") if n == "panel" and e["panel"] == "ttft"
    ]
    steady = {line["name"]: line for line in ttft["shape"]["series"] if "steady" in line["name"]}
    assert set(steady) == {"steady acme p50", "steady acme p95", "steady acme p99"}
    values = [v for v in steady["steady acme p99"]["values"] if v is not None]
    assert values
    assert min(values) >= 101
    assert max(values) <= 300
    assert [steady[name].get("shade", 3) for name in sorted(steady)] == [1, 2, 3]
    assert {line["color"] for line in steady.values()} == {"t0"}  # the first target of the plan


def test_limits_are_the_plans_objectives_and_where_it_has_none_there_is_none(page: httpx.Client) -> None:
    shapes = {e["panel"]: e.get("shape", {}) for n, e in stream(page, f"/events/live?run={RUN}") if n == "panel"}

    def limits(panel: str) -> list[str]:
        return [each["label"] for each in shapes[panel].get("limits", [])]

    assert limits("ttft") == ["objective p50 500 ms"]
    assert limits("error-rate") == ["objective 5.00%"]
    assert limits("e2e") == []
    judged = {each["name"]: (each["figure"], each["severity"]) for each in shapes["failed"]["figures"]}
    assert judged["steady acme"] == ("0", "ok")
    assert judged["steady globex"] == ("25.0", "bad")


def test_an_objective_is_drawn_along_its_own_axis_and_none_is_left_out_unsaid() -> None:
    saturation = next(panel for panel in PANELS if panel.name == "saturation")
    objectives = [
        Objective("requests_per_s", 5.0),
        *(Objective("ttft_ms", limit_ms, "p95") for limit_ms in (100.0, 200.0, 300.0, 400.0, 500.0)),
    ]
    painter = Painter(Selection(from_ns=0, to_ns=60_000_000_000), ["acme"], objectives=objectives)
    shape = painter.draw(saturation, [{"target": "acme", "stage": "s", "x": 4.0, "y": 90.0}]).shape
    assert isinstance(shape, Spec)
    assert [(limit.y, limit.label) for limit in shape.limits] == [
        (100, "objective p95 100 ms"),
        (200, "objective p95 200 ms"),
        (300, "objective p95 300 ms; 2 more not drawn"),
    ]


def test_without_a_run_the_newest_one_is_shown(page: httpx.Client) -> None:
    answer = page.get("/live?target=acme")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/live?run={RUN}&target=acme"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("last=soon", "last=soon is no time range; write one of 1m"),
        ("from=yesterday", "from=yesterday is no moment; write it as"),
        ("from=9999-12-31T23:59:59Z", "is no moment between 1971 and 2261"),
        ("to=0001-01-01", "is no moment between 1971 and 2261"),
        ("from=99999999999999999999999999", "is no moment; write it as"),
        ("from=2026-11-03T14:00:00Z&to=2026-11-03T13:00:00Z", "is not before"),
    ],
)
def test_a_wrong_address_says_what_to_write(page: httpx.Client, query: str, words: str) -> None:
    answer = page.get(f"/live?run={RUN}&{query}")
    assert answer.status_code == 400
    assert words in answer.text


def test_what_an_address_holds_is_text_and_no_markup(page: httpx.Client) -> None:
    answer = page.get("/live", params={"run": "<script>alert(1)</script>"})
    assert "<script>alert" not in answer.text
    assert page.get("/nowhere").status_code == 404


def test_a_stream_of_no_dashboard_is_told(page: httpx.Client) -> None:
    answer = page.get("/events/nonsense")
    assert answer.status_code == 404
    assert answer.text == "there is no dashboard nonsense; there are live, providers, gpu, request\n"


def test_values_are_bound_and_never_part_of_a_statement(page: httpx.Client) -> None:
    wild = "x') OR 1=1 --"
    events = stream(page, f"/events/request?error={wild}&trace={wild}&target={wild}")
    assert {e["state"] for n, e in events if n == "panel"} == {"empty"}


def test_only_loopbacks_own_names_are_answered_to(page: httpx.Client) -> None:
    for name in ("rebound.example:80", "127.0.0.1.rebound.example", "127.rebound.example:80", ""):
        assert page.get("/", headers={"Host": name}).status_code == 421
    assert page.get("/", headers={"Host": "127.0.0.2"}).status_code == 200
    assert page.get("/", headers={"Host": "localhost:1234"}).status_code == 200
    assert page.get("/", headers={"Host": "[::1]:1234"}).status_code == 200


def test_every_answer_forbids_what_the_page_does_not_need(page: httpx.Client) -> None:
    for path in ("/", f"/live?run={RUN}", "/nowhere"):
        headers = page.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_assets_are_kept_by_browsers_and_named_by_their_content(page: httpx.Client) -> None:
    shell = page.get("/").text
    addresses = [part.split('"')[0] for part in shell.split('="') if part.startswith("/assets/")]
    assert len(addresses) == 7
    for address in addresses:
        answer = page.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert page.get("/assets/0/../../pyproject.toml").status_code == 404
    assert page.get("/assets/0/__init__.py").status_code == 404


def test_elsewhere_than_on_loopback_a_token_lets_in_once_shown_and_a_cookie_from_then_on(store: Store) -> None:
    with serving(store, host="0.0.0.0") as url, httpx.Client() as client:
        token = urlsplit(url).query.removeprefix("token=")
        at = url.partition("?")[0]
        assert len(token) >= 24
        assert client.get(at).status_code == 401
        assert token not in client.get(at).text
        assert client.get(at, params={"token": "wrong"}).status_code == 401
        assert client.get(f"{at}events/live", params={"run": RUN}).status_code == 401
        let_in = client.get(f"{at}live?run={RUN}&token={token}")
        assert let_in.status_code == 303
        assert let_in.headers["location"] == f"/live?run={RUN}"
        assert "HttpOnly" in let_in.headers["set-cookie"]
        assert "samesite=strict" in let_in.headers["set-cookie"].lower()
        assert token not in let_in.headers["set-cookie"]
        assert client.get(at).status_code == 200
        assert httpx.get(at, headers={"Authorization": f"Bearer {token}"}).status_code == 200
        slashes = client.get(f"{at}/evil.example/?token={token}")
        assert slashes.headers["location"].startswith("/evil.example")


def test_a_port_that_is_taken_is_told(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunFailed, match=rf"nothing can listen at 127.0.0.1 port {port}: .*give another --port"):
            serving(store, port=port).__enter__()


def test_the_server_ends_in_good_order_though_a_page_goes_on(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    page = serving(store)
    url = page.__enter__()
    with httpx.Client() as client, client.stream("GET", f"{url}events/live?run=none&last=1h", timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: status"
        page.__exit__(None, None, None)
        assert "event: end" not in list(lines), "it was cut short, and not at its end"
    assert capfd.readouterr().err == ""
