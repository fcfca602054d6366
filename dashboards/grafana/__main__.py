"""Write what is made of the tables and committed: `python -m dashboards.grafana`."""

import json
from pathlib import Path

from dashboards.grafana import build, files

DASHBOARDS = Path(__file__).parent / "dashboards"
CHART = Path(__file__).parents[2] / "helm" / "loadtest" / "files"  # helm reads nothing outside its chart
PROVISIONING = Path(__file__).parents[2] / "deploy" / "grafana" / "provisioning"


def texts() -> dict[Path, str]:
    """File -> what it must hold."""
    dashboards = {
        DASHBOARDS / f"{name}.json": json.dumps(made, indent=1) + "\n" for name, made in build.dashboards().items()
    }
    provisioning = files.texts()
    return (
        dashboards
        | {PROVISIONING / name: text for name, text in provisioning.items()}
        | {CHART / "dashboards" / path.name: text for path, text in dashboards.items()}
        | {CHART / "alerting.yaml": provisioning["alerting/loadtest.yaml"]}
    )


if __name__ == "__main__":
    for path, text in texts().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
