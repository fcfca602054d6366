"""JSON schemas for kubeconform, made from what their projects publish as Go modules; nothing of it is kept in this repository.

Kubernetes' own kinds come from the OpenAPI document of each minor version, the others from the CustomResourceDefinitions of
their operators. kubeconform's usual source of both is a web site; a Go module is pinned and has a checksum.
Run as `python helm/schemas.py DIRECTORY`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = ("v1.37.2", "v1.36.3", "v1.35.4")
"""The three newest minors of Kubernetes."""
CRDS = (  # module, version, files, kinds
    (
        "github.com/ray-project/kuberay/ray-operator", "v1.6.2", "config/crd/bases/ray.io_*.yaml",
        ("RayJob", "RayCluster", "RayCronJob"),
    ),
    (
        "github.com/prometheus-operator/prometheus-operator", "v0.85.0",
        "example/prometheus-operator-crd/*_servicemonitors.yaml", ("ServiceMonitor",),
    ),
    (
        "github.com/cilium/cilium", "v1.20.2", "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml",
        ("CiliumNetworkPolicy",),
    ),
    (
        "github.com/grafana/grafana-operator/v5", "v5.24.0", "config/crd/bases/grafana.integreatly.org_grafanada*.yaml",
        ("GrafanaDashboard", "GrafanaDatasource"),
    ),
)  # fmt: skip
LEAVE_OUT = ("description", "x-kubernetes-validations", "example", "externalDocs")
CONDITIONS = ("anyOf", "oneOf", "allOf", "not")
OPEN = {"x-kubernetes-preserve-unknown-fields", "additionalProperties"}
SPECIAL = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["number", "string"]},
}


def directory_of(module: str, version: str) -> Path:
    """Where the go command keeps the module; it is fetched if need be."""
    command = ["go", "mod", "download", "-json", f"{module}@{version}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    answer = json.loads(done.stdout or "{}")
    if done.returncode or "Dir" not in answer:
        sys.exit(f"{module}@{version} cannot be had: {answer.get('Error') or done.stderr}")
    return Path(answer["Dir"])


def strict(schema: Any, whole: bool = True) -> Any:
    """The same without prose, and with objects that have no other fields than those named: a mistyped one is an error.

    Not `whole`: one of several conditions on the same object, of which none names all its fields.
    """
    if isinstance(schema, list):
        return [strict(item, whole) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: strict(value, whole) for name, value in inner.items()}
        if key == "properties"
        else strict(inner, whole and key not in CONDITIONS)
        for key, inner in schema.items()
        if key not in LEAVE_OUT
    }
    if whole and "properties" in made and not OPEN & made.keys():
        made["additionalProperties"] = False
    if made.get("x-kubernetes-int-or-string"):
        made = {"type": ["integer", "string"]}
    return made


def reachable(definitions: dict[str, Any], name: str) -> dict[str, Any]:
    """The definitions that one of them needs, itself included."""
    found: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = SPECIAL.get(name) or strict(definitions[name])
            waiting += [reference.rpartition("/")[2] for reference in references(found[name])]
    return found


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from references(item)


def of_kubernetes(version: str, out: Path) -> None:
    document = json.loads((directory_of("k8s.io/kubernetes", version) / "api/openapi-spec/swagger.json").read_text())
    definitions = document["definitions"]
    folder = out / version
    folder.mkdir(parents=True, exist_ok=True)
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if not name.startswith("io.k8s.api.") or name.endswith("List"):
                continue
            found = reachable(definitions, name)
            schema = {**found.pop(name), "definitions": found}
            group = kind["group"] or kind["version"]  # as kubeconform names the core's
            (folder / f"{group}_{kind['kind']}_{kind['version']}.json".lower()).write_text(json.dumps(schema))


def of_operators(out: Path) -> None:
    folder = out / "crds"
    folder.mkdir(parents=True, exist_ok=True)
    for module, version, files, kinds in CRDS:
        for path in directory_of(module, version).glob(files):
            resource = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
            if resource["names"]["kind"] not in kinds:
                continue
            for offered in resource["versions"]:
                schema = strict(offered["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                name = f"{resource['group']}_{resource['names']['kind']}_{offered['name']}.json".lower()
                (folder / name).write_text(json.dumps(schema))


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    for minor in KUBERNETES:
        of_kubernetes(minor, directory)
    of_operators(directory)
