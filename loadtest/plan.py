"""A plan file -> Plan, with every problem found in one go; and back to a file, and to a JSON schema.

Three steps: the text is YAML (yamltext.py), the data has the shape of the plan structs, whose limits stand on their
fields (shape.py), and the parts agree with each other (rules.py). Where the shape is wrong somewhere, the parts that are
sound are looked at by themselves, so that most of what is wrong is told at once. `parse` reads nothing but its argument,
so that a stored plan can be read where its files are not; `load` looks at them too.

A plan is stored with its run, shown in reports and handed on: it never holds a secret, and a message about a place
where one could stand never quotes what stands there.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import FieldInfo, fields, replace

from loadtest import dialects, proxies, rules, shape, tokens, yamltext
from loadtest.errors import PlanError
from loadtest.metrics import GOODPUT_LIMITS, METRICS
from loadtest.prompts import Dataset
from loadtest.stats import STAT
from loadtest.types import Fleet, Gpu, Plan, Slo, Stage, Target
from loadtest.validity import RULES

MAX_BYTES = 256 * 1024
MAX_KEY_BYTES = 16 * 1024

_HIDDEN = frozenset({"key", "proxy", "proxy_key", "headers", "body", "url", "store"})
_MUST = {"dialect": f"one of {', '.join(dialects.names())}", "stat": STAT}
_SHAPE = shape.Shape(Plan, _HIDDEN, _MUST)
T = TypeVar("T")
_TOKENS = ("input_tokens", "output_tokens")


def load(path: Path | str) -> Plan:
    """The plan in a file, checked together with the files that it names. Raises PlanError."""
    path = Path(path)
    if path.suffix == ".py":
        raise PlanError(f"{path} is a Python file and no plan; a Locust file is run by --locustfile {path}")
    if path.suffix == ".jsonl":
        raise PlanError(f"{path} is a dataset and no plan; name it in a plan: prompts: {{kind: dataset, path: {path}}}")
    text = _read_text(path)
    try:
        plan, wrong = _read(text, path.parent)
    except PlanError as e:
        raise PlanError(_headed(str(path), str(e).split("\n"), more=isinstance(e, _Unshaped))) from None
    plan = _with_tokenizers_beside(plan, path.parent)
    plan = plan if wrong else proxies.chosen(plan, os.environ)
    wrong += rules.file_problems(plan)
    if wrong:
        raise PlanError(_headed(str(path), list(dict.fromkeys(wrong))))
    return plan


def _headed(what: str, problems: Sequence[str], *, more: bool = False) -> str:
    """The problems, with what has them named once. `more`: others may show when these are mended."""
    rest = "; more is checked once this is mended" if len(problems) == 1 else "; more is checked once these are mended"
    if len(problems) == 1:
        return f"{what}: {problems[0]}" + (rest if more else "")
    return "\n  ".join([f"{what} has {len(problems)} problems{rest if more else ''}:", *problems])


def _problems_of_sound_parts(data: object) -> Iterator[str]:
    """What rules say of each target, stage and objective that can be read, in a plan that cannot."""
    if not isinstance(data, dict):
        return
    fleet = _sound([data.get("fleet", {})], Fleet).get(0, Fleet())
    targets, stages = _sound(data.get("targets"), Target), _sound(data.get("stages"), Stage)
    yield from rules.problems_of_parts(targets, stages, _sound(data.get("slos"), Slo), fleet.workers)


def _sound(items: object, kind: type[T]) -> dict[int, T]:
    """Those of a list that are of this kind, by their index."""
    out = {}
    for i, item in enumerate(items if isinstance(items, list) else []):
        with suppress(msgspec.ValidationError):
            out[i] = msgspec.convert(item, kind)
    return out


class _Unshaped(PlanError):
    """What must agree with what could not be looked at in whole."""


def parse(text: str, base_dir: Path | str) -> Plan:
    """The plan in a text; relative paths in it are taken from `base_dir`. Raises PlanError."""
    plan, wrong = _read(text, base_dir)
    _raise_any(wrong)
    return plan


def _read(text: str, base_dir: Path | str) -> tuple[Plan, list[str]]:
    """The plan, and what does not agree in it. Raises PlanError where there is none."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise PlanError(f"the plan is larger than {MAX_BYTES} bytes; put long prompts into a dataset")
    try:
        data = _with_full_tokens(yamltext.read(text))
    except yamltext.YamlError as e:
        raise PlanError(str(e)) from None
    if wrong := list(_SHAPE.problems(data)):
        raise _Unshaped("\n".join(dict.fromkeys([*wrong, *_problems_of_sound_parts(data)])))
    plan = msgspec.convert(data, Plan)
    return _with_absolute_paths(plan, Path(base_dir)), list(dict.fromkeys(rules.problems(plan)))


