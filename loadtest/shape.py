"""Plain data against a msgspec type: every mismatch at once, in words for people.

`msgspec.convert` stops at the first mismatch and names it in a programmer's terms. This walk asks the same types for
the same limits (`msgspec.inspect`), so that nothing is told twice, and says of each mismatch where it is, what is there
and what to write instead. Where it finds nothing, `convert` finds nothing either.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from types import MappingProxyType

from msgspec import inspect
from msgspec.inspect import Field

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHOWN_LENGTH = 60


class Shape:
    """A type to hold data against. What stands under a key in `hidden` may be a secret and is never quoted; `must` says
    what the value of a key must be where its type does not know."""

    def __init__(
        self, kind: type, hidden: frozenset[str] = frozenset(), must: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._must = must
        self._kind = inspect.type_info(kind)
        self._hidden = hidden
        self._homes: dict[str, set[str]] = {}
        for path, field in keys(kind):
            self._homes.setdefault(field.encode_name, set()).add(path)

    def problems(self, data: object) -> Iterator[str]:
        """One line for each mismatch: `stages[1].arrivals.rate is -5; it must be above 0`."""
        return self._value(data, self._kind, "", shown=True)

    def _value(self, data: object, kind: inspect.Type, path: str, *, shown: bool) -> Iterator[str]:
        match kind:
            case inspect.Metadata():
                if isinstance(kind.type, inspect.StrType) and isinstance(data, str):
                    yield from _text(data, kind.type, path, shown, described(kind))
                else:
                    yield from self._value(data, kind.type, path, shown=shown)
            case inspect.UnionType():
                yield from self._union(data, kind, path, shown=shown)
            case inspect.StructType():
                yield from self._struct(data, kind, path, shown=shown)
            case inspect.ListType() if isinstance(data, list):
                yield from _length(len(data), kind, path)
                for i, item in enumerate(data):
                    yield from self._value(item, kind.item_type, f"{path}[{i}]", shown=shown)
            case inspect.DictType() if isinstance(data, dict):
                yield from self._mapping(data, kind, path, shown=shown)
            case inspect.FloatType() | inspect.IntType() if isinstance(data, int | float) and not isinstance(
                data, bool
            ):
                yield from _number(data, kind, path)
            case inspect.StrType() if isinstance(data, str):
                yield from _text(data, kind, path, shown, described(kind))
            case inspect.BoolType() if isinstance(data, bool):
                pass
            case inspect.LiteralType() if data in kind.values:
                pass
            case inspect.AnyType():
                yield from _json(data, path)
            case _:
                must = f"it must be {described(kind)}{_advice(data, kind)}"
                yield f"{path or 'the plan'} is {_quoted(data, shown)}; {must}"

    def _union(self, data: object, kind: inspect.UnionType, path: str, *, shown: bool) -> Iterator[str]:
        """`X | None`, structs told apart by their tag, or words beside a struct."""
        if data is None and kind.includes_none:
            return
        kinds = [k for k in kind.types if not isinstance(k, inspect.NoneType)]
        if len(kinds) == 2 and isinstance(kinds[0], inspect.LiteralType) and data not in kinds[0].values:
            if isinstance(data, dict):
                yield from self._value(data, kinds[1], path, shown=shown)
            else:
                yield f"{path} is {_quoted(data, shown)}; it must be {described(kind)}{_advice(data, kinds[0])}"
            return
        tagged = {str(k.tag): k for k in kinds if isinstance(k, inspect.StructType) and k.tag is not None}
        if not tagged:
            yield from self._value(data, kinds[0], path, shown=shown)
            return
        tag_field = next(iter(tagged.values())).tag_field or ""
        names = ", ".join(sorted(tagged))
        if not isinstance(data, dict):
            yield f"{path} is {_quoted(data, shown)}; it must be a mapping with a {tag_field}, one of {names}"
        elif tag_field not in data:
            yield f"{_joined(path, tag_field)} is missing; it must be one of {names}"
        elif (tag := str(data[tag_field])) not in tagged:
            must = f"it must be one of {names}{_meant(tag, list(tagged))}"
            yield f"{_joined(path, tag_field)} is {_quoted(data[tag_field], shown)}; {must}"
        else:
            yield from self._struct(data, tagged[tag], path, shown=shown)

    def _struct(self, data: object, kind: inspect.StructType, path: str, *, shown: bool) -> Iterator[str]:
        if not isinstance(data, dict):
            yield f"{path or 'the plan'} is {_quoted(data, shown)}; it must be {described(kind)}"
            return
        fields = {field.encode_name: field for field in kind.fields}
        for key in data:
            if key not in fields and (kind.tag is None or key != kind.tag_field):
                yield f"{_joined(path, key)} is unknown; {self._instead(key, path, list(fields))}"
        for key, field in fields.items():
            place = _joined(path, key)
            if key in data and key in self._must and not isinstance(data[key], str | None):
                yield f"{place} is {_quoted(data[key], shown and key not in self._hidden)}; it must be {self._must[key]}"
            elif key in data:
                yield from self._value(data[key], field.type, place, shown=shown and key not in self._hidden)
            elif field.required:
                yield f"{place} is missing; it must be {self._must.get(key, described(field.type))}"

    def _mapping(self, data: dict[object, object], kind: inspect.DictType, path: str, *, shown: bool) -> Iterator[str]:
        for key, value in data.items():
            place = _joined(path, key)
            if isinstance(key, str):
                yield from self._value(value, kind.value_type, place, shown=shown)
            else:
                yield f"{place} has {_quoted(key, True)} as its key; a key must be text: put it in quotes"

    def _instead(self, key: object, path: str, known: Sequence[str]) -> str:
        homes = self._homes.get(str(key), set()) - {re.sub(r"\[\d+\]", "[]", path)}
        if len(homes) == 1:
            return f"it belongs in {homes.pop() or 'the plan itself'}"
        return _meant(key, known).removeprefix("; ") or f"the keys here are {', '.join(known)}"


def keys(kind: type) -> Iterator[tuple[str, Field]]:
    """(where it stands, the key) for each key of a struct and the structs within: `stages[].arrivals`, rate."""
    yield from _keys(inspect.type_info(kind), "")


def _keys(kind: inspect.Type, path: str) -> Iterator[tuple[str, Field]]:
    match kind:
        case inspect.Metadata():
            yield from _keys(kind.type, path)
        case inspect.UnionType():
            for member in kind.types:
                yield from _keys(member, path)
        case inspect.ListType():
            yield from _keys(kind.item_type, f"{path}[]")
        case inspect.StructType():
            for field in kind.fields:
                yield path, field
                yield from _keys(field.type, _joined(path, field.encode_name))


def described(kind: inspect.Type) -> str:
    """What a value of this kind is, to follow "it must be"."""
    match kind:
        case inspect.Metadata():
            words = (kind.extra_json_schema or {}).get("description")
            return str(words) if words and isinstance(kind.type, inspect.StrType) else described(kind.type)
        case inspect.UnionType():
            kinds = [k for k in kind.types if not isinstance(k, inspect.NoneType)]
            if len(kinds) == 2 and isinstance(kinds[0], inspect.LiteralType):
                return f"{', '.join(map(str, kinds[0].values))}, or {described(kinds[1])}"
            return described(kinds[0])
        case inspect.FloatType() | inspect.IntType():
            name = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
            lower = _lower_bound(kind)
            return f"{name} {lower}" if lower else name
        case inspect.StrType():
            return "text"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, kind.values))}"
        case inspect.ListType():
            return "a list"
        case inspect.StructType():
            needed = [field.encode_name for field in kind.fields if field.required]
            return f"a mapping with {', '.join(needed)}" if needed else "a mapping"
        case _:
            return "a mapping"


def _number(data: int | float, kind: inspect.FloatType | inspect.IntType, path: str) -> Iterator[str]:
    if isinstance(data, float) and (not isfinite(data) or isinstance(kind, inspect.IntType)):
        yield f"{path} is {_quoted(data, True)}; it must be {described(kind)}"
    elif (kind.gt is not None and data <= kind.gt) or (kind.ge is not None and data < kind.ge):
        yield f"{path} is {_quoted(data, True)}; it must be {_lower_bound(kind)}"
    elif kind.le is not None and data > kind.le:
        yield f"{path} is {_quoted(data, True)}; it must be at most {kind.le:,}"
    elif abs(data) >= 2**63:
        yield f"{path} is {_quoted(data, True)}; it must be nearer to 0"


def _lower_bound(kind: inspect.FloatType | inspect.IntType) -> str:
    if kind.gt is not None:
        return f"above {kind.gt:,}"
    return "" if kind.ge is None else f"at least {kind.ge:,}"


def _text(data: str, kind: inspect.StrType, path: str, shown: bool, description: str) -> Iterator[str]:
    if kind.pattern is not None and not re.fullmatch(kind.pattern, data):
        yield f"{path} is {_quoted(data, shown)}; it must be {description}"
    elif kind.max_length is not None and len(data) > kind.max_length:
        yield f"{path} has {len(data)} characters; it must have at most {kind.max_length}"
    elif kind.min_length is not None and len(data) < kind.min_length:
        yield f"{path} is empty; it must be {description}"
    elif not data.isprintable():
        yield f"{path} has a line break or another character that does not print; it must be one line of text"


def _length(length: int, kind: inspect.ListType, path: str) -> Iterator[str]:
    if kind.min_length is not None and length < kind.min_length:
        yield f"{path} has {length} entries; it must have at least {kind.min_length}"
    if kind.max_length is not None and length > kind.max_length:
        yield f"{path} has {length} entries; it must have at most {kind.max_length}"


def _json(data: object, path: str) -> Iterator[str]:
    """Anything that JSON can say."""
    match data:
        case dict():
            for key, value in data.items():
                if not isinstance(key, str):
                    yield f"{path} has {_quoted(key, True)} as a key; a key must be text: put it in quotes"
                yield from _json(value, _joined(path, key))
        case list():
            for i, item in enumerate(data):
                yield from _json(item, f"{path}[{i}]")
        case float() if not isfinite(data):
            yield f"{path} is {_quoted(data, True)}; it must be a number that JSON has"


def _joined(path: str, key: object) -> str:
    if isinstance(key, str) and _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{_quoted(key, True)}]"


def _quoted(data: object, shown: bool) -> str:
    match data:
        case None:
            return "empty"
        case bool():
            return "true" if data else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _ if not shown:
            return "not shown here"
        case str() if len(data) > _SHOWN_LENGTH:
            return f"{data[:_SHOWN_LENGTH]!r}..."
        case _:
            return repr(data)


def _advice(data: object, kind: inspect.Type) -> str:
    """A word more where YAML is the likely culprit, or a near miss."""
    if isinstance(kind, inspect.StrType | inspect.Metadata) and isinstance(data, bool | int | float):
        return ": put it in quotes"
    return _meant(data, [str(value) for value in kind.values]) if isinstance(kind, inspect.LiteralType) else ""


def _meant(data: object, known: Sequence[str]) -> str:
    close = get_close_matches(str(data).lower(), known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
