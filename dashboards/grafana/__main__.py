"""Write the dashboards as JSON beside this file: `python -m dashboards.grafana`."""

import json
from pathlib import Path

from dashboards.grafana import build

DIRECTORY = Path(__file__).parent / "dashboards"


def texts() -> dict[str, str]:
    """File name -> what it must hold."""
    return {f"{name}.json": json.dumps(made, indent=1) + "\n" for name, made in build.dashboards().items()}


if __name__ == "__main__":
    for name, text in texts().items():
        (DIRECTORY / name).write_text(text)
        print(DIRECTORY / name)
