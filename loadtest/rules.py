"""What the parts of a plan must agree on, and what no type can say: one small function a part, one line a problem.

Each line names the place, what is there and what to write instead. What stands where a secret may stand is not told.
"""

import ast
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from msgspec.structs import replace

from loadtest import dialects, proxies, tokens, trust
from loadtest.arrivals import Closed, Ramp
from loadtest.errors import PlanError
from loadtest.metrics import GOODPUT_LIMITS, METRICS, needs_stat
from loadtest.prompts import Dataset, SharedPrefix, Synthetic, contents
from loadtest.stats import parse_stat
from loadtest.types import Fleet, Gpu, GpuSource, Plan, Slo, Stage, StopWhen, Target, Timeouts
from loadtest.validity import RULES

_SECRET_HEADER = re.compile(r"(^|[-_])(authorization|(api|functions|subscription)[-_]?key|token|secret|cookie)$", re.I)
_SECRET_PARAMETER = re.compile(r"(^|[-_])(api[-_]?)?(key|token|secret|password|signature|sig)$", re.I)
_SECRET_IN_BODY = re.compile(r"(api|secret)[-_]?key|(access|auth)[-_]token|client[-_]secret|authorization", re.I)
_LOOKS_SECRET = re.compile(r"\b(Bearer|Basic)\s+[^\s{]|\b(sk|gsk|hf|nvapi|xai)[-_][A-Za-z0-9_-]{8}", re.I)
_BY_REFERENCE = re.compile(r"([A-Za-z][A-Za-z-]{0,15} )?\{key\}")
MOST_ROUNDS = 1000  # a plan as it is run has as many stages
_METRIC = re.compile(r"[a-z][a-z0-9_.]{0,99}")
_SET_KEY = "set key: env:NAME or file:PATH"


def problems(plan: Plan) -> Iterator[str]:
    yield from _repeated_names("targets", [target.name for target in plan.targets])
    yield from _repeated_names("stages", [stage.name for stage in plan.stages])
    targets, stages = dict(enumerate(plan.targets)), dict(enumerate(plan.stages))
    yield from problems_of_parts(targets, stages, dict(enumerate(plan.slos)), plan.fleet.workers)
    yield from (f"fleet.{problem}" for problem in _fleet(plan.fleet))
    yield from _prompts(plan.prompts)
    if (total := sum(stage.rounds for stage in plan.stages)) > MOST_ROUNDS:
        yield f"stages have {total:,} rounds together; they must have at most {MOST_ROUNDS:,}"
    if all(stage.warmup for stage in plan.stages):
        yield "stages are warm-up only, which no result is taken from; add one without warmup: true"
    for i, slo in enumerate(plan.slos):
        yield from (f"slos[{i}].{problem}" for problem in _slo_in(slo, plan))
    yield from _repeated_slos(plan.slos)
    yield from _stop_in(plan)
    for i, target in enumerate(plan.targets):
        if target.connections == "conversation" and not isinstance(plan.prompts, Dataset):
            yield (
                f"targets[{i}].connections is 'conversation', but synthetic prompts belong to none; write reuse or fresh, or "
                "let prompts be a dataset with conversations"
            )
        if isinstance(plan.prompts, Dataset) and plan.prompts.history == "model" and target.dialect == "http":
            yield (
                f"prompts.history is 'model', but nobody reads what an answer to targets[{i}] says: its dialect is http; "
                "write scripted, or a dialect that knows its answers"
            )
    yield from _goodput(plan)
    yield from _validity(plan)
    if plan.gpu is not None:
        yield from _repeated_names("gpu.sources", [source.name for source in plan.gpu.sources])
        wrong = gpu_problems(plan.gpu, [target.name for target in plan.targets])
        yield from (f"gpu.sources[{i}].{problem}" for i, problem in wrong)
    yield from _store(plan.store)


def problems_of_parts(
    targets: Mapping[int, Target], stages: Mapping[int, Stage], slos: Mapping[int, Slo], workers: int
) -> Iterator[str]:
    """What can be said of each part, by its index, whatever the others are."""
    for i, target in targets.items():
        yield from (f"targets[{i}].{problem}" for problem in _target(target, workers))
    for i, stage in stages.items():
        yield from (f"stages[{i}].{problem}" for problem in _stage(stage))
    for i, slo in slos.items():
        yield from (f"slos[{i}].{problem}" for problem in _slo(slo))


