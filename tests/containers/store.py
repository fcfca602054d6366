"""Stands in for ClickHouse, of which no build can be had from a package registry: the embedded engine behind the same HTTP
interface, with the users and passwords of compose's secrets, of which the server itself has hashes only.
`python store.py DIRECTORY SECRETS`."""

import sys
from pathlib import Path

import uvicorn

from loadtest.store.engine import Engine
from loadtest.store.http import Interface

if __name__ == "__main__":
    made = Path(sys.argv[2])
    passwords = {"loadtest": (made / "password").read_text(), "reader": (made / "reader-password").read_text()}
    engine = Engine(Path(sys.argv[1]), "loadtest")
    uvicorn.run(Interface(engine, passwords), host="0.0.0.0", port=8123, log_level="warning")
