"""`make chart`: the chart is copied together, linted, rendered for every values file in helm/ci, and held to the schemas
of Kubernetes and the operators (kubeconform) and to our own policy. Exits with 1 where anything is wrong.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from helm import policy
from helm.schemas import KUBERNETES

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm" / "loadtest"
MATRIX = ROOT / "helm" / "ci"
TOOLS = ROOT / ".tools"


def shared() -> Iterator[tuple[Path, Path]]:
    """What the chart has from elsewhere, since helm reads no file outside it: original and copy."""
    yield ROOT / "deploy/clickhouse/config.xml", CHART / "files/clickhouse-config.xml"
    yield ROOT / "deploy/grafana/provisioning/alerting/loadtest.yaml", CHART / "files/alerting.yaml"
    for dashboard in sorted((ROOT / "dashboards/grafana/dashboards").glob("*.json")):
        yield dashboard, CHART / "files/dashboards" / dashboard.name


def copy() -> None:
    for stale in (CHART / "files/dashboards").glob("*.json"):
        stale.unlink()
    for original, made in shared():
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(original.read_bytes())


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOLS / "bin/helm", *arguments], capture_output=True, text=True)


def lint(values: Path, chart: Path = CHART) -> str:
    """What is wrong; empty where nothing is."""
    done = helm("lint", "--strict", chart, "--values", values)
    return (done.stdout + done.stderr) if done.returncode else ""


def render(values: Path, chart: Path = CHART, *arguments: str) -> str:
    done = helm("template", "release", chart, "--namespace", "loadtest", "--values", values, *arguments)
    if done.returncode:
        raise SystemExit(f"helm template {values.name}: {done.stderr}")
    return done.stdout


def kubeconform(rendered: str, minors: Sequence[str] = KUBERNETES) -> str:
    """What is wrong against any of the minors; empty where nothing is."""
    wrong = []
    schemas = TOOLS / "schemas"
    name = "{{.Group}}_{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
    for minor in minors:
        done = subprocess.run(
            [
                TOOLS / "bin/kubeconform", "-strict", "-kubernetes-version", minor.removeprefix("v"),
                "-schema-location", f"{schemas}/{minor}/{name}", "-schema-location", f"{schemas}/crds/{name}", "-",
            ],
            input=rendered, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            wrong.append(f"Kubernetes {minor}: {done.stdout}{done.stderr}")
    return "\n".join(wrong)


def objects(rendered: str) -> list[dict[str, Any]]:
    return [found for found in yaml.load_all(rendered, yaml.CSafeLoader) if found]


def check(values: Path) -> Iterator[str]:
    yield lint(values)
    rendered = render(values)
    yield kubeconform(rendered)
    yield "\n".join(policy.violations(objects(rendered)))


def main() -> int:
    copy()
    failed = False
    for values in sorted(MATRIX.glob("*.yaml")):
        problems = [problem for problem in check(values) if problem]
        failed = failed or bool(problems)
        print(f"{values.name:<20} {'FAILED' if problems else 'lint, template, kubeconform, policy: clean'}")
        for problem in problems:
            print(problem)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
