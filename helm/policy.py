"""What every object that the chart makes must be, besides valid: rules over rendered YAML, each with its reason.

A rule takes one object and yields what is wrong with it. `pods` finds pod templates wherever they are, so that a RayJob's
head and workers are held to the same as a StatefulSet's.
"""

from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]


def pods(part: Any, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every pod's spec in an object, and where it stands."""
    if isinstance(part, dict):
        if isinstance(part.get("containers"), list):
            yield path, part
        for key, value in part.items():
            yield from pods(value, f"{path}.{key}" if path else key)
    elif isinstance(part, list):
        for index, value in enumerate(part):
            yield from pods(value, f"{path}[{index}]")


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def not_root(of: Object) -> Iterator[str]:
    for path, spec in pods(of):
        context = spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{path} may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{path} has no seccomp profile"


def no_privilege(of: Object) -> Iterator[str]:
    for path, spec in pods(of):
        if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{path} shares a namespace of its host"
        if any("hostPath" in volume for volume in spec.get("volumes", [])):
            yield f"{path} mounts a directory of its host"
        for container in containers(spec):
            context = container.get("securityContext", {})
            if context.get("privileged") is not False or context.get("allowPrivilegeEscalation") is not False:
                yield f"{path}: {container['name']} may gain privileges"
            if context.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{path}: {container['name']} keeps capabilities"


def read_only_root(of: Object) -> Iterator[str]:
    for path, spec in pods(of):
        for container in containers(spec):
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{path}: {container['name']} may write to its image"


def limits(of: Object) -> Iterator[str]:
    """Memory is limited, and as requested. CPU has no limit, or whole CPUs that are requested: else a worker is throttled."""
    for path, spec in pods(of):
        for container in containers(spec):
            requests, limited = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
            if not limited.get("memory") or requests.get("memory") != limited["memory"]:
                yield f"{path}: {container['name']} has no limit of memory, or requests another"
            if not requests.get("cpu"):
                yield f"{path}: {container['name']} requests no CPU"
            cpu = limited.get("cpu")
            if cpu is not None and (not str(cpu).isdigit() or cpu != requests.get("cpu")):
                yield f"{path}: {container['name']} is limited to {cpu} CPUs; whole ones as requested, or no limit"


def no_token(of: Object) -> Iterator[str]:
    for path, spec in pods(of):
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{path} mounts a token of the cluster, which nothing here needs"


def pinned(of: Object) -> Iterator[str]:
    for path, spec in pods(of):
        for container in containers(spec):
            name, _, tag = container["image"].rpartition(":")
            if "/" in tag or not name or tag == "latest":
                yield f"{path}: the image {container['image']} is not pinned"


def no_secret_in_environment(of: Object) -> Iterator[str]:
    for path, spec in pods(of):
        for container in containers(spec):
            if container.get("envFrom") or any("secretKeyRef" in str(item) for item in container.get("env", [])):
                yield f"{path}: {container['name']} has a secret in its environment; mount it as a file"


def once(of: Object) -> Iterator[str]:
    """Nothing that sends load is tried again or goes on for ever: it would repeat load outside its window."""
    spec = of.get("spec", {})
    match of["kind"]:
        case "Job":
            jobs = [spec]
        case "CronJob":
            jobs = [spec["jobTemplate"]["spec"]]
            if spec.get("concurrencyPolicy") != "Forbid" or not spec.get("startingDeadlineSeconds"):
                yield "spec lets probes overlap or start late"
        case "RayJob":
            jobs = [spec]
        case "RayCronJob":
            jobs = [spec["jobTemplate"]]
        case _:
            return
    for job in jobs:
        if job.get("backoffLimit") != 0 or job.get("submitterConfig", {}).get("backoffLimit", 0) != 0:
            yield "spec.backoffLimit is not 0: a failed run would be sent again"
        if not job.get("activeDeadlineSeconds"):
            yield "spec.activeDeadlineSeconds is missing: nothing ends it"
        if "Ray" in of["kind"] and not job.get("shutdownAfterJobFinishes"):
            yield "spec.shutdownAfterJobFinishes is not set: the cluster stays"
        for path, pod in pods(job):
            if pod.get("restartPolicy") != "Never":
                yield f"{path}.restartPolicy is not Never"


def ray_asks_for_a_token(of: Object) -> Iterator[str]:
    for cluster in _clusters(of):
        if cluster.get("authOptions", {}).get("mode") != "token":
            yield "Ray runs whatever code anybody sends it: authOptions.mode must be token"


def _clusters(of: Object) -> Iterator[Object]:
    spec = of.get("spec", {})
    found = {
        "RayCluster": spec,
        "RayJob": spec.get("rayClusterSpec"),
        "RayCronJob": spec.get("jobTemplate", {}).get("rayClusterSpec"),
    }
    if of["kind"] in found:
        yield found[of["kind"]] or {}


RULES: tuple[Callable[[Object], Iterator[str]], ...] = (
    not_root, no_privilege, read_only_root, limits, no_token, pinned, no_secret_in_environment, once, ray_asks_for_a_token,
)  # fmt: skip


def violations(objects: list[Object]) -> list[str]:
    """What is wrong, a line each: `kind/name: rule: what`."""
    return [
        f"{of['kind']}/{of['metadata']['name']}: {rule.__name__}: {wrong}"
        for of in objects
        for rule in RULES
        for wrong in rule(of)
    ]
