"""The small signs of the family: a shape and a colour for each target, a shape and a word for each outcome."""

from loadtest.report.headline import State
from loadtest.report.markup import Html, h

COLORS = 8
"""Targets beyond the eighth take the colours again, with another shape."""

SHAPES = (
    '<circle cx="5" cy="5" r="5"/>',
    '<rect width="9" height="9" x=".5" y=".5" rx="1"/>',
    '<path d="M5 0 10 9.5H0z"/>',
    '<path d="M5 0 10 5 5 10 0 5z"/>',
    '<path d="M3.5 0h3v3.5H10v3H6.5V10h-3V6.5H0v-3h3.5z"/>',
    '<path d="M0 .5h10L5 10z"/>',
    '<path d="M2.5.5h5L10 5 7.5 9.5h-5L0 5z"/>',
)

ICONS: dict[State, str] = {
    "met": '<circle cx="8" cy="8" r="7.25"/><path d="m4.8 8.3 2.2 2.2 4.3-4.7"/>',
    "breached": '<path d="M5 .75h6L15.25 5v6L11 15.25H5L.75 11V5z"/><path d="m5.4 5.4 5.2 5.2m0-5.2-5.2 5.2"/>',
    "undecided": '<circle cx="8" cy="8" r="7.25" stroke-dasharray="2.6 2"/><path d="M4.7 8h6.6"/>',
    "invalid": '<path d="M8 1.25 15.2 14H.8z"/><path d="M8 6v3.8m0 1.7v.5"/>',
    "none": '<path d="M2 14V8m4 6V3m4 11V6m4 8V1"/>',
}

WORDS: dict[State, str] = {
    "met": "met",
    "breached": "breached",
    "undecided": "undecided",
    "invalid": "INVALID",
    "none": "not judged",
}


def mark(index: int) -> Html:
    """A target's sign beside its name."""
    shape = Html(SHAPES[(index + index // COLORS) % len(SHAPES)])
    return h(
        "svg", shape, class_=f"mark c{index % COLORS}", viewBox="0 0 10 10", fill="currentColor", aria_hidden="true"
    )


def named(index: int, name: str) -> Html:
    return h("span", mark(index), name)


def icon(state: State) -> Html:
    return h(
        "svg",
        Html(ICONS[state]),
        class_=f"icon {css_class(state)}",
        viewBox="0 0 16 16",
        fill="none",
        stroke="currentColor",
        stroke_width="1.5",
        stroke_linecap="round",
        stroke_linejoin="round",
        aria_hidden="true",
    )


def outcome(state: State, words: str = "") -> Html:
    """An outcome in shape, colour and word."""
    return h("span", icon(state), words or WORDS[state], class_=f"outcome {css_class(state)}")


def css_class(state: State) -> str:
    return "neutral" if state == "none" else state