def file_problems(plan: Plan) -> Iterator[str]:
    """What is wrong with the files that the plan names. A dataset is read through, line by line."""
    if isinstance(plan.prompts, Dataset):
        try:
            held = contents(plan.prompts.path)
            if plan.prompts.history == "model" and held.most_turns == 1:
                yield f"prompts.history is 'model', but no line of {plan.prompts.path} has a conversation of several turns"
        except PlanError as e:
            yield from (f"prompts.path: {line}" for line in str(e).split("\n"))
    yield from _tokenizer(plan.tokenizer, "tokenizer")
    for i, target in enumerate(plan.targets):
        yield from _tokenizer(target.tokenizer, f"targets[{i}].tokenizer")
        yield from (f"targets[{i}].{problem}" for problem in _certificates(target))
    if plan.fleet.listeners is not None:
        try:
            ast.parse(Path(plan.fleet.listeners).read_bytes())
        except OSError as e:
            yield f"fleet.listeners is {plan.fleet.listeners!r}, which cannot be read: {e.strerror}"
        except (SyntaxError, ValueError) as e:
            yield f"fleet.listeners is {plan.fleet.listeners!r}, which is not Python: {e}"


def _certificates(target: Target) -> Iterator[str]:
    for key, holds, alone in (
        ("ca_file", "no certificate in PEM form", replace(target, client_cert=None)),
        (
            "client_cert",
            "no certificate with its key, both in PEM form and without a passphrase",
            replace(target, ca_file=None),
        ),
    ):
        if (path := getattr(target, key)) is not None:
            try:
                trust.context(alone)
            except OSError as e:  # ssl.SSLError is one
                reason = e.strerror if not isinstance(e, ssl.SSLError) else f"it holds {holds}"
                yield f"{key} is {path!r}, which cannot be used: {reason}"


def _tokenizer(reference: str | None, path: str) -> Iterator[str]:
    if reference is not None:
        try:
            tokens.Tokenizer(tokens.file_of(reference))
        except ValueError as e:
            yield f"{path} is {reference!r}: {e}"


def _repeated_names(path: str, names: Sequence[str]) -> Iterator[str]:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        other = first.setdefault(name.lower(), i)
        if other != i:
            yield f"{path}[{i}].name is {name!r}, as is that of {path}[{other}]; give each a name of its own"


def _target(target: Target, workers: int) -> Iterator[str]:
    secrets = [*_url_secrets(target.url), *_header_problems(target), *_body_secrets(target.body, "body")]
    yield from secrets
    if not secrets:  # for what these messages quote
        yield from dialects.check(target)
    for key, default in (("method", "POST"), ("expect_status", 200)):
        if getattr(target, key) != default and target.dialect != "http":
            yield f"{key} is {getattr(target, key)!r}; leave it out, only the dialect http has it"
    yield from _streamed_only(target)
    yield from _connections(target)
    yield from _timeouts(target.timeouts)
    if target.max_in_flight is not None and target.max_in_flight < workers:
        yield f"max_in_flight is {target.max_in_flight}; it must be at least fleet.workers ({workers}), which share it"


def _fleet(fleet: Fleet) -> Iterator[str]:
    yield from _repeated_names("regions", [region.name for region in fleet.regions])
    for i, region in enumerate(fleet.regions):
        if not region.labels and not region.address:
            yield (
                f"regions[{i}].labels is empty; name the labels of its nodes, as in {{ray.io/region: eu-west-1}}, or the "
                "address of a Ray cluster of its own, as in head.eu.example:6379"
            )
        alike = (k for k, other in enumerate(fleet.regions) if k != i and other.address == region.address)
        if region.address and not region.labels and (k := next(alike, None)) is not None:
            yield (
                f"regions[{i}].labels is empty, but regions[{k}] has the address {region.address!r} too; name the labels that "
                "its nodes alone have, as in {ray.io/region: eu-west-1}"
            )
        if region.address and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+):[0-9]{1,5}", region.address):
            yield f"regions[{i}].address is {region.address!r}; write host:port of the head, as in head.eu.example:6379"
        if region.token_file is not None and not region.address:
            yield f"regions[{i}].token_file is given, but no address; the token for RAY_ADDRESS is the user's own"
    if len(fleet.regions) > fleet.workers:
        yield f"workers is {fleet.workers}; it must be at least {len(fleet.regions)}, one for each of fleet.regions"
    for name, amount in fleet.resources.items():
        if name in ("CPU", "num_cpus"):
            yield f"resources.{name} is {amount:g}; write it as fleet.cpus"
        elif not amount > 0:
            yield f"resources.{name} is {amount:g}; it must be above 0"
    if fleet.per_node is not None and fleet.placement == "pack":
        yield "placement is 'pack'; leave it or per_node out, which says how many workers share a node"