def with_workers(plan: Plan, workers: int) -> Plan:
    """The plan for another number of workers, which its caps must allow. Raises PlanError."""
    changed = msgspec.structs.replace(plan, fleet=msgspec.structs.replace(plan.fleet, workers=workers))
    _raise_any(rules.problems(changed))
    return changed


def dump(plan: Plan) -> str:
    """YAML that parses to the same plan: what differs from the defaults, in the order of the fields."""
    return yamltext.write(_without_defaults(plan))


def json_schema() -> dict[str, Any]:
    """What an editor or a CI job checks a plan with. It knows types and limits, not what must agree with what."""
    schema = msgspec.json.schema(Plan)
    definitions = schema["$defs"]
    definitions["Tokens"] = {"anyOf": [definitions["Tokens"]["properties"]["mean"], definitions["Tokens"]]}
    definitions["Target"]["properties"]["dialect"]["enum"] = dialects.names()
    definitions["Slo"]["properties"]["metric"]["enum"] = sorted(METRICS)
    definitions["Plan"]["properties"]["goodput"]["propertyNames"] = {"enum": list(GOODPUT_LIMITS)}
    definitions["Plan"]["properties"]["validity"]["propertyNames"] = {"enum": list(RULES)}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "loadtest plan", **schema}


def resolve_keys(plan: Plan, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The secret of each target that has a `key`, by the target's name, and of proxies by `proxies.key_name`. Raises
    PlanError, which never quotes one."""
    keys = {}
    problems = []
    for target in plan.targets:
        for what, name, reference in (
            ("key", target.name, target.key),
            ("proxy_key", proxies.key_name(target.name), target.proxy_key),
        ):
            if reference is not None:
                try:
                    keys[name] = secret(reference, environ)
                except ValueError as e:
                    problems.append(f"target {target.name} has no usable {what}: {e}")
    if len(problems) > 1:
        raise PlanError(_headed("the plan", problems))
    _raise_any(problems)
    return keys


def resolve_gpu_keys(plan: Plan, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The secret of each source of `gpu:` that has a key, by the source's name. They stay with the driver, which is why
    they are not among `resolve_keys`. Raises PlanError, which never quotes one."""
    keys, problems = {}, []
    for source in plan.gpu.sources if plan.gpu else ():
        if source.key is not None:
            try:
                keys[source.name] = secret(source.key, environ)
            except ValueError as e:
                problems.append(f"gpu source {source.name} has no usable key: {e}")
    _raise_any(problems)
    return keys


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PlanError(f"{path} does not exist; name a plan file") from None
    except OSError as e:
        raise PlanError(f"{path} cannot be read: {e.strerror}") from None
    if len(data) > MAX_BYTES:
        raise PlanError(f"{path} is larger than {MAX_BYTES} bytes; put long prompts into a dataset")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise PlanError(f"{path} is not UTF-8 (byte {e.start}); save it as UTF-8") from None


def _with_full_tokens(data: object) -> object:
    """`input_tokens: 550` means {mean: 550}."""
    if not isinstance(data, dict) or not isinstance(data.get("prompts"), dict):
        return data
    prompts = dict(data["prompts"])
    for key in _TOKENS:
        if type(prompts.get(key)) in (int, float):
            prompts[key] = {"mean": prompts[key]}
    return {**data, "prompts": prompts}


def _with_absolute_paths(plan: Plan, base_dir: Path) -> Plan:
    """Workers and later commands run in other directories."""

    def absolute(path: str | None) -> str | None:
        return os.path.abspath(base_dir / os.path.expanduser(path)) if path else path

    def key(reference: str | None) -> str | None:
        kind, _, path = (reference or "").partition(":")
        return f"file:{absolute(path)}" if kind == "file" else reference

    plan = tokens.relocated(plan, {name: str(absolute(name)) for name in tokens.named_by(plan) if tokens.is_path(name)})
    prompts = plan.prompts
    return replace(
        plan,
        targets=[
            replace(
                target,
                key=key(target.key),
                proxy_key=key(target.proxy_key),
                ca_file=absolute(target.ca_file),
                client_cert=absolute(target.client_cert),
                client_key=absolute(target.client_key),
            )
            for target in plan.targets
        ],
        prompts=replace(prompts, path=absolute(prompts.path)) if isinstance(prompts, Dataset) else prompts,
        gpu=_with_absolute_gpu(plan.gpu, key, absolute),
        fleet=replace(
            plan.fleet,
            listeners=absolute(plan.fleet.listeners),
            regions=[replace(region, token_file=absolute(region.token_file)) for region in plan.fleet.regions],
        ),
        store=plan.store if "://" in (plan.store or "") else absolute(plan.store),
    )


def _with_absolute_gpu(
    gpu: Gpu | None, key: Callable[[str | None], str | None], absolute: Callable[[str | None], str | None]
) -> Gpu | None:
    if gpu is None:
        return None
    sources = [replace(s, key=key(s.key), ca_file=absolute(s.ca_file)) for s in gpu.sources]
    return replace(gpu, sources=sources)


def _with_tokenizers_beside(plan: Plan, base_dir: Path) -> Plan:
    """What looks like a name on the hub is a path where there is such a thing beside the plan."""
    return tokens.relocated(
        plan,
        {
            name: os.path.abspath(base_dir / name)
            for name in tokens.named_by(plan)
            if not tokens.is_path(name) and (base_dir / name).exists()
        },
    )


def secret(reference: str, environ: Mapping[str, str]) -> str:
    """The secret behind env:NAME or file:PATH; ValueError says what to set where there is none."""
    kind, _, place = reference.partition(":")
    if kind == "env":
        secret, where, remedy = environ.get(place, ""), f"the environment variable {place}", "set it"
    else:
        secret, where, remedy = _file_text(Path(place)), f"the file {place}", "write the key into it"
    secret = secret.strip()
    if not secret:
        raise ValueError(f"{where} is empty or not there; {remedy}")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError(f"{where} holds more than a key on one line, or characters that no key has; {remedy} alone")
    return secret


def _file_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
    except OSError as e:
        raise ValueError(f"the file {path} cannot be read: {e.strerror}") from None


def _without_defaults(value: object) -> object:
    match value:
        case msgspec.Struct():
            config = value.__struct_config__
            out: dict[str, object] = {config.tag_field: config.tag} if config.tag_field else {}
            for field in fields(value):
                inner = getattr(value, field.name)
                if field.required or inner != _default(field):
                    out[field.encode_name] = inner if field.name == "body" else _without_defaults(inner)
            return out
        case list():
            return [_without_defaults(item) for item in value]
        case dict():
            return {key: _without_defaults(inner) for key, inner in value.items()}
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return value


def _default(field: FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _raise_any(problems: Iterable[str]) -> None:
    if found := list(dict.fromkeys(problems)):
        raise PlanError("\n".join(found))
