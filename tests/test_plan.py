"""Plans: what is read, what is refused and in which words, and that a plan comes back as it was written."""

import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import made_tokenizers as made
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.inspect import Field

from loadtest import dialects, plan, shape, tokens, yamltext
from loadtest.arrivals import Closed, Constant, Gamma, Poisson, Ramp
from loadtest.errors import PlanError
from loadtest.prompts import Dataset, SharedPrefix, Synthetic, Tokens
from loadtest.types import Fleet, Plan, Price, Slo, Stage, Target, Timeouts

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(ROOT.glob("examples/*.yaml"))
PLAN_MD = (ROOT / "docs/plan.md").read_text(encoding="utf-8")

SMALL = """
name: small
targets:
  - {name: local, url: "http://127.0.0.1:8000/v1", dialect: openai-chat, model: m}
prompts: {kind: synthetic, input_tokens: 100}
stages:
  - {name: load, arrivals: {kind: poisson, rate: 5}, duration_s: 30}
"""


def problems_of(text: str, base_dir: Path | str = "/plans") -> list[str]:
    with pytest.raises(PlanError) as error:
        plan.parse(text, base_dir)
    return str(error.value).split("\n")


# What is read


def test_a_locust_file_or_a_dataset_in_place_of_a_plan_is_told_as_one(tmp_path: Path) -> None:
    for name, told in (
        ("lf.py", "run by --locustfile .*lf.py"),
        ("talk.jsonl", "kind: dataset, path: .*talk.jsonl"),
    ):
        (tmp_path / name).write_text("{}")
        with pytest.raises(PlanError, match=told):
            plan.load(tmp_path / name)


def test_the_small_plan_is_what_it_says() -> None:
    assert plan.parse(SMALL, "/plans") == Plan(
        name="small",
        targets=[Target(name="local", url="http://127.0.0.1:8000/v1", dialect="openai-chat", model="m")],
        prompts=Synthetic(input_tokens=Tokens(mean=100)),
        stages=[Stage(name="load", arrivals=Poisson(rate=5), duration_s=30)],
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_validates(path: Path) -> None:
    example = plan.load(path)
    assert plan.parse(plan.dump(example), path.parent) == example
    jsonschema.validate(yamltext.read(path.read_text(encoding="utf-8")), plan.json_schema())


def test_the_example_of_the_docs_validates() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PLAN_MD, re.S)
    assert plan.parse(example, "/").name == "smallest"


def test_every_arrival_pattern_can_be_written() -> None:
    text = """
name: all
targets: [{name: t, url: "http://127.0.0.1", dialect: http}]
prompts: {kind: synthetic, input_tokens: {mean: 20, stdev: 5}, output_tokens: 7}
stages:
  - {name: a, arrivals: {kind: constant, rate: 1}, requests: 5}
  - {name: b, arrivals: {kind: gamma, rate: 2, burstiness: 0.5}, duration_s: 1}
  - {name: c, arrivals: {kind: ramp, from: 0, to: 9}, duration_s: 1.5}
  - {name: d, arrivals: {kind: closed}, concurrency: 3, requests: 9, ramp_up_s: 0}
"""
    read = plan.parse(text, "/")
    assert [stage.arrivals for stage in read.stages] == [
        Constant(rate=1),
        Gamma(rate=2, burstiness=0.5),
        Ramp(from_=0, to=9),
        Closed(),
    ]
    assert read.prompts == Synthetic(input_tokens=Tokens(mean=20, stdev=5), output_tokens=Tokens(mean=7))


def test_relative_paths_are_taken_from_the_plans_directory() -> None:
    text = SMALL.replace("{kind: synthetic, input_tokens: 100}", "{kind: dataset, path: data/p.jsonl}").replace(
        "model: m", "key: file:../key, ca_file: ca.pem"
    )
    read = plan.parse(text + "fleet: {listeners: hear.py}\nstore: data", "/srv/plans")
    assert read.prompts == Dataset(path="/srv/plans/data/p.jsonl")
    assert (read.targets[0].key, read.targets[0].ca_file) == ("file:/srv/key", "/srv/plans/ca.pem")
    assert (read.fleet.listeners, read.store) == ("/srv/plans/hear.py", "/srv/plans/data")
    assert plan.parse(SMALL + "store: clickhouse://u@db:8123/x", "/p").store == "clickhouse://u@db:8123/x"
    assert plan.parse(plan.dump(read), "/elsewhere") == read


