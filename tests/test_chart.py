"""The Helm chart: clean in every check of `make chart` over helm/ci, and each check finds what is put wrong on purpose.

What is rendered is also read as a cluster would: what a run's objects say is what this project promises of them.
"""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from helm import check, policy

pytestmark = pytest.mark.skipif(
    not (check.TOOLS / "chart.stamp").exists(), reason="helm and kubeconform are not here; make chart builds them"
)
Object = dict[str, Any]
VALUES = sorted(check.MATRIX.glob("*.yaml"))


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return {values.stem: check.render(values) for values in VALUES}


def named(rendered: str, kind: str, name: str = "") -> Object:
    found = [of for of in check.objects(rendered) if of["kind"] == kind and name in of["metadata"]["name"]]
    assert found, f"no {kind} {name}"
    return found[0]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: values.stem)
def test_every_values_file_is_clean_in_every_check(values: Path):
    assert [problem for problem in check.check(values) if problem] == []


def test_files_shared_with_other_folders_are_their_equals():
    pairs = list(check.shared())
    assert len(pairs) >= 2
    for original, made in pairs:
        assert made.read_bytes() == original.read_bytes(), f"{made} differs from {original}: make chart copies it"
    assert {path.name for path in (check.CHART / "files/dashboards").iterdir()} == {
        made.name for _, made in pairs if made.suffix == ".json"
    }


# The values


def values_with_comments() -> tuple[set[str], set[str]]:
    """Paths of every value in values.yaml, and of those with a comment on the line above (or on one further up)."""
    every, commented = set(), set()
    stack: list[tuple[int, str]] = []
    above = False
    for line in (check.CHART / "values.yaml").read_text().splitlines():
        if found := re.match(r"( *)(- )?([A-Za-z]+):", line):
            indent = len(found[1]) + len(found[2] or "")
            stack = [(depth, name) for depth, name in stack if depth < indent]
            stack.append((indent, found[3]))
            path = ".".join(name for _, name in stack)
            every.add(path)
            if above:
                commented.add(path)
        above = line.lstrip().startswith("#")
    return every, commented


def schema_paths(schema: Object, path: str = "") -> set[str]:
    inner = schema.get("properties") or schema.get("items", {}).get("properties", {})
    return {path} - {""} | {
        found for name, of in inner.items() for found in schema_paths(of, f"{path}.{name}" if path else name)
    }


def test_each_value_is_commented_and_in_the_schema_and_each_of_the_schema_has_a_value():
    every, commented = values_with_comments()
    assert every - commented == set()
    schema = json.loads((check.CHART / "values.schema.json").read_text())
    assert schema_paths(schema) - {"global"} == every
    jsonschema.validate(yaml.safe_load((check.CHART / "values.yaml").read_text()), schema)


def test_a_mistyped_or_impossible_value_is_refused(tmp_path: Path):
    for text, told in [
        ("run: {deadline: 5}", "deadline"),
        ("workers: [{name: a, replicas: 1, cpus: 1.5, memory: 1Gi}]", "cpus"),
        ("store: {url: 'clickhouse://loadtest:secret@host:8123/db'}", "url"),  # a password in a value
        ("networkPolicy: {targets: {cidrs: [acme.example]}}", "cidrs"),
        ("run: {id: Nightly_1}", "id"),
    ]:
        values = tmp_path / "values.yaml"
        values.write_text(text)
        wrong = check.lint(values)
        assert told in wrong, text


def test_a_run_without_a_plan_or_a_way_to_its_endpoint_is_refused(tmp_path: Path):
    values = tmp_path / "values.yaml"
    for text, told in [
        ("run: {id: r1}\nnetworkPolicy: {targets: {cidrs: [192.0.2.0/24]}}", "run.plan is empty"),
        ("run: {id: r1, plan: 'name: x'}", "no endpoint may be reached"),
        ("store: {url: 'clickhouse://loadtest@host:8123/db'}", "networkPolicy.store.cidrs"),
        (
            "store: {url: 'clickhouse://loadtest@host:8123/db'}\nnetworkPolicy: {kind: cilium}",
            "networkPolicy.store.fqdns",
        ),
        ("run: {id: r1, plan: 'name: x'}\nnetworkPolicy: {kind: cilium}", "networkPolicy.targets.fqdns"),
        (f"run: {{id: {'r' * 40}, plan: x}}\nnameOverride: a-long-name", "shorten"),
    ]:
        values.write_text(text)
        with pytest.raises(SystemExit, match=re.escape(told)):
            check.render(values)


