"""summary.json as a table: one row a target and stage, one column a figure, nested names joined by dots."""

import csv
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any


def csv_of(summary: Mapping[str, Any]) -> str:
    """RFC 4180, with a header line. A figure that is not known is empty; one that is infinite is `inf`."""
    rows = [
        {"run": summary["run"], "target": target, "stage": stage, **dict(_flat(figures))}
        for target, of_target in summary["targets"].items()
        for stage, figures in of_target["stages"].items()
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = StringIO()
    writer = csv.DictWriter(out, names or ["run", "target", "stage"], restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    infinite = figures.get("infinite", ())
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "infinite":
            yield prefix + name, "inf" if name in infinite else value