def test_anchors_save_writing_and_off_is_a_word() -> None:
    text = """
name: two
targets:
  - &one {name: one, url: "http://127.0.0.1/v1", dialect: openai-chat, body: {ignore_eos: true}}
  - {<<: *one, name: two}
prompts: {kind: synthetic, input_tokens: 1e2}
stages: [{name: s, arrivals: {kind: constant, rate: 1}, requests: 1}]
trace: off
"""
    read = plan.parse(text, "/")
    assert [(target.name, target.body["ignore_eos"]) for target in read.targets] == [("one", True), ("two", True)]
    assert read.trace == "off"
    assert "&" not in plan.dump(read)


def test_tokenizers_are_paths_or_names_on_the_hub(tmp_path: Path) -> None:
    text = SMALL.replace("model: m", "tokenizer: ../other/tokenizer.json") + "tokenizer: ./mine"
    read = plan.parse(text, "/srv/plans")
    assert (read.tokenizer, read.targets[0].tokenizer) == ("/srv/plans/mine", "/srv/other/tokenizer.json")
    assert plan.parse(plan.dump(read), "/elsewhere") == read
    assert plan.parse(SMALL + "tokenizer: meta-llama/Llama-3.1-8B", "/srv").tokenizer == "meta-llama/Llama-3.1-8B"
    (tmp_path / "models/tiny").mkdir(parents=True)
    saved = made.save(made.byte_level(257), tmp_path / "models/tiny")
    path = tmp_path / "plan.yaml"
    for written in ("models/tiny", "./models/tiny", "models/tiny/tokenizer.json", saved):
        path.write_text(SMALL + f"tokenizer: {written}")
        loaded = plan.load(path)
        assert loaded.tokenizer in (str(saved), str(saved.parent)), "what is there is no name on the hub"
        assert tokens.located(loaded).tokenizer == str(saved)


# What is refused: files


def test_a_plan_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(PlanError) as error:
            plan.load(path)
        return str(error.value)

    assert refused(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml does not exist; name a plan file"
    assert refused(tmp_path) == f"{tmp_path} cannot be read: Is a directory"
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: caf\xe9")
    assert refused(latin) == f"{latin} is not UTF-8 (byte 9); save it as UTF-8"
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (plan.MAX_BYTES + 1))
    assert refused(large) == f"{large} is larger than 262144 bytes; put long prompts into a dataset"


