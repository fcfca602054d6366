"""How the report writes numbers, durations and sentences, and how text becomes markup."""

import json
import math

import pytest

from loadtest.report.markup import Html, data_script, h, text
from loadtest.report.words import count, listing, percent, plural, quantity, said, seconds, settled, sig3, utc

# Words


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "–"), (0, "0"), (0.01234, "0.0123"), (0.5, "0.500"), (4.5, "4.50"), (67.84, "67.8"), (912.4, "912"),
        (999.6, "1,000"), (9.996, "10.0"), (12345, "12,300"), (1234567, "1,230,000"), (-3.14159, "−3.14"),
        (math.inf, "∞"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float | None, written: str) -> None:
    assert sig3(value) == written


def test_quantities_carry_units() -> None:
    assert quantity(412.3, "ms") == "412 ms"
    assert quantity(0.0123, "1") == "1.23%"
    assert quantity(19.84, "1/s") == "19.8 /s"
    assert quantity(None, "ms") == "–"
    assert quantity(math.inf, "ms") == "∞"
    assert percent(0) == "0%"
    assert count(1234567) == "1,234,567"
    assert (plural(1, "request"), plural(2000, "request")) == ("1 request", "2,000 requests")
    assert [listing(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listing(["a", "b", "c", "d", "e"], most=4) == "a, b, c and 2 more"


def test_durations_and_instants() -> None:
    assert [seconds(s) for s in (0.85, 12.34, 120, 125, 3720)] == [
        "0.85 s",
        "12.3 s",
        "2 min",
        "2 min 05 s",
        "1 h 02 min",
    ]
    assert utc(1_793_714_531_000_000_000) == "2026-11-03 14:02:11 UTC"


def test_sentences_agree_with_their_numbers() -> None:
    assert settled("1 worker process(es) were lost") == "1 worker process was lost"
    assert settled("2 worker process(es) were lost") == "2 worker processes were lost"
    assert settled("of 1,203 request(s) it is unknown") == "of 1,203 requests it is unknown"


def test_of_a_json_body_its_message_is_enough() -> None:
    body = '{"error":{"message":"No such \\"key\\"","type":"auth"}}'
    assert said(f"HTTP 401: {body}") == 'HTTP 401: No such \\"key\\"'
    assert said("HTTP 401: " + body[:30]) == "HTTP 401: " + body[:30]
    assert said("connection reset by peer") == "connection reset by peer"


# Markup


def test_text_is_escaped_and_markup_is_not() -> None:
    assert h("p", "a < b", h("b", "&")) == "<p>a &lt; b<b>&amp;</b></p>"
    assert (
        h("a", "x", href='"&<', class_="c", data_label="d")
        == '<a href="&quot;&amp;&lt;" class="c" data-label="d">x</a>'
    )
    assert h("button", hidden=True, id=None, disabled=False) == "<button hidden></button>"
    assert h("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert h("rect", width="3") == '<rect width="3"/>'
    assert isinstance(text("x", None, [h("i"), 3]), Html)


def test_data_cannot_end_its_script_element() -> None:
    script = data_script({"name": "</script><!--\u2028"})
    assert script.count("<") == 2
    assert json.loads(script[script.index(">") + 1 : script.rindex("<")]) == {"name": "</script><!--\u2028"}