def _streamed_only(target: Target) -> Iterator[str]:
    if target.dialect not in dialects.names():
        return
    if target.continuous_usage and not dialects.load(target.dialect).streams(target):
        yield "continuous_usage is true; leave it out, only a streamed answer has chunks"
    if target.tokenizer is not None and target.dialect == "http":
        yield f"tokenizer is {target.tokenizer!r}; leave it out, the dialect http does not look into answers"


def _connections(target: Target) -> Iterator[str]:
    if target.http2:
        yield "http2 is true; requests are sent as HTTP/1.1, each on a connection of its own: leave it out"
    if target.proxy is not None and (problem := proxies.problem(target.proxy)):
        yield problem
    if target.proxy_key is not None and target.proxy is None:
        yield "proxy_key is given, but no proxy; write proxy: http://host:port, or leave it out"
    if target.client_key is not None and target.client_cert is None:
        yield f"client_key is {target.client_key!r}, but client_cert is missing; name the certificate it belongs to"
    if not target.url.startswith("https:"):
        for key in ("client_cert", "server_name"):
            if (value := getattr(target, key)) is not None:
                yield f"{key} is {value!r}; leave it out, only an https:// url has TLS"


def _url_secrets(url: str) -> Iterator[str]:
    if re.match(r"[^/]*//[^/?#]*@", url):
        yield f"url holds a user name or a password; take it out and {_SET_KEY}"
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET_PARAMETER.search(name):
            yield f"url holds a secret in its parameter {name}; take it out, {_SET_KEY} and send it in a header"
    if parts.fragment:
        yield "url has a part after #, which is never sent; take it out"


def _header_problems(target: Target) -> Iterator[str]:
    seen: set[str] = set()
    for name, value in target.headers.items():
        if name.lower() in seen:
            yield f"headers.{name} is given twice, in different case; keep one of them"
        seen.add(name.lower())
        carries_secret = _SECRET_HEADER.search(name) or "{key}" in value
        if (carries_secret and not _BY_REFERENCE.fullmatch(value)) or _LOOKS_SECRET.search(value):
            yield f'headers.{name} holds a secret; write "{{key}}" or "Bearer {{key}}" in its place and {_SET_KEY}'


def _body_secrets(body: object, path: str) -> Iterator[str]:
    match body:
        case dict():
            for key, value in body.items():
                if isinstance(value, str) and _SECRET_IN_BODY.fullmatch(key):
                    yield f"{path}.{key} holds a secret; take it out, {_SET_KEY} and send it in a header"
                else:
                    yield from _body_secrets(value, f"{path}.{key}")
        case list():
            for i, value in enumerate(body):
                yield from _body_secrets(value, f"{path}[{i}]")


def _timeouts(timeouts: Timeouts) -> Iterator[str]:
    """A limit that the total cuts short is a mistake, but only where somebody wrote it."""
    for key in ("first_byte_s", "idle_s"):
        value = getattr(timeouts, key)
        if value > timeouts.total_s and value != getattr(Timeouts(), key):
            yield f"timeouts.total_s is {timeouts.total_s:g}; it must be at least {key} ({value:g})"


def _prompts(prompts: Synthetic | Dataset) -> Iterator[str]:
    if isinstance(prompts, Synthetic) and isinstance(prompts.cache, SharedPrefix):
        shared, mean = prompts.cache.shared_prefix_tokens, prompts.input_tokens.mean
        if shared >= mean:
            place = "prompts.cache.shared_prefix_tokens"
            yield f"{place} is {shared}; it must be below input_tokens ({mean:g}), which it is a part of"