def test_a_store_may_have_an_address_of_ipv6(tmp_path: Path):
    values = tmp_path / "values.yaml"
    values.write_text(
        "store: {url: 'clickhouse://loadtest@[2001:db8::1]:9000/db'}\nnetworkPolicy: {store: {cidrs: ['2001:db8::1/128']}}\n"
        "grafana: {provision: sidecar}"
    )
    assert check.lint(values) == ""
    rendered = check.render(values)
    source = yaml.safe_load(named(rendered, "ConfigMap", "datasource")["data"]["loadtest.yaml"])["datasources"][0]
    assert (source["jsonData"]["host"], source["jsonData"]["port"]) == ("[2001:db8::1]", 9000)
    assert named(rendered, "NetworkPolicy", "-run")["spec"]["egress"][2]["ports"] == [{"port": 9000, "protocol": "TCP"}]
    values.write_text("store: {url: 'clickhouse://loadtest@2001:db8::1:9000/db'}")
    assert "url" in check.lint(values)


# Each check finds what is wrong


def test_lint_finds_a_broken_template(tmp_path: Path):
    chart = tmp_path / "loadtest"
    shutil.copytree(check.CHART, chart)
    assert check.lint(check.MATRIX / "minimal.yaml", chart) == ""
    template = chart / "templates/serviceaccount.yaml"
    template.write_text(template.read_text().replace("kind: ServiceAccount", "kind ServiceAccount"))
    assert "serviceaccount.yaml" in check.lint(check.MATRIX / "minimal.yaml", chart)


def mutated(rendered: str, kind: str, change: Callable[[Object], object]) -> list[Object]:
    objects = copy.deepcopy(check.objects(rendered))
    for of in objects:
        if of["kind"] == kind:
            change(of)
            return objects
    raise AssertionError(f"no {kind}")


@pytest.mark.parametrize(
    ("values", "kind", "change", "told"),
    [
        ("run", "StatefulSet", lambda of: of["spec"].update(replica=1), "replica"),
        ("run", "RayJob", lambda of: of["spec"].update(entryPoint="x"), "entryPoint"),
        ("run", "RayJob", lambda of: of["spec"]["rayClusterSpec"]["headGroupSpec"].pop("template"), "template"),
        ("cilium", "CronJob", lambda of: of["spec"].update(concurrencyPolicy=1), "concurrencyPolicy"),
        ("cilium", "RayCronJob", lambda of: of["spec"].update(cron="* * * * *"), "cron"),
        ("cilium", "CiliumNetworkPolicy", lambda of: of["spec"].update(egres=[]), "egres"),
        ("regions", "GrafanaDatasource", lambda of: of["spec"].update(uuid="x"), "uuid"),
        ("run", "ServiceMonitor", lambda of: of["spec"]["endpoints"][0].update(prot="metrics"), "prot"),
    ],
)
def test_kubeconform_finds_a_seeded_error(
    rendered: dict[str, str], values: str, kind: str, change: Callable[[Object], object], told: str
):
    wrong = check.kubeconform(yaml.safe_dump_all(mutated(rendered[values], kind, change)))
    assert told in wrong
    assert all(f"Kubernetes {minor}" in wrong for minor in check.KUBERNETES)


