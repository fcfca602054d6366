"""The alert rules, asked as they would have been at a moment in the past: on a store in which it has been played already."""

from collections.abc import Iterator

from dashboards.alerts import ALERTS, Alert
from loadtest.store import Store

NOW = "now64(9)"
EVERY_NS = 15_000_000_000


def firing(store: Store, alert: Alert, at_ns: int) -> set[str]:
    """The labels of what the rule's query found above its limit."""
    rows = store.query(alert.sql.replace(NOW, f"fromUnixTimestamp64Nano(toInt64({at_ns}))"))
    above = [row for row in rows if row["value"] is not None and row["value"] > alert.above]
    return {", ".join(str(text) for name, text in row.items() if name != "value") for row in above}


def told(store: Store, began_ns: int, for_ns: int) -> Iterator[str]:
    """When which rule fired and cleared, in minutes since `began_ns`."""
    before: dict[str, set[str]] = {}
    for at_ns in range(began_ns, began_ns + for_ns, EVERY_NS):
        minutes, seconds = divmod((at_ns - began_ns) // 1_000_000_000, 60)
        for alert in ALERTS:
            now = firing(store, alert, at_ns)
            for labels in sorted(now ^ before.get(alert.name, set())):
                yield f"{minutes:2}:{seconds:02} {alert.name} {'fires' if labels in now else 'clears'}: {labels}"
            before[alert.name] = now