def _stage(stage: Stage) -> Iterator[str]:
    closed = isinstance(stage.arrivals, Closed)
    if stage.duration_s is None and stage.requests is None:
        yield "duration_s is missing, and so is requests; a stage ends by one of them or by both, whichever comes first"
    if closed and stage.concurrency is None:
        yield "concurrency is missing; closed load needs the number of requests to keep in flight"
    for key in () if closed else ("concurrency", "ramp_up_s"):
        if (value := getattr(stage, key)) is not None:
            yield f"{key} is {value:g}; leave it out, only closed load has it"
    if isinstance(stage.arrivals, Ramp):
        if stage.duration_s is None:
            yield "duration_s is missing; a ramp is the change of the rate over it"
        if stage.arrivals.from_ == stage.arrivals.to == 0:
            yield "arrivals.to is 0, as is from; one of them must be above 0"
    if stage.stop_when is not None:
        yield from _stop_when(stage, stage.stop_when)
    if stage.rounds > 1 and (stage.overlap or stage.warmup):
        kind = "overlap" if stage.overlap else "warmup"
        yield f"rounds is {stage.rounds}, with {kind}: true; leave one of them out, a round is measured and drained"
    if stage.ramp_up_s is not None and stage.duration_s is not None and stage.ramp_up_s >= stage.duration_s:
        yield f"ramp_up_s is {stage.ramp_up_s:g}; it must be below duration_s ({stage.duration_s:g})"


def _stop_when(stage: Stage, rule: StopWhen) -> Iterator[str]:
    """Whether the figure exists is asked beside the targets, in `_stop_in`."""
    if stage.warmup:
        yield "stop_when is given, but warmup: true; leave one of them out, a warm-up has no results to look at"
    if stage.overlap:
        yield "stop_when is given, but overlap: true; leave one of them out, the next stage begins at this one's planned end"
    if rule.metric not in METRICS:
        yield from _known("stop_when.metric", rule.metric, list(METRICS))
    elif METRICS[rule.metric].at:
        yield f"stop_when.metric is {rule.metric!r}, which is known at a stage's end alone; write ttft_ms, e2e_ms or such"
    else:
        yield from (f"stop_when.{problem}" for problem in _slo_stat(rule))


def _stop_in(plan: Plan) -> Iterator[str]:
    for i, stage in enumerate(plan.stages):
        if stage.stop_when is not None and stage.stop_when.metric in METRICS:
            problems = _measurable("stop_when.metric", stage.stop_when.metric, [stage], plan.targets)
            yield from (f"stages[{i}].{problem}" for problem in problems)


def _slo(slo: Slo) -> Iterator[str]:
    if slo.metric not in METRICS:
        yield from _known("metric", slo.metric, list(METRICS))
        return
    if METRICS[slo.metric].kind == "ratio":
        yield f"metric is {slo.metric!r}, which is told and not judged: how far it may stray is not known"
        return
    yield from _slo_stat(slo)
    if slo.limit < 0:
        yield f"limit is {slo.limit:g}; it must be at least 0"
    if slo.rule == "mlperf" and (METRICS[slo.metric].kind != "request" or slo.stat == "mean"):
        yield "rule is 'mlperf', which decides a percentile of one value a request; leave it out, or ask p99 of ttft_ms"
    if METRICS[slo.metric].kind == "share" and slo.limit > 1:
        yield f"limit is {slo.limit:g}; {slo.metric} is a share, so it must be at most 1: 1% is 0.01"


def _slo_in(slo: Slo, plan: Plan) -> Iterator[str]:
    """Of an objective beside the rest of its plan."""
    yield from _known("target", slo.target, [target.name for target in plan.targets])
    yield from _known("stage", slo.stage, [stage.name for stage in plan.stages])
    if any(stage.warmup and stage.name == slo.stage for stage in plan.stages):
        yield f"stage is {slo.stage!r}, a warm-up stage, which no result is taken from; name another one"
    if slo.metric not in METRICS:
        return
    if slo.metric == "goodput" and not plan.goodput:
        yield "metric is 'goodput', but the plan does not say what is good; add goodput: {ttft_ms: 2000}"
    if slo.metric in METRICS and METRICS[slo.metric].sampled:
        served = {target for source in (plan.gpu.sources if plan.gpu else ()) for target in source.targets}
        if not served & {target.name for target in plan.targets if slo.target in (None, target.name)}:
            yield f"metric is {slo.metric!r}, but no source of gpu: names its target; add one, with targets"
    stages = [stage for stage in plan.stages if not stage.warmup and slo.stage in (None, stage.name)]
    yield from _measurable("metric", slo.metric, stages, [t for t in plan.targets if slo.target in (None, t.name)])


def _slo_stat(slo: Slo | StopWhen) -> Iterator[str]:
    if not needs_stat(slo.metric):
        if slo.stat is not None:
            yield f"stat is {slo.stat!r}; leave it out, {slo.metric} is one number"
    elif slo.stat is None:
        yield f"stat is missing; {slo.metric} has a value for each request: write p50, p99, p99.9 or mean"
    else:
        try:
            parse_stat(slo.stat)
        except ValueError as e:
            yield f"stat is {slo.stat!r}: {e}"


