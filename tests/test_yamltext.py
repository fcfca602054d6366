"""YAML without surprises: what is read, what is refused, what comes back."""

from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.yamltext import MAX_DEPTH, YamlError, read, write


def refused(text: str) -> str:
    with pytest.raises(YamlError) as error:
        read(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1_000", -1000),
        ("1e3", 1000.0),
        ("-.5e-1", -0.05),
        ("1.", 1.0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("2026-10-01", "2026-10-01"),
        ("9" * 40, "9" * 40),
        ("=", "="),
    ],
)
def test_a_value_means_what_people_mean(text: str, value: object) -> None:
    assert read(f"a: {text}") == {"a": value}
    assert type(read(f"[{text}]")[0]) is type(value)  # type: ignore[index]


def test_merge_keys_give_way_to_keys_of_their_own() -> None:
    assert read("a: &x {b: 1, c: 1}\nd: {<<: *x, c: 2}") == {"a": {"b": 1, "c": 1}, "d": {"b": 1, "c": 2}}


def test_every_key_given_twice_is_named() -> None:
    assert refused("a: 1\nb: {c: 1, c: 2}\na: 3") == (
        "line 3: a is given twice, first in line 1; keep one of them\n"
        "line 2: c is given twice, first in line 2; keep one of them"
    )


def test_tags_are_refused() -> None:
    assert refused("a: !!python/name:os.system x").startswith("line 1: the tag tag:yaml.org,2002:python/name:os.system")
    assert refused("a: !!int 5").endswith("is not allowed; write the value itself")


def test_a_billion_laughs_are_refused() -> None:
    laughs = "a: &a [" + ",".join("1" * 10) + "]\n"
    for name, last in ("ba", "cb", "dc", "ed", "fe", "gf", "hg", "ih"):
        laughs += f"{name}: &{name} [" + ",".join([f"*{last}"] * 10) + "]\n"
    assert "its aliases expand to more than 20000 values; write fewer" in refused(laughs)
    merged = "a: &a {x: 1}\n"
    for name, last in zip("bcdefghijklmnop", "abcdefghijklmno", strict=True):
        merged += f"{name}: &{name} {{<<: [*{last}, *{last}]}}\n"
    assert "its aliases expand to more than 20000 values" in refused(merged)


def test_aliases_that_contain_themselves_are_refused() -> None:
    assert refused("&a [*a]") == "line 1: an alias points to what contains it; write the values out"
    assert "contains it" in refused("a: &a {b: {c: *a}}")


def test_depth_is_bounded_with_and_without_aliases_and_at_once() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    start = perf_counter()
    assert refused("[" * 200_000) == "line 1: nested more than 40 levels deep; make it flatter"
    assert refused("a: " + "{a: " * 60_000).endswith("make it flatter")
    half = MAX_DEPTH // 2 + 1
    assert refused(f"a: &a {'[' * half}1{']' * half}\nb: {'[' * half}*a{']' * half}").endswith("make it flatter")
    assert perf_counter() - start < 5


def test_a_file_of_many_values_is_refused() -> None:
    assert refused("[" + "1," * 70_000 + "]").startswith("line 1: more than 20000 values")


def test_what_is_no_yaml_is_located() -> None:
    assert refused("a: 1\n b: 2").startswith("line 2, column 3: not YAML: mapping values are not allowed")
    assert refused("a: *nope") == "line 1, column 4: not YAML: found undefined alias"
    assert refused("a: 1\n---\nb: 2") == "line 2, column 1: not YAML: but found another document"
    assert refused("? [a]\n: b") == "line 1, column 3: not YAML: found unhashable key"
    assert refused("a: \x07").startswith("not YAML: unacceptable character")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
odd = st.sampled_from(
    ["1e3", "off", "010", "1:30", "true", "~", "=", "<<", "2026-01-01", ".5", "- a", "a: b", " x ", ""]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | odd, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150)
@given(values)
def test_what_is_written_reads_the_same(value: object) -> None:
    back = read(write(value))
    assert back == value
    assert repr(back) == repr(value)  # 1 is not 1.0 and not true
