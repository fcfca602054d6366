"""A panel's template as Grafana's ClickHouse plugin takes it: each parameter becomes a macro or a variable.

Grafana pastes a variable's value into the statement's text, and its own quoting for SQL leaves backslashes alone, which
ClickHouse reads as escapes: `\\' OR 1=1` would break out of the quotes. Percent-encoding leaves nothing that could, so a
value travels encoded and ClickHouse decodes it. Several values come as one text, {a,b}, in which no value may have a
comma or a brace; `ALL` has no value in it.
"""

import re

PARAMETER = re.compile(r"\{(\w+):([\w()]+)\}")
TIMES = {
    "from_ns": "toUnixTimestamp64Nano($__fromTime_ms)",
    "to_ns": "toUnixTimestamp64Nano($__toTime_ms)",
    "step_ns": "toInt64($__interval_s * 1000000000)",
}
ALL = ","


def render(sql: str) -> str:
    return PARAMETER.sub(lambda found: _parameter(found[1], found[2]), sql)


def _parameter(name: str, kind: str) -> str:
    if name in TIMES:
        return TIMES[name]
    value = f"decodeURLComponent('${{{name}:percentencode}}')"
    return value if kind == "String" else f"extractAll({value}, '[^{{}},]+')"