def test_the_files_that_a_plan_names_are_checked_together(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    (tmp_path / "ca.pem").write_text("no certificate")
    (tmp_path / "hear.py").write_text("def broken(:\n")
    (tmp_path / "tokenizer.json").write_text("{}")
    path = tmp_path / "plan.yaml"
    text = SMALL.replace("{kind: synthetic, input_tokens: 100}", "{kind: dataset, path: prompts.jsonl}")
    text = text.replace("model: m", "ca_file: ca.pem, tokenizer: ./none")
    path.write_text(text + "fleet: {listeners: hear.py}\ntokenizer: tokenizer.json")
    with pytest.raises(PlanError) as error:
        plan.load(path)
    heading, first, model, no_model, second, third = str(error.value).split("\n  ")
    assert heading == f"{path} has 5 problems:"
    assert model.startswith(
        f"tokenizer is '{tmp_path}/tokenizer.json': {tmp_path}/tokenizer.json is not a tokenizer that can be read: "
    )
    assert no_model == (
        f"targets[0].tokenizer is '{tmp_path}/none': {tmp_path}/none does not exist; "
        "give the path of a tokenizer.json, or of the directory that holds it"
    )
    assert first.startswith(
        f"prompts.path: {tmp_path}/prompts.jsonl line 2: needs one of `prompt`, `messages` and `conversation`; it must"
    )
    assert second == (
        f"targets[0].ca_file is '{tmp_path}/ca.pem', which cannot be used: it holds no certificate in PEM form"
    )
    assert third.startswith(f"fleet.listeners is '{tmp_path}/hear.py', which is not Python: ")
    for name in ("prompts.jsonl", "ca.pem", "hear.py", "tokenizer.json"):
        (tmp_path / name).unlink()
    with pytest.raises(PlanError) as error:
        plan.load(path)
    missing = [line.count("No such file") + line.count("does not exist") for line in str(error.value).split("\n")]
    assert missing == [0, 1, 1, 1, 1, 1]


def test_what_is_wrong_in_sound_parts_is_told_beside_what_is_unsound(tmp_path: Path) -> None:
    text = """
name: waves
targets:
  - {name: a, url: "ftp://x/v1", dialect: openai_chat}
  - {name: b, url: 5, dialect: http}
  - {name: c, url: "http://127.0.0.1/v1"}
prompts: {kind: synthetic, input_tokens: 100}
stages:
  - {name: s, arrivals: {kind: closed}, duration_s: 1}
  - {name: t, arrivals: {kind: poisson, rate: -5}, duration_s: 30}
slos:
  - {metric: ttft_ms, limit: 5, target: whoever}
"""
    expected = [
        "targets[1].url is not shown here; it must be text: put it in quotes",
        "targets[2].dialect is missing; it must be one of http, openai-chat, openai-completions",
        "stages[1].arrivals.rate is -5; it must be above 0",
        "targets[0].dialect is 'openai_chat'; it must be one of http, openai-chat, openai-completions; "
        "did you mean openai-chat?",
        "stages[0].concurrency is missing; closed load needs the number of requests to keep in flight",
        "slos[0].stat is missing; ttft_ms has a value for each request: write p50, p99, p99.9 or mean",
    ]
    assert problems_of(text) == expected
    path = tmp_path / "waves.yaml"
    path.write_text(text)
    with pytest.raises(PlanError) as error:
        plan.load(path)
    assert str(error.value).split("\n  ") == [
        f"{path} has 6 problems; more is checked once these are mended:",
        *expected,
    ]


def test_files_are_looked_at_beside_what_does_not_agree(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(SMALL.replace("poisson", "ramp").replace("rate: 5", "from: 0, to: 0") + "tokenizer: ./none")
    with pytest.raises(PlanError) as error:
        plan.load(path)
    heading, ramp, tokenizer = str(error.value).split("\n  ")
    assert heading == f"{path} has 2 problems:"
    assert ramp == "stages[0].arrivals.to is 0, as is from; one of them must be above 0"
    assert tokenizer.startswith("tokenizer is ")


def test_a_single_problem_stands_behind_the_file(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(SMALL.replace("rate: 5", "rate: 0"))
    with pytest.raises(PlanError) as error:
        plan.load(path)
    assert str(error.value) == (
        f"{path}: stages[0].arrivals.rate is 0; it must be above 0; more is checked once this is mended"
    )


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert plan.load(path) == plan.parse(SMALL, tmp_path)


# What is refused: shape


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("rate: 5", "rate: -5", "stages[0].arrivals.rate is -5; it must be above 0"),
        ("rate: 5", "rate: .nan", "stages[0].arrivals.rate is nan; it must be a number above 0"),
        ("rate: 5", "rate: 1e400", "stages[0].arrivals.rate is inf; it must be a number above 0"),
        ("rate: 5", "rate: 1e7", "stages[0].arrivals.rate is 10000000.0; it must be at most 1,000,000"),
        ("rate: 5", "rate: fast", "stages[0].arrivals.rate is 'fast'; it must be a number above 0"),
        ("rate: 5", "rate: true", "stages[0].arrivals.rate is true; it must be a number above 0"),
        ("rate: 5", "rate: ", "stages[0].arrivals.rate is empty; it must be a number above 0"),
        ("rate: 5", "rte: 5", "stages[0].arrivals.rte is unknown; did you mean rate?"),
        ("rate: 5", "rate: 5, duration_s: 3", "stages[0].arrivals.duration_s is unknown; it belongs in stages[]"),
        (
            "kind: poisson",
            "kind: poison",
            "stages[0].arrivals.kind is 'poison'; it must be one of closed, constant, gamma, poisson, ramp; "
            "did you mean poisson?",
        ),
        (
            "kind: poisson, ",
            "",
            "stages[0].arrivals.kind is missing; it must be one of closed, constant, gamma, poisson, ramp",
        ),
        (
            "{kind: poisson, rate: 5}",
            "poisson",
            "stages[0].arrivals is 'poisson'; it must be a mapping with a kind, one of closed, constant, gamma, poisson, "
            "ramp",
        ),
        (
            "kind: poisson",
            "kind: [poisson]",
            "stages[0].arrivals.kind is a list; it must be one of closed, constant, gamma, poisson, ramp; "
            "did you mean poisson?",
        ),
        (
            "name: load, ",
            "",
            "stages[0].name is missing; it must be 1 to 64 letters, digits, dots, dashes or underscores",
        ),
        ("name: load", "name: ../x", "stages[0].name is '../x'; it must be 1 to 64 letters, digits, dots, dashes or"),
        ("name: load", "name: ''", "stages[0].name is ''; it must be 1 to 64 letters"),
        ("name: load", f"name: {'x' * 65}", f"stages[0].name is '{'x' * 60}'...; it must be 1 to 64 letters"),
        ("name: load", "name: 5", "stages[0].name is 5; it must be text: put it in quotes"),
        ("duration_s: 30", "requests: 1.5", "stages[0].requests is 1.5; it must be a whole number at least 1"),
        ("duration_s: 30", "duration_s: 0", "stages[0].duration_s is 0; it must be above 0"),
        ("duration_s: 30", "duration_s: 1e9", "stages[0].duration_s is 1000000000.0; it must be at most 2,592,000"),
        ("duration_s: 30", "duration_s: 30, warmup: yes", "stages[0].warmup is 'yes'; it must be true or false"),
        ("input_tokens: 100", "input_tokens: 0", "prompts.input_tokens.mean is 0; it must be at least 1"),
        ("input_tokens: 100", "input_tokens: {stdev: 5}", "prompts.input_tokens.mean is missing; it must be a number"),
        ("input_tokens: 100", "input_tokens: {mean: 5, stdev: -1}", "prompts.input_tokens.stdev is -1; it must be at"),
        ("input_tokens: 100", "input_tokens: many", "prompts.input_tokens is 'many'; it must be a mapping with mean"),
        (
            "input_tokens: 100",
            "input_tokens: 100, cache: defeet",
            "prompts.cache is 'defeet'; it must be defeat, or a mapping with shared_prefix_tokens; did you mean defeat?",
        ),
        (
            "input_tokens: 100",
            "input_tokens: 9, cache: {shared: 1}",
            "prompts.cache.shared is unknown; the keys here are",
        ),
        (
            "input_tokens: 100",
            "input_tokens: 9, cache: {shared_prefix_tokens: 0}",
            "prompts.cache.shared_prefix_tokens is 0; it must be at least 1",
        ),
        (
            "model: m",
            "tokenizer: ''",
            "targets[0].tokenizer is empty; it must be the path of a tokenizer.json or of its directory, or a name on",
        ),
        ("model: m", "model: 1.5", "targets[0].model is 1.5; it must be text: put it in quotes"),
        ("model: m", 'model: "a\\nb"', "targets[0].model has a line break or another character that does not print"),
        ("model: m", "headers: [a]", "targets[0].headers is a list; it must be a mapping"),
        ("model: m", "headers: {a: 5}", "targets[0].headers.a is not shown here; it must be text: put it in quotes"),
        ("model: m", "headers: {5: a}", "targets[0].headers[5] has 5 as its key; a key must be text: put it in quotes"),
        ("model: m", "body: {a: [.nan]}", "targets[0].body.a[0] is nan; it must be a number that JSON has"),
        ("model: m", "body: {a: {5: 1}}", "targets[0].body.a has 5 as a key; a key must be text: put it in quotes"),
        ("model: m", "timeouts: {total_s: -1}", "targets[0].timeouts.total_s is -1; it must be above 0"),
        ("model: m", "expect_status: 99", "targets[0].expect_status is 99; it must be at least 200"),
        ("model: m", "price: {input_per_million: 1}", "targets[0].price.output_per_million is missing; it must be a"),
        ("name: small", "nam: small", "nam is unknown; did you mean name?"),
        (
            "name: small",
            "name: small\nbudget: {}",
            "budget is unknown; the keys here are name, targets, prompts, stages, seed",
        ),
        ("rate: 5", "rate: 5, seed: 5", "stages[0].arrivals.seed is unknown; it belongs in the plan itself"),
        (
            "model: m",
            "timeouts: {name: m}",
            "targets[0].timeouts.name is unknown; the keys here are connect_s, first_byte_s",
        ),
        ("name: small", "name: small\nseed: -1", "seed is -1; it must be at least 0"),
        ("name: small", "name: small\ntrace: on", "trace is 'on'; it must be one of off, sampled, unsampled"),
        ("name: small", "name: small\nfleet: {workers: 0}", "fleet.workers is 0; it must be at least 1"),
        ("name: small", "name: small\nslos: [5]", "slos[0] is 5; it must be a mapping with metric, limit"),
        ("name: small", "name: small\nslos: {}", "slos is a mapping; it must be a list"),
        ("name: small", "name: small\nname: again", "line 3: name is given twice, first in line 2; keep one of them"),
    ],
)
def test_a_mistake_is_named_with_what_to_write_instead(old: str, new: str, problem: str) -> None:
    assert old in SMALL
    assert any(line.startswith(problem) for line in problems_of(SMALL.replace(old, new, 1))), problems_of(
        SMALL.replace(old, new, 1)
    )


def test_what_is_no_mapping_is_said_to_be_none() -> None:
    assert problems_of("") == ["the plan is empty; it must be a mapping with name, targets, prompts, stages"]
    assert problems_of("[1]") == ["the plan is a list; it must be a mapping with name, targets, prompts, stages"]
    (problem,) = problems_of("name: [}")
    assert problem.startswith("line 1, column 8: not YAML: ")


def test_empty_lists_are_refused() -> None:
    text = "name: x\ntargets: []\nprompts: {kind: synthetic, input_tokens: 5}\nstages: []"
    assert problems_of(text) == [
        "targets has 0 entries; it must have at least 1",
        "stages has 0 entries; it must have at least 1",
    ]


def test_all_mistakes_are_reported_together() -> None:
    text = SMALL.replace("rate: 5", "rate: -5").replace("model: m", "modl: m").replace("duration_s", "duration")
    assert problems_of(text) == [
        "targets[0].modl is unknown; did you mean model?",
        "stages[0].duration is unknown; did you mean duration_s?",
        "stages[0].arrivals.rate is -5; it must be above 0",
    ]


# Secrets


@pytest.mark.parametrize(
    "target",
    [
        "key: sk-abcdef-SECRET",
        "key: 'env:sk-SECRET'",
        "key: [SECRET]",
        "headers: {Authorization: Bearer SECRET}",
        "headers: {authorization: SECRET}",
        "headers: {X-Api-Key: SECRET}",
        "headers: {api-key: 'SECRET{key}'}",
        "headers: {x-other: Bearer SECRET}",
        "headers: {x-goog-api-key: SECRET}",
        "headers: {cookie: session=SECRET}",
        "headers: {x-api-key: [SECRET]}",
        "body: {api_key: SECRET}",
        "body: {deep: [{access_token: SECRET}]}",
        "body: SECRET",
    ],
)
def test_a_secret_in_a_target_is_refused_and_not_repeated(target: str) -> None:
    problems = problems_of(SMALL.replace("model: m", target))
    assert "SECRET" not in "\n".join(problems)
    assert problems[0].startswith("targets[0].")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:SECRET@host/v1",
        "https://SECRET@host/v1",
        "https://user:SECRET@host:99999/v1",
        "https://user:SECRET@[host/v1",
        "ftp://user:SECRET@host/v1",
        "https://host/v1?key=SECRET",
        "https://host/v1?a=1&api_key=SECRET",
        "https://host/v1?access_token=SECRET",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    (problem,) = problems_of(SMALL.replace("http://127.0.0.1:8000/v1", url))
    assert "SECRET" not in problem
    assert problem.startswith("targets[0].url holds a ")
    assert "key: env:NAME or file:PATH" in problem


def test_a_password_in_the_store_is_refused_and_not_repeated() -> None:
    for store in ("clickhouse://u:SECRET@db/x", "clickhouses://u@db/x?password=SECRET", "http://db?password=SECRET"):
        (problem,) = problems_of(f"{SMALL}store: {store}")
        assert problem == "store holds a password; take it out and write ?password=file:PATH, or set LOADTEST_STORE"
    assert plan.parse(f"{SMALL}store: clickhouse://u@db/x?password=file:/run/pw", "/").store
    (problem,) = problems_of(f"{SMALL}store: postgres://db/x")
    assert problem == "store must be a directory or clickhouse://user@host:port/database (clickhouses:// over TLS)"


def test_keys_by_reference_are_welcome() -> None:
    for headers in ('{Authorization: "Bearer {key}"}', '{x-api-key: "{key}"}', '{api-key: "{key}", x-team: load}'):
        assert plan.parse(SMALL.replace("model: m", f"key: env:K, headers: {headers}"), "/").targets[0].key == "env:K"
    (problem,) = problems_of(SMALL.replace("model: m", 'headers: {x-api-key: "{key}"}'))
    assert problem.startswith("targets[0].headers.x-api-key mentions {key}, but the target has no key")
    assert plan.parse(SMALL.replace("model: m", "body: {max_tokens: 5, tokenizer: x}"), "/")


def keyed(key: str) -> Plan:
    return plan.parse(SMALL.replace("model: m", f"key: '{key}'"), "/plans")


def test_keys_are_read_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  sk-from-file \n")
    assert plan.resolve_keys(keyed("env:K"), {"K": "sk-from-env\n"}) == {"local": "sk-from-env"}
    assert plan.resolve_keys(keyed(f"file:{tmp_path}/key"), {}) == {"local": "sk-from-file"}
    assert plan.resolve_keys(plan.parse(SMALL, "/"), {}) == {}


def test_a_key_that_is_not_there_or_no_key_is_named_and_never_repeated(tmp_path: Path) -> None:
    def refused(key: str, environ: dict[str, str]) -> str:
        with pytest.raises(PlanError) as error:
            plan.resolve_keys(keyed(key), environ)
        return str(error.value)

    start = "target local has no usable key: "
    missing = f"{start}the environment variable K is empty or not there; set it"
    assert refused("env:K", {}) == missing
    assert refused("env:K", {"K": " \n"}) == missing
    assert refused("file:nowhere", {}) == f"{start}the file /plans/nowhere is empty or not there; write the key into it"
    assert refused(f"file:{tmp_path}", {}) == f"{start}the file {tmp_path} cannot be read: Is a directory"
    for text in ("SECRET one\nSECRET two", "SECRET and more", "SECRÉT"):
        (tmp_path / "key").write_text(text)
        for message in (refused("env:K", {"K": text}), refused(f"file:{tmp_path}/key", {})):
            assert "holds more than a key on one line, or characters that no key has" in message
            assert "SECR" not in message


# What comes back

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True)
words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=20).filter(
    str.isprintable
)
seconds = st.floats(0.001, 1000)
rates = st.floats(0.001, 10_000) | st.integers(1, 10_000).map(float)
token_counts = st.builds(Tokens, mean=st.floats(1, 5000) | st.just(550.0), stdev=st.floats(0, 500))
caches = st.sampled_from([None, "defeat", SharedPrefix(shared_prefix_tokens=9)])
tokenizers = st.sampled_from([None, "gpt2", "some/model", "/models/tokenizer.json"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
stages = st.one_of(
    st.builds(
        Stage,
        name=names,
        arrivals=st.builds(Constant, rate=rates)
        | st.builds(Poisson, rate=rates)
        | st.builds(Gamma, rate=rates, burstiness=st.floats(0.01, 100))
        | st.builds(Ramp, from_=rates, to=rates),
        duration_s=seconds,
        requests=st.none() | st.integers(1, 10**9),
        overlap=st.booleans(),
        drain_s=st.floats(0, 60),
    ),
    st.builds(
        Stage,
        name=names,
        arrivals=st.just(Closed()),
        requests=st.integers(1, 10**9),
        concurrency=st.integers(1, 10**6),
        ramp_up_s=st.none() | st.floats(0, 100),
    ),
)
targets = st.builds(
    Target,
    name=names,
    url=st.sampled_from(["http://127.0.0.1:8000/v1", "https://[::1]:4443", "https://host.example/v1?api-version=1"]),
    dialect=st.sampled_from(["openai-chat", "openai-completions"]),
    model=words,
    key=st.sampled_from([None, "env:KEY_1", "file:/run/secrets/key"]),
    headers=st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from(["1", "on", "2026-01-01", "a: b", "é"])),
    body=st.dictionaries(words.filter(lambda word: not word.startswith("stream")), json_values, max_size=3),
    tokenizer=tokenizers,
    stream=st.booleans(),
    timeouts=st.builds(Timeouts, connect_s=seconds, total_s=st.floats(601, 1000)),
    max_in_flight=st.none() | st.integers(100, 10**9),
    price=st.none() | st.builds(Price, input_per_million=seconds, output_per_million=seconds),
    region=words,
)
plans = st.builds(
    Plan,
    name=names,
    targets=st.lists(targets, min_size=1, max_size=3, unique_by=lambda target: target.name.lower()),
    prompts=st.builds(
        Synthetic,
        input_tokens=st.builds(Tokens, mean=st.floats(10, 5000)),
        output_tokens=st.none() | token_counts,
        cache=caches,
    )
    | st.builds(
        Dataset,
        path=words.map(lambda word: f"/data/x{word.replace('/', '')}"),
        output_tokens=st.none() | token_counts,
        cache=caches,
    ),
    stages=st.lists(stages, min_size=1, max_size=3, unique_by=lambda stage: stage.name.lower()),
    seed=st.integers(0, 2**63 - 1),
    tokenizer=tokenizers,
    nonce=st.from_regex(r"[A-Za-z0-9._-]{0,20}", fullmatch=True),
    slos=st.lists(
        st.builds(Slo, metric=st.just("e2e_ms"), stat=st.sampled_from(["p50", "p99.9", "mean"]), limit=st.floats(0, 9)),
        max_size=1,
    ),
    goodput=st.dictionaries(st.just("e2e_ms"), st.floats(0.001, 1e6)),
    validity=st.dictionaries(st.sampled_from(["schedule_lag", "clock_step"]), st.floats(0, 1e6)),
    fleet=st.builds(Fleet, workers=st.integers(1, 100)),
    store=st.sampled_from([None, "/data", "clickhouse://u@db:8123/x"]),
    trace=st.sampled_from(["off", "unsampled", "sampled"]),
)


def test_the_plan_of_the_readme_is_an_example() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert textwrap.indent((ROOT / "examples/chat.yaml").read_text(), "    ") in readme


@settings(max_examples=60)
@given(plans)
def test_a_plan_that_is_dumped_parses_to_the_same_plan(original: Plan) -> None:
    text = plan.dump(original)
    assert plan.parse(text, "/anywhere") == original


def test_a_dump_holds_what_differs_from_the_defaults() -> None:
    assert plan.dump(plan.parse(SMALL, "/")) == (
        "name: small\n"
        "targets:\n"
        "- {name: local, url: 'http://127.0.0.1:8000/v1', dialect: openai-chat, model: m}\n"
        "prompts:\n"
        "  kind: synthetic\n"
        "  input_tokens: {mean: 100}\n"
        "stages:\n"
        "- name: load\n"
        "  arrivals: {kind: poisson, rate: 5}\n"
        "  duration_s: 30\n"
    )


def test_numbers_in_a_body_stay_as_they_are_written() -> None:
    read = plan.parse(SMALL.replace("model: m", "body: {temperature: 1.0, top_k: 1}"), "/")
    assert json.dumps(plan.parse(plan.dump(read), "/").targets[0].body) == '{"temperature": 1.0, "top_k": 1}'


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text("{}[]&*a:-,'\"\n #|>!%@0.e", max_size=60))
def test_no_text_makes_anything_but_a_plan_or_a_plan_error(text: str) -> None:
    with pytest.raises(PlanError):
        plan.parse(text, "/")


