"""A few seconds of coverage-guided fuzzing, begun with what the conformance suite sends. Longer: see fuzz_decoders.py."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httptools
import pytest

from tests.conformance import cases
from tests.conformance.cases import Case
from tests.conformance.voices import CHAT, COMPLETIONS

SECONDS = 5
LARGEST = 4096  # bytes of an input


class Body:
    """The body and the coding of an answer, as far as it is one."""

    def __init__(self, case: Case) -> None:
        self.body = b""
        self.coding = ""
        try:
            httptools.HttpResponseParser(self).feed_data(
                b"".join(step for step in case.sends if isinstance(step, bytes))
            )
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            pass  # what came until then

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-encoding":
            self.coding = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body


def corpus() -> Iterator[bytes]:
    """Inputs of fuzz_decoders: dialect, coding, length of the pieces, body."""
    codings = ("", "br", "deflate", "gzip", "x-gzip", "zstd")
    for dialect, voice in ((1, COMPLETIONS), (2, CHAT)):
        for case in cases.of(voice):
            found = Body(case)
            if found.body and len(found.body) < LARGEST and found.coding in codings:
                yield bytes([dialect, codings.index(found.coding), 0]) + found.body
                yield bytes([dialect, codings.index(found.coding), 7]) + found.body


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheels for this system")
def test_the_decoders_under_coverage_guided_fuzzing(tmp_path: Path) -> None:
    """No exception, no input that takes seconds, no memory that grows."""
    directory = tmp_path / "corpus"
    directory.mkdir()
    for number, data in enumerate(corpus()):
        (directory / str(number)).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.fuzz_decoders", str(directory), f"-max_total_time={SECONDS}",
         "-timeout=10", "-rss_limit_mb=1024", f"-max_len={LARGEST}", "-seed=1", f"-artifact_prefix={tmp_path}/"],
        capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [runs] = re.findall(r"Done (\d+) runs", done.stderr)
    assert int(runs) > len(list(directory.iterdir())), "more than what it began with"
