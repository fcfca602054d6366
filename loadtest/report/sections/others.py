"""The same answers by the definitions of other tools, so that a dispute about a word ends in a table."""

from msgspec import Struct

from loadtest.definitions import DEFINITIONS, METHODS, TOOLS, Definition
from loadtest.report.marks import named
from loadtest.report.markup import Html, h, text
from loadtest.report.model import Report, StageFigures
from loadtest.report.others import Said
from loadtest.report.words import NOT_KNOWN, plural, sig3

LEAD = (
    "Tools start the clock at different moments, stop it at different chunks, divide by different counts of tokens,"
    " leave out different requests and read percentiles off differently. These are the very answers of this run by each"
    " of their definitions. What a tool's own client adds by sending and reading late is not in them."
)
OUR_NAME = "loadtest"
QUESTIONS = {"first": "Until the first token", "token": "For each token", "end": "Until the end"}
SAME = 0.005
"""A value that is off by less is called the same."""

OURS = {
    "first": (("ttft_ms", "TTFT"),),
    "token": (("tpot_ms", "TPOT"), ("itl_ms", "ITL"), ("icl_ms", "ICL")),
    "end": (("e2e_ms", "E2E"),),
}
"""Our own figures beside theirs, for each question."""


class Cell(Struct, frozen=True):
    """One figure: what it is called, and our median of the same question."""

    called: str
    p50: float | None
    p99: float | None
    ours: float | None


class Line(Struct, frozen=True):
    """The figures of one tool beside each other, one for each question."""

    whose: str
    cells: dict[str, Cell]
    first: bool  # of the tool's lines


def others(report: Report) -> Html:
    title = h("h2", "The same run, as others would report it")
    groups = list(dict.fromkeys((said.stage, said.target) for said in report.others))
    if not groups:
        words = "No request of a measured stage was stored: there is nothing to compare."
        return h("section", title, h("div", words, class_="empty"), id="others")
    drawn = [_group(report, stage, target, position) for position, (stage, target) in enumerate(groups)]
    return h(
        "section", title, h("p", LEAD, class_="lead"), drawn, _left_out(report, len(groups)), _reasons(), id="others"
    )


def _left_out(report: Report, shown: int) -> Html | None:
    """So that the page stays small, the later groups are not in it."""
    further = sum(len(target.stages) for target in report.summary.targets.values()) - shown
    if further <= 0:
        return None
    command = h("code", f"loadtest report {report.summary.run} --as vllm")
    return h("p", f"{plural(further, 'further pair')} of stage and target: ", command, ".", class_="lead")


def _group(report: Report, stage: str, target: str, position: int) -> Html:
    figures = report.summary.targets[target].stages[stage]
    lines = _our_lines(figures)
    for tool in TOOLS.values():
        mine = [s for s in report.others if (s.stage, s.target) == (stage, target) and s.n and _tool(s) == tool.name]
        lines += _lines(tool.title, figures, mine)
    title = h("span", f"Stage {stage}, ", named(list(report.summary.targets).index(target), target))
    words = spread([(line.whose, line.cells["first"].p50) for line in lines if "first" in line.cells])
    table = h(
        "div", h("table", _head(), h("tbody", [_row(line) for line in lines]), class_="full others"), class_="scroll"
    )
    if position == 0:
        return h("div", h("h3", title), h("p", words, class_="lead"), table, class_="stage")
    return h("details", h("summary", title, ": ", words), table)


def _tool(said: Said) -> str:
    return DEFINITIONS[said.name].tool


def _our_lines(figures: StageFigures) -> list[Line]:
    stats = {of: [(called, getattr(figures, name)) for name, called in names] for of, names in OURS.items()}
    cells = {of: [Cell(called, s.p50, s.p99, None) for called, s in named if s.n] for of, named in stats.items()}
    return _beside(OUR_NAME, cells)


