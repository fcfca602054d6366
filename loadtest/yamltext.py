"""YAML as plan files use it: the safe subset, read without surprises.

What YAML 1.1 makes of `off`, `1:30`, `010` and `2026-10-01` (false, 90, 8 and a date) is not what people mean; here
only true and false are truth values, `1e3` is a number, and dates stay text. A key given twice is an error, for one of
the two would be dropped without a word. Anchors and merge keys work, but what they expand to is bounded, as is depth.
"""

import re
from collections.abc import Iterator

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_DEPTH = 40
MAX_VALUES = 20_000

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_TAG = "tag:yaml.org,2002:"


class YamlError(ValueError):
    """The text cannot be read as data. `problems` has one line for each thing that is wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Loader(SafeLoader):
    """Knows of YAML 1.1's own resolvers only those of null and of merge keys; the others are below."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in (f"{_TAG}null", f"{_TAG}merge")]
    for first, resolvers in SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Quotes what either this module or YAML 1.1 would not read as text."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
    _class.add_implicit_resolver(f"{_TAG}bool", _BOOL, list("tTfF"))


def read(text: str) -> object:
    """The data in `text`: dicts, lists, strings, numbers, booleans and None. Raises YamlError."""
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            nodes = _Nodes()
            nodes.measure(node)
            if nodes.repeated_keys:
                raise YamlError(*nodes.repeated_keys)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        raise YamlError(_located(e)) from None
    except yaml.YAMLError as e:  # a character that YAML does not allow
        raise YamlError(f"not YAML: {str(e).splitlines()[0]}") from None


def write(data: object) -> str:
    """YAML that `read` turns into `data` again: small parts on one line, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _check_events(text: str) -> None:
    """Refuse what would be too deep or too large before anything is built of it, and tags, which nothing here needs."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise YamlError(f"{_line(event)}: nested more than {MAX_DEPTH} levels deep; make it flatter")
        if count > 3 * MAX_VALUES:
            raise YamlError(f"{_line(event)}: more than {MAX_VALUES} values; make the file smaller")
        if tag := getattr(event, "tag", None):
            raise YamlError(f"{_line(event)}: the tag {tag} is not allowed; write the value itself")


class _Nodes:
    """A walk over a document's nodes, each once, that finds keys given twice and bounds what its aliases expand to."""

    def __init__(self) -> None:
        self.repeated_keys: list[str] = []
        self._measured: dict[int, tuple[int, int]] = {}  # id of a node -> values and levels in it, aliases expanded
        self._entered: set[int] = set()

    def measure(self, node: yaml.Node, depth: int = 0) -> tuple[int, int]:
        if id(node) not in self._measured:
            self._measured[id(node)] = self._enter(node, depth)
        values, levels = self._measured[id(node)]
        if values > MAX_VALUES:
            raise YamlError(f"{_line(node)}: its aliases expand to more than {MAX_VALUES} values; write fewer")
        if depth + levels > MAX_DEPTH + 1:
            raise YamlError(f"{_line(node)}: its aliases nest more than {MAX_DEPTH} levels deep; make it flatter")
        return values, levels

    def _enter(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        if id(node) in self._entered:
            raise YamlError(f"{_line(node)}: an alias points to what contains it; write the values out")
        if depth > MAX_DEPTH:
            raise YamlError(f"{_line(node)}: its aliases nest more than {MAX_DEPTH} levels deep; make it flatter")
        self._entered.add(id(node))
        self.repeated_keys += _repeated_keys(node)
        inner = [self.measure(child, depth + 1) for child in _children(node)]
        return 1 + sum(values for values, _ in inner), 1 + max((levels for _, levels in inner), default=0)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _repeated_keys(node: yaml.Node) -> Iterator[str]:
    first_lines: dict[tuple[str, str], str] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            continue
        identity = (key.tag, key.value)
        if identity in first_lines:
            yield f"{_line(key)}: {key.value[:64]} is given twice, first in {first_lines[identity]}; keep one of them"
        else:
            first_lines[identity] = _line(key)


def _line(place: yaml.Node | yaml.Event) -> str:
    return f"line {place.start_mark.line + 1}" if place.start_mark else "somewhere"


def _located(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}not YAML: {error.problem or error.context}"