@settings(max_examples=150)
@given(st.data())
def test_no_damaged_plan_makes_anything_but_a_plan_or_a_plan_error(data: st.DataObject) -> None:
    values = st.sampled_from(["null", "-1", "[]", "{}", "[[]]", "{a: 1}", "true", ".inf", "'x'", "1e999", "9" * 40])
    text = re.sub(r"(?<=: )[^,{}\[\]\n]+", lambda found: data.draw(values | st.just(found[0])), SMALL)
    with suppress(PlanError):
        plan.parse(text, "/")


# Schema, docs and words

SCHEMA = plan.json_schema()


def test_the_schema_is_one_and_refuses_what_the_types_refuse() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert validator.is_valid(yamltext.read(SMALL))
    for old, new in (
        ("rate: 5", "rate: -5"),
        ("rate: 5", "rate: 5, x: 1"),
        ("kind: poisson", "kind: poison"),
        ("openai-chat", "openai-chad"),
        ("input_tokens: 100", "input_tokens: 0"),
        ("name: load", "name: ../load"),
        ("model: m", "key: sk-123"),
        ("name: small", "name: small\nslos: [{metric: ttft, limit: 5}]"),
        ("name: small", "name: small\ngoodput: {error_rate: 5}"),
        ("name: small", "name: small\nvalidity: {schedule_leg: 5}"),
    ):
        assert not validator.is_valid(yamltext.read(SMALL.replace(old, new, 1))), new
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$defs"]["Target"]["properties"]["dialect"]["enum"] == dialects.names()


