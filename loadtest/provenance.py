"""Who measured what, from where and under which key: what a report must state for the other side to check it.

A key is told by a fingerprint that its owner can work out too, `printf %s "$KEY" | sha256sum | cut -c1-16`, and nobody can
turn back. That holds for keys as providers make them, drawn at random; of a short one nothing is told, since whoever
tries all short ones would find it.
"""

import platform
import socket
from collections.abc import Mapping
from hashlib import file_digest, sha256

from msgspec import Struct, field

from loadtest import __version__
from loadtest.prompts import Dataset
from loadtest.types import Plan

SHORTEST = 20  # characters of a key that is fingerprinted
DIGITS = 16
TOO_SHORT = "too short to be fingerprinted"


class Provenance(Struct, kw_only=True):
    """Stored with the run. Of a run of an older version, all is empty."""

    host: str = ""  # the driver's
    nodes: list[str] = field(default_factory=list)  # others that workers ran on
    system: str = ""
    python: str = ""
    version: str = ""  # of the loadtest that measured
    keys: dict[str, str] = field(default_factory=dict)  # target -> its key's fingerprint
    prompts_sha256: str = ""  # of the dataset's file, as it was before the run


def provenance(plan: Plan, keys: Mapping[str, str]) -> Provenance:
    """Before the run; `nodes` are known after it. `keys`: the secrets, of which only fingerprints are kept."""
    return Provenance(
        host=socket.gethostname(),
        system=platform.platform(),
        python=platform.python_version(),
        version=__version__,
        keys={target.name: fingerprint(keys[target.name]) for target in plan.targets if target.name in keys},
        prompts_sha256=_sha256(plan.prompts.path) if isinstance(plan.prompts, Dataset) else "",
    )


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def fingerprint(key: str) -> str:
    if len(key) < SHORTEST:
        return TOO_SHORT
    return f"sha256:{sha256(key.encode()).hexdigest()[:DIGITS]}"