POD: Callable[[Object], Object] = lambda of: of["spec"]["template"]["spec"]  # noqa: E731
CONTAINER: Callable[[Object], Object] = lambda of: POD(of)["containers"][0]  # noqa: E731
WORKER: Callable[[Object], Object] = lambda of: of["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]  # noqa: E731


@pytest.mark.parametrize(
    ("values", "kind", "change", "rule"),
    [
        ("run", "StatefulSet", lambda of: POD(of)["securityContext"].pop("runAsNonRoot"), policy.not_root),
        ("run", "StatefulSet", lambda of: POD(of)["securityContext"].pop("seccompProfile"), policy.not_root),
        ("run", "RayJob", lambda of: WORKER(of)["securityContext"].update(runAsUser=0), policy.not_root),
        ("run", "StatefulSet", lambda of: POD(of).update(hostNetwork=True), policy.no_privilege),
        ("run", "StatefulSet", lambda of: POD(of)["volumes"].append({"hostPath": {}}), policy.no_privilege),
        ("run", "StatefulSet", lambda of: CONTAINER(of)["securityContext"].update(privileged=True), policy.no_privilege),
        ("run", "StatefulSet", lambda of: CONTAINER(of)["securityContext"].pop("capabilities"), policy.no_privilege),
        (
            "run", "RayJob",
            lambda of: WORKER(of)["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
            policy.read_only_root,
        ),
        ("run", "StatefulSet", lambda of: CONTAINER(of)["resources"].pop("limits"), policy.limits),
        (
            "run", "RayJob",
            lambda of: WORKER(of)["containers"][0]["resources"].update(
                requests={"cpu": "1500m", "memory": "2Gi"}, limits={"cpu": "1500m", "memory": "2Gi"}
            ),
            policy.limits,
        ),
        ("run", "StatefulSet", lambda of: POD(of).pop("automountServiceAccountToken"), policy.no_token),
        ("run", "StatefulSet", lambda of: CONTAINER(of).update(image="clickhouse/clickhouse-server"), policy.pinned),
        ("run", "StatefulSet", lambda of: CONTAINER(of).update(image="host:5000/server:latest"), policy.pinned),
        (
            "run", "StatefulSet",
            lambda of: CONTAINER(of)["env"].append({"name": "P", "valueFrom": {"secretKeyRef": {}}}),
            policy.no_secret_in_environment,
        ),
        ("run", "RayJob", lambda of: of["spec"].update(backoffLimit=1), policy.once),
        ("run", "RayJob", lambda of: of["spec"]["submitterConfig"].update(backoffLimit=2), policy.once),
        ("run", "RayJob", lambda of: of["spec"].pop("activeDeadlineSeconds"), policy.once),
        ("run", "RayJob", lambda of: WORKER(of).update(restartPolicy="Always"), policy.once),
        ("cilium", "CronJob", lambda of: of["spec"].update(concurrencyPolicy="Allow"), policy.once),
        ("cilium", "CronJob", lambda of: of["spec"]["jobTemplate"]["spec"].pop("backoffLimit"), policy.once),
        ("cilium", "RayCronJob", lambda of: of["spec"]["jobTemplate"].pop("activeDeadlineSeconds"), policy.once),
        ("run", "RayJob", lambda of: of["spec"]["rayClusterSpec"].pop("authOptions"), policy.ray_asks_for_a_token),
    ],
)  # fmt: skip
def test_the_policy_finds_a_seeded_error(
    rendered: dict[str, str], values: str, kind: str, change: Callable[[Object], object], rule: Callable[..., object]
):
    wrong = policy.violations(mutated(rendered[values], kind, change))
    assert len(wrong) == 1
    assert f"{kind}/" in wrong[0]
    assert f": {rule.__name__}: " in wrong[0]


def test_every_rule_of_the_policy_has_a_seeded_error():
    seeded = {
        parameters[3]
        for mark in test_the_policy_finds_a_seeded_error.pytestmark  # type: ignore[attr-defined]
        for parameters in mark.args[1]
    }
    assert seeded == set(policy.RULES)


# What is rendered means what it should


def test_keys_are_files_on_the_driver_only(rendered: dict[str, str]):
    spec = named(rendered["run"], "RayJob")["spec"]["rayClusterSpec"]
    head = spec["headGroupSpec"]["template"]["spec"]
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in head["containers"][0]["volumeMounts"]
    (keys,) = (volume for volume in head["volumes"] if volume["name"] == "keys")
    assert keys["projected"]["sources"] == [
        {"secret": {"name": "acme-loadtest", "items": [{"key": "api-key", "path": "acme"}]}}
    ]
    workers = json.dumps(spec["workerGroupSpecs"])
    assert "secret" not in workers


def test_pods_are_guaranteed_whole_cpus_or_have_no_limit_of_them(rendered: dict[str, str]):
    def resources(values: str) -> list[Object]:
        job = named(rendered[values], "RayJob")["spec"]["rayClusterSpec"]
        groups = [job["headGroupSpec"], *job["workerGroupSpecs"]]
        return [group["template"]["spec"]["containers"][0]["resources"] for group in groups]

    assert all(of["requests"] == of["limits"] and of["limits"]["cpu"].isdigit() for of in resources("run"))
    assert all("cpu" not in of["limits"] and of["requests"]["cpu"] for of in resources("regions"))


def test_a_disruption_budget_lets_no_pod_of_a_run_go(rendered: dict[str, str]):
    for values in ("run", "regions"):
        cluster = named(rendered[values], "RayJob")["spec"]["rayClusterSpec"]
        budget = named(rendered[values], "PodDisruptionBudget", "-run")["spec"]
        assert budget["minAvailable"] == 1 + sum(group["replicas"] for group in cluster["workerGroupSpecs"])
        selected = budget["selector"]["matchLabels"].items()
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            assert selected <= group["template"]["metadata"]["labels"].items()
        submitter = named(rendered[values], "RayJob")["spec"]["submitterPodTemplate"]
        assert not selected <= submitter["metadata"]["labels"].items()


def test_the_network_policy_opens_what_ray_the_store_and_the_targets_need_and_no_more(rendered: dict[str, str]):
    egress = named(rendered["run"], "NetworkPolicy", "-run")["spec"]["egress"]
    blocks = [peer["ipBlock"]["cidr"] for rule in egress for peer in rule["to"] if "ipBlock" in peer]
    assert blocks == ["192.0.2.0/24", "2001:db8::/32"]
    assert all(rule["ports"] for rule in egress)
    ray = next(rule["ports"] for rule in egress if any(port["port"] == 8265 for port in rule["ports"]))
    opened = {port for rule in ray for port in range(rule["port"], rule.get("endPort", rule["port"]) + 1)}
    for group in (named(rendered["run"], "RayJob")["spec"]["rayClusterSpec"][key] for key in ("headGroupSpec",)):
        given = {name: int(value) for name, value in group["rayStartParams"].items() if name.endswith("port")}
        assert {given[name] for name in given if name != "metrics-export-port"} <= opened | {6379}
        assert given["min-worker-port"] in opened
        assert given["max-worker-port"] in opened
    store = named(rendered["regions"], "NetworkPolicy", "-run")["spec"]["egress"][2]
    assert store == {"to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}], "ports": [{"port": 8443, "protocol": "TCP"}]}
    names = [
        rule for rule in named(rendered["cilium"], "CiliumNetworkPolicy", "-run")["spec"]["egress"] if "toFQDNs" in rule
    ]
    assert names[0]["toFQDNs"] == [{"matchName": "inference.acme.example"}]


@pytest.mark.parametrize(("host", "port"), [("db1", 8123), ("10.0.0.5", 8123), ("db1:9000", 9000)])
def test_the_stores_port_is_what_stands_after_its_name(host: str, port: int):
    rendered = check.render(
        check.MATRIX / "cilium-store.yaml",
        check.CHART,
        "--set",
        f"grafana.provision=sidecar,store.url=clickhouse://u@{host}/d",
    )
    egress = named(rendered, "CiliumNetworkPolicy", "-run")["spec"]["egress"]
    to_store = [rule for rule in egress if rule.get("toCIDR") == ["203.0.113.7/32"]]
    assert [rule["toPorts"] for rule in to_store] == [[{"ports": [{"port": str(port), "protocol": "TCP"}]}]]
    source = yaml.safe_load(named(rendered, "ConfigMap", "datasource")["data"]["loadtest.yaml"])["datasources"][0]
    assert source["jsonData"]["port"] == port


@pytest.mark.parametrize(("values", "kind"), [("run", "NetworkPolicy"), ("cilium", "CiliumNetworkPolicy")])
def test_without_readers_no_port_is_open_to_everybody(values: str, kind: str):
    rendered = check.render(
        check.MATRIX / f"{values}.yaml", check.CHART,
        "--set", "networkPolicy.readerNamespaces=null,serviceMonitor.enabled=true",
    )  # fmt: skip
    for of in check.objects(rendered):
        for rule in of["spec"].get("ingress", []) if of["kind"] == kind else []:
            assert rule.get("from") or rule.get("fromEndpoints"), rule


def test_the_data_source_is_the_one_that_the_dashboards_ask(rendered: dict[str, str]):
    uid = set(re.findall(r'"uid": "(loadtest-clickhouse)"', (check.CHART / "files/dashboards/live.json").read_text()))
    source = yaml.safe_load(named(rendered["run"], "ConfigMap", "datasource")["data"]["loadtest.yaml"])["datasources"][
        0
    ]
    assert {source["uid"]} == uid
    assert source["jsonData"]["host"] == "release-clickhouse"
    assert (source["jsonData"]["port"], source["jsonData"]["defaultDatabase"]) == (8123, "loadtest")
    operated = named(rendered["regions"], "GrafanaDatasource")["spec"]
    assert {operated["uid"]} == uid
    assert (
        operated["datasource"]["jsonData"] | {"host": "clickhouse.example", "port": 8443, "secure": True}
        == (operated["datasource"]["jsonData"])
    )
    shown = {
        of["metadata"]["name"]
        for of in check.objects(rendered["run"])
        if "grafana_dashboard" in of["metadata"]["labels"]
    }
    assert len(shown) == len(list((check.CHART / "files/dashboards").glob("*.json")))


def test_a_run_is_told_its_id_so_that_it_runs_once(rendered: dict[str, str]):
    job = named(rendered["run"], "RayJob")
    assert "--run-id nightly-20261125 " in job["spec"]["entrypoint"]
    assert job["spec"]["jobId"] == "nightly-20261125"
    assert named(rendered["run"], "ConfigMap", "nightly-20261125")["immutable"] is True
