"""What Grafana and its ClickHouse plugin make of a statement before the store sees it.

Variables as @grafana/scenes formats them (formatRegistry.ts: percentencode is encodeURIComponent, and !'()* as well), macros
as the plugin expands them (pkg/macros/macros.go).
"""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

ALL = ","


def expand(
    sql: str, variables: Mapping[str, str | Sequence[str]], from_ns: int, to_ns: int, interval_s: int = 1
) -> str:
    def value(found: re.Match[str]) -> str:
        given = variables[found[1]]
        return quote(given if isinstance(given, str) else "{" + ",".join(given) + "}", safe="-_.~")

    macros = {
        "$__fromTime_ms": f"fromUnixTimestamp64Milli({from_ns // 1_000_000})",
        "$__toTime_ms": f"fromUnixTimestamp64Milli({to_ns // 1_000_000})",
        "$__interval_s": str(max(interval_s, 1)),
    }
    sql = re.sub(r"\$\{(\w+):percentencode\}", value, sql)
    for macro, text in macros.items():
        sql = sql.replace(macro, text)
    assert "$" not in sql, sql[max(sql.index("$") - 50, 0) :][:120]
    return sql