def _lines(title: str, figures: StageFigures, mine: list[Said]) -> list[Line]:
    cells: dict[str, list[Cell]] = {of: [] for of in QUESTIONS}
    for said in mine:
        definition = DEFINITIONS[said.name]
        ours = _ours(definition, figures)
        cells[definition.of].append(Cell(_called(definition), said.stats["p50"], said.stats["p99"], ours))
    return _beside(title, cells)


def _beside(whose: str, cells: dict[str, list[Cell]]) -> list[Line]:
    """The n-th figures of each question in a line."""
    rows = range(max(len(some) for some in cells.values()))
    return [Line(whose, {of: some[i] for of, some in cells.items() if i < len(some)}, i == 0) for i in rows]


def _called(definition: Definition) -> str:
    """`TTFT`, `ITL per chunk usage`: short, since the tool's own words are long."""
    short, _, rest = definition.name.partition(".")[2].removesuffix("_ms").partition("_")
    return f"{short.upper()} {rest.replace('_', ' ')}".strip() if short != "script" else "TTFT, old script"


def _ours(definition: Definition, figures: StageFigures) -> float | None:
    """Our median of the same question: an average of requests stands against an average, gaps against gaps."""
    if definition.of != "token":
        return (figures.ttft_ms if definition.of == "first" else figures.e2e_ms).p50
    gaps = figures.itl_ms if figures.itl_ms.n else figures.icl_ms
    return gaps.p50 if definition.kind == "pooled" or not figures.tpot_ms.n else figures.tpot_ms.p50


def spread(told: list[tuple[str, float | None]]) -> str:
    """Between which values the same thing is told, in a sentence; ours comes first."""
    known = sorted((value, whose) for whose, value in told if value is not None)
    if not known or told[0][1] is None:
        return "The time to first token cannot be told."
    (low, by_low), (high, by_high) = known[0], known[-1]
    if high - low <= SAME * high:
        return f"All tell the same median time to first token, {sig3(high)} ms."
    ours = f"The median time to first token is {sig3(told[0][1])} ms here"
    return f"{ours}; it is told as anything from {sig3(low)} ms ({by_low}) to {sig3(high)} ms ({by_high})."


def _head() -> Html:
    top = [h("th", question, colspan=4, scope="colgroup") for question in QUESTIONS.values()]
    words = [h("th", word, scope="col") for _ in QUESTIONS for word in ("", "p50, ms", "p99, ms", "to ours")]
    return h("thead", h("tr", h("th"), top), h("tr", h("th"), words, class_="subhead"))


def _row(line: Line) -> Html:
    cells = [_cells(line.cells.get(of), line.whose == OUR_NAME) for of in QUESTIONS]
    kinds = " ".join(word for word, on in (("ours", line.whose == OUR_NAME), ("group", line.first)) if on)
    return h("tr", h("th", line.whose if line.first else None, scope="row"), cells, class_=kinds or None)


def _cells(cell: Cell | None, is_ours: bool) -> Html:
    if cell is None:
        return h("td", colspan=4)
    against = None if is_ours else difference(cell.p50, cell.ours)
    return text(
        h("td", cell.called, class_="called"),
        h("td", sig3(cell.p50)),
        h("td", sig3(cell.p99)),
        h("td", against, class_="muted" if against in (None, "same") else "off"),
    )


def difference(value: float | None, ours: float | None) -> str:
    """`+12%`, `same`; as a multiple where it is more than double."""
    if value is None or not ours:
        return NOT_KNOWN
    share = value / ours - 1
    if abs(share) < SAME:
        return "same"
    if share > 1:
        return f"{sig3(1 + share)} ×"
    return f"{'+' if share > 0 else '−'}{sig3(100 * abs(share))}%"


def _reasons() -> Html:
    facts = [
        (h("dt", f"{tool.title} ({tool.version})"), h("dd", f"{tool.differs} Percentiles: {METHODS[tool.method]}."))
        for tool in TOOLS.values()
    ]
    return h("div", h("h3", "Why they differ"), h("dl", facts, class_="facts"), class_="stage")
