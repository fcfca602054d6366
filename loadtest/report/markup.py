"""HTML as values: what is `Html` is markup, every other string is text and is escaped.

No template engine: a section is a function that returns `Html`, and there is no way to put text into a page but through
`h`, so a model name or an error body cannot become markup by being forgotten.
"""

from collections.abc import Iterable
from html import escape

import msgspec

VOID = frozenset({"meta", "link", "input", "br", "hr", "col"})
SVG_LEAVES = frozenset({"line", "rect", "circle", "path"})


class Html(str):
    """Markup that is safe to put into a page as it is."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def h(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """One element. In attributes `class_` is class, http_equiv is http-equiv; None and False leave one out."""
    inner = text(*children)
    opening = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}"
    if tag in SVG_LEAVES:
        return Html(f"{opening}/>")
    return Html(f"{opening}>" if tag in VOID else f"{opening}>{inner}</{tag}>")


def text(*children: Child) -> Html:
    """The children one after another: text escaped, `Html` as it is, None nothing."""
    return Html("".join(_child(child) for child in children))


def _child(child: Child) -> str:
    match child:
        case None:
            return ""
        case Html():
            return child
        case str():
            return escape(child, quote=False)
        case int():
            return str(child)
        case _:
            return text(*child)


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_")
    name = name.replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def data_script(value: object, **attributes: str) -> Html:
    """JSON for scripts to read. `<` is escaped, since `</script>` inside a string would end the element."""
    raw = msgspec.json.encode(value).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return h("script", Html(raw.replace("\u2029", "\\u2029")), type="application/json", **attributes)
