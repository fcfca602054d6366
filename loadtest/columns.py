"""Fixed columns on a terminal: a target has its shape and its colour, a name what room there is.

80 columns are enough, and more go to the names; in fewer the last groups of figures are left out.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from rich.console import Console
from rich.text import Text

from loadtest.report.words import (
    told_apart,
)

NARROW = 80
NAME_WIDTHS = (12, 32)

COLORS = ("#3a9bd9", "#d98e1f", "#c46aa0", "#1fa37f", "#6cb8e6", "#e0672a", "#a8a21d", "#8a909c")
SHAPES = "●■▲◆✚▼⬢"
"""The hues and shapes of the report, in a tone that stands on black and on white."""

Columns = Sequence[tuple[str, int]]
"""Heading and width of columns; texts are right-aligned in them."""


class Group(Struct, frozen=True):
    title: str
    columns: Columns

    @property
    def width(self) -> int:
        return sum(width for _, width in self.columns)


class Layout(Struct, frozen=True):
    """What fits: the width of the names, and the groups of figures beside them, the first ones first."""

    name_width: int
    groups: tuple[Group, ...]
    names: dict[str, str]  # each as it is shown, in at most `name_width` with its sign and a space after it

    def name(self, index: int, name: str) -> Text:
        sign = (SHAPES[index % len(SHAPES)], COLORS[index % len(COLORS)])
        return Text.assemble(sign, " ", self.names[name])

    def head(self, title: Text) -> Iterator[Text]:
        yield self._line(title, [(group.title, group.width) for group in self.groups], "dim not bold")
        yield self._line(Text(""), self._columns(), "dim")

    def line(self, name: Text, shown: Sequence[str], style: str = "") -> Text:
        """`shown` has a text for each column of all groups; those that do not fit are left out."""
        widths = [width for _, width in self._columns()]
        return self._line(name, list(zip(shown, widths, strict=False)), style)

    def _columns(self) -> list[tuple[str, int]]:
        return [column for group in self.groups for column in group.columns]

    def _line(self, name: Text, cells: Columns, style: str) -> Text:
        line = name.copy()
        line.pad_right(self.name_width - line.cell_len)
        line.append("".join(text.rjust(width) for text, width in cells), style)
        line.no_wrap = True
        return line


def layout(names: Sequence[str], groups: Sequence[Group], width: int) -> Layout:
    low, high = NAME_WIDTHS
    longest = max(map(len, names), default=0) + 3
    fit = list(groups)
    while len(fit) > 1 and low + sum(group.width for group in fit) > width:
        fit.pop()
    room = width - sum(group.width for group in fit)
    name_width = max(low, min(longest, high, room))
    return Layout(name_width, tuple(fit), told_apart(names, name_width - 3))


def wrapped(line: Text, width: int) -> Iterator[Text]:
    """A line that is too long goes on below where its words began: after its sign or its first column."""
    plain = line.plain
    indent = len(plain) - len(plain.lstrip())
    column = plain.find("  ", indent, indent + LABEL_WIDTH)
    sign = plain[indent + 1 : indent + 2] == " "
    hang = len(plain) - len(plain[column:].lstrip()) if column > 0 else indent + 2 * sign
    if line.no_wrap or len(plain) <= width or hang > width // 2:
        yield line
        return
    first, rest = line.divide([hang])
    for part in rest.wrap(_PLAIN, width - hang):
        part.rstrip()
        yield Text.assemble(first, part)
        first = Text(" " * hang)


LABEL_WIDTH = 24
_PLAIN = Console(no_color=True)
