"""What the set-up leaves behind: the packages that it says, and lock files that name no place."""

import re
from importlib.metadata import version
from pathlib import Path

import urllib3

ROOT = Path(__file__).parent.parent


def test_urllib3_is_itself() -> None:
    """urllib3-future, which comes with grafana-client, writes itself over it unless it is installed first."""
    assert urllib3.__version__ == version("urllib3")


def test_lock_files_hold_hashes_and_no_addresses() -> None:
    locks = sorted(ROOT.glob("**/requirements*.lock"))
    assert len(locks) >= 5
    for lock in locks:
        text = lock.read_text()
        assert not re.search(r"https?://|^-i|index-url", text, re.MULTILINE), lock
        pinned = re.findall(r"^\S+==\S+", text, re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^\S+==[^\n]* \\\n    --hash=sha256:", text, re.MULTILINE)), lock
