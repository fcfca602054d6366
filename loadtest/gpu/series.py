"""What a source's series are to us: a name of names.py, a scale, and the attributes that every sample of it is stored with."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite

from msgspec import Struct

from loadtest.gpu.exposition import Exposition
from loadtest.gpu.names import IDS, RULES, SAMPLED, Rule, blank

EVERY_DEVICE = "*"
_SKIPPED_TYPES = ("histogram", "summary", "gaugehistogram")


class Series(Struct, frozen=True, eq=False):
    """One series in the store. `eq=False`: it is itself and no other, and hashes fast."""

    name: str
    unit: str
    table: str  # gauge or sum
    attributes: Mapping[str, str]
    scale: float = 1.0
    bit: int = 0
    hardware: bool = False

    def value(self, raw: float) -> float | None:
        """None: the source says that it has none."""
        if not isfinite(raw) or (self.hardware and blank(raw)):
            return None
        return float(bool(int(raw) & self.bit)) if self.bit else raw * self.scale


class Reader:
    """Reads the texts of one source. `targets`: target -> the devices of this source that serve it, by index or id."""

    def __init__(
        self,
        kind: str,
        common: Mapping[str, str],
        targets: Mapping[str, Sequence[str]],
        renamed: Mapping[str, str],
    ) -> None:
        self._kinds = tuple(RULES) if kind == "auto" else (kind,)
        self._keeps_others = kind in ("auto", "prometheus")
        self._common = common
        self._targets = targets
        self._own = tuple(Rule(metric=metric, name=name) for metric, name in renamed.items())
        self._own_series: dict[tuple[str, ...], Series] = {}
        self._taken: dict[tuple[str, ...], int] = {}
        self._overruled = False
        self._exposition: Exposition[tuple[Series, ...]] = Exposition(self._describe)

    def read(self, text: str) -> list[tuple[Series, float]]:
        """The samples of a text. Raises exposition.Malformed."""
        found = self._exposition.read(text)
        if self._overruled:  # by a better one further down, which happens in a source's first text
            self._overruled = False
            self._exposition = Exposition(self._describe)
            found = self._exposition.read(text)
        values = ((series, series.value(raw)) for several, raw in found for series in several)
        return [(series, value) for series, value in values if value is not None]

    def take(self, values: Iterable[tuple[str, Mapping[str, str], float]]) -> list[tuple[Series, float]]:
        """Values that have our names already, with the labels of their device."""
        out = []
        for name, labels, value in values:
            key = (name, *labels.values())
            if key not in self._own_series:
                found = self._series(Rule(metric=name, name=name), 0, labels, "gauge")
                assert found is not None  # nothing goes before rank 0
                self._own_series[key] = found
            out.append((self._own_series[key], value))
        return out

    def _describe(self, metric: str, labels: Mapping[str, str], type_: str) -> tuple[Series, ...] | None:
        found = [self._series(rule, rank, labels, type_) for rank, rule in self._rules(metric, labels)]
        if not found and self._keeps_others and type_ not in _SKIPPED_TYPES:
            found = [self._series(Rule(metric=metric, name=metric), 0, labels, type_)]
        return tuple(series for series in found if series) or None

    def _rules(self, metric: str, labels: Mapping[str, str]) -> Iterator[tuple[int, Rule]]:
        """The plan's own names first, then those of the kind, with their rank."""
        plain = metric.lower().removeprefix("amd_")  # AMD's exporter can be told to put that before each name
        all_rules = [self._own, *(RULES.get(kind, ()) for kind in self._kinds)]
        rules = [rule for some in all_rules for rule in some]
        for rank, rule in enumerate(rules):
            named = rule.metric == metric or (rule in RULES["amd"] and rule.metric == plain)
            if named and all(labels.get(name) == value for name, value in rule.where.items()):
                yield rank, rule

    def _series(self, rule: Rule, rank: int, labels: Mapping[str, str], type_: str) -> Series | None:
        """None: this source has it by another name already, from a rule that goes before."""
        known = SAMPLED.get(rule.name)
        attributes = {**self._common, "loadtest.source_metric": rule.metric, **_identity(labels), **rule.attributes}
        rest = {name: value for name, value in labels.items() if value and name not in rule.where}
        for label in _used(labels):
            rest.pop(label, None)
        attributes |= rest
        if targets := self._served(attributes):
            attributes["loadtest.target"] = ",".join(targets)
        what = (rule.name, *(f"{k}={v}" for k, v in sorted(attributes.items()) if k != "loadtest.source_metric"))
        best = self._taken.setdefault(what, rank)
        if best < rank:
            return None
        if rank < best:
            self._taken[what] = rank
            self._overruled = True
        table = known.table if known else "sum" if type_ == "counter" else "gauge"
        hardware = rule.name.startswith(("hw.", "gpu."))
        return Series(rule.name, known.unit if known else "", table, attributes, rule.scale, rule.bit, hardware)

    def _served(self, attributes: Mapping[str, str]) -> list[str]:
        ids = {attributes[key] for key in ("gpu.index", "hw.id", "engine.id") if key in attributes}
        return [
            target
            for target, devices in self._targets.items()
            if EVERY_DEVICE in devices or not ids.isdisjoint(devices)
        ]


def _used(labels: Mapping[str, str]) -> list[str]:
    return [label for names in IDS.values() if (label := next((n for n in names if labels.get(n)), None))]


def _identity(labels: Mapping[str, str]) -> dict[str, str]:
    """Of GPUs and engines. Part of a GPU (MIG, or AMD's partitions) is a device of its own."""
    out = {
        key: labels[label] for key, names in IDS.items() if (label := next((n for n in names if labels.get(n)), None))
    }
    if "gpu.index" in out or "hw.id" in out:
        out["hw.type"] = "gpu"
        out.setdefault("hw.id", out.get("gpu.index", ""))
        part = labels.get("GPU_I_ID") or labels.get("gpu_partition_id", "").replace("NA", "").lstrip("0")
        if part:
            out["hw.id"] += f"/{part}"
    return out