def _measurable(place: str, metric: str, stages: Sequence[Stage], targets: Sequence[Target]) -> Iterator[str]:
    """A metric that is null in every row it is asked of would be undecided for ever."""
    if stages and "due_ns" in METRICS[metric].sql and all(isinstance(stage.arrivals, Closed) for stage in stages):
        other = metric.removeprefix("due_")
        instead = f"; write {other}" if other != metric else ""
        yield f"{place} is {metric!r}, which closed load does not have: nothing is due there{instead}"
    known = [target for target in targets if target.dialect in dialects.names()]
    streamed = METRICS[metric].applies == "streamed"
    if streamed and known and not any(dialects.load(target.dialect).streams(target) for target in known):
        yield f"{place} is {metric!r}, which only a streamed answer has; write e2e_ms, or stream: true for a target"


def _repeated_slos(slos: Sequence[Slo]) -> Iterator[str]:
    first: dict[tuple[object, ...], int] = {}
    for i, slo in enumerate(slos):
        key = (slo.metric, slo.stat, slo.target, slo.stage, slo.rule)
        if first.setdefault(key, i) != i:
            yield f"slos[{i}] asks the same as slos[{first[key]}]; keep one of them"


def _goodput(plan: Plan) -> Iterator[str]:
    measured = [stage for stage in plan.stages if not stage.warmup]
    for metric, limit in plan.goodput.items():
        if metric not in GOODPUT_LIMITS:
            close = get_close_matches(metric, GOODPUT_LIMITS, n=1)
            meant = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(GOODPUT_LIMITS)}"
            yield f"goodput.{metric} is no figure of a single request; {meant}"
        elif limit <= 0:
            yield f"goodput.{metric} is {limit:g}; it must be above 0"
        else:
            yield from _measurable("goodput", metric, measured, plan.targets)


def _validity(plan: Plan) -> Iterator[str]:
    for name, limit in plan.validity.items():
        if name not in RULES:
            close = get_close_matches(name, RULES, n=1)
            meant = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(RULES)}"
            yield f"validity.{name} is no rule; {meant}"
        elif limit < 0:
            yield f"validity.{name} is {limit:g}; it must be at least 0"
        elif RULES[name].unit == "share" and limit > 1:
            yield f"validity.{name} is {limit:g}; it is a share, so it must be at most 1: 1% is 0.01"


def gpu_problems(gpu: Gpu, targets: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(number of the source, what is wrong with it)."""
    for i, source in enumerate(gpu.sources):
        yield from ((i, problem) for problem in _gpu_source(source, targets))


def _gpu_source(source: GpuSource, targets: Sequence[str]) -> Iterator[str]:
    if source.kind == "nvml":
        for key in ("url", "key", "ca_file"):
            if getattr(source, key):
                yield f"{key} is given; leave it out, nvml reads the GPUs of the machine that drives the run"
    elif secrets := list(_url_secrets(source.url)):
        yield from secrets
    elif not _is_http(source.url):
        yield "url must be http:// or https://, a host, and the path of its metrics: http://node1:9400/metrics"
    for target, devices in source.targets.items():
        if target not in targets:
            yield from _known("targets", target, targets)
        if not devices:
            yield f'targets.{target} has no device; write ["*"] for all of this source, or their indices: ["0", "1"]'
    for metric, name in source.metrics.items():
        if not _METRIC.fullmatch(name):
            yield f"metrics.{metric} is {name!r}; it must be a name such as engine.queue_length"


def _is_http(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:
        return False


def _store(store: str | None) -> Iterator[str]:
    if store is None or "://" not in store:
        return
    try:
        parts = urlsplit(store)
    except ValueError:
        yield "store cannot be read; it must be a directory or clickhouse://user@host:port/database"
        return
    passwords = [value for name, value in parse_qsl(parts.query) if name == "password"]
    if parts.password is not None or any(not value.startswith("file:") for value in passwords):
        yield "store holds a password; take it out and write ?password=file:PATH, or set LOADTEST_STORE"
    elif parts.scheme not in ("clickhouse", "clickhouses"):
        yield "store must be a directory or clickhouse://user@host:port/database (clickhouses:// over TLS)"


def _known(key: str, value: str | None, names: Sequence[str]) -> Iterator[str]:
    if value is not None and value not in names:
        close = get_close_matches(value, names, n=1)
        yield f"{key} is {value!r}; " + (
            f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(names)}"
        )
