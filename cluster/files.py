"""The files that a plan names, for nodes that do not have them: their bytes travel, and the plan is told where they landed."""

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from loadtest import tokens
from loadtest.frames import Setup
from loadtest.prompts import Dataset
from loadtest.types import Plan


def named_by(plan: Plan) -> list[str]:
    """Paths of the dataset, the listeners, the certificates with their keys, and the tokenizers, each once."""
    certificates = [path for t in plan.targets for path in (t.ca_file, t.client_cert, t.client_key)]
    paths = [plan.fleet.listeners, *certificates, *tokens.named_by(plan)]
    if isinstance(plan.prompts, Dataset):
        paths.append(plan.prompts.path)
    return sorted({path for path in paths if path})


def write(files: Mapping[str, bytes], directory: Path) -> dict[str, str]:
    """Returns old path -> new path. Nobody else on the node may read them: one may be a client's key."""
    moved = {}
    for index, (path, content) in enumerate(files.items()):
        new = directory / f"{index}-{Path(path).name}"
        new.touch(mode=0o600)
        new.write_bytes(content)
        moved[path] = str(new)
    return moved


def landed(setup: Setup, directory: Path) -> Setup:
    """With its locustfile and what that imports from its own directory, if it has one, on this node."""
    if setup.locust is None:
        return setup
    there, here = Path(setup.locust.locustfile).parent, directory / "locustfile"
    for path, content in setup.locust.files.items():
        file = here / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    moved = str(here / Path(setup.locust.locustfile).relative_to(there))
    return replace(setup, locust=replace(setup.locust, locustfile=moved))


def relocated(plan: Plan, moved: Mapping[str, str]) -> Plan:
    def at(path: str | None) -> str | None:
        return None if path is None else moved.get(path, path)

    plan = tokens.relocated(plan, moved)
    prompts = plan.prompts
    if isinstance(prompts, Dataset):
        prompts = replace(prompts, path=moved.get(prompts.path, prompts.path))
    targets = [
        replace(t, ca_file=at(t.ca_file), client_cert=at(t.client_cert), client_key=at(t.client_key))
        for t in plan.targets
    ]
    return replace(
        plan, prompts=prompts, targets=targets, fleet=replace(plan.fleet, listeners=at(plan.fleet.listeners))
    )