def documented() -> Iterator[tuple[str, str, str]]:
    """(place, key, default) for each row of the tables of docs/plan.md."""
    place = ""
    for line in PLAN_MD.split("\n"):
        if heading := re.fullmatch(r"## `(.+)`", line):
            place = "" if heading[1] == "plan" else heading[1]
        elif row := re.fullmatch(r"\| `(\w+)` \| (.+?) \| .+ \|", line):
            yield place, row[1], row[2].strip("`")


def default_of(field: Field) -> str:
    if field.required:
        return "-"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    match default:
        case None:
            return "none"
        case bool():
            return "true" if default else "false"
        case msgspec.Struct():
            return "{}"
        case "":
            return '""'
    return str(default)


def test_every_key_is_documented_with_its_default_and_no_other() -> None:
    rows = set(documented())
    keys = {
        (path.replace("output_tokens", "input_tokens"), field.encode_name, default_of(field))
        for path, field in shape.keys(Plan)
    }
    kinds = {("prompts", "kind", "-"), ("stages[].arrivals", "kind", "-")}
    assert rows == keys | kinds


def test_every_dialect_and_every_arrival_pattern_is_documented() -> None:
    for word in [*dialects.names(), "constant", "poisson", "gamma", "ramp", "closed", "synthetic", "dataset"]:
        assert f"`{word}`" in PLAN_MD or f"`kind: {word}`" in PLAN_MD, word
