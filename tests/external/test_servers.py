"""One small run against each server, both dialects, streamed and not; what is asserted is told in docs/servers.md."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from external.conftest import BIN, Serve
from loadtest.store import open_store
from loadtest.types import ChunkKind

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
EMPTY, CONTENT, USAGE = int(ChunkKind.EMPTY), int(ChunkKind.CONTENT), int(ChunkKind.USAGE)
REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS = 6, 20, 12
TARGETS = ("chat-stream", "chat-whole", "completions-stream", "completions-whole")

PLAN = """
name: external
seed: 1
nonce: fixed
tokenizer: {tokenizer}
targets:
  - &chat {{name: chat-stream, url: "{url}/v1", dialect: openai-chat, model: "{model}"}}
  - {{<<: *chat, name: chat-whole, stream: false}}
  - &text {{<<: *chat, name: completions-stream, dialect: openai-completions}}
  - {{<<: *text, name: completions-whole, stream: false}}
prompts: {{kind: synthetic, input_tokens: {input_tokens}, output_tokens: {output_tokens}}}
stages:
  - {{name: s, arrivals: {{kind: closed}}, concurrency: {concurrency}, requests: {requests}, ramp_up_s: 0.1}}
"""

pytestmark = pytest.mark.timeout(300)

Row = dict[str, Any]


class Run:
    """What one run left: its summary, and each request's row by target."""

    def __init__(self, summary: dict[str, Any], rows: list[Row]) -> None:
        self.summary = summary
        self.rows = {name: [row for row in rows if row["target"] == name] for name in TARGETS}

    def values(self, target: str, column: str) -> set[Any]:
        return {row[column] for row in self.rows[target]}

    def kinds(self, target: str) -> list[list[int]]:
        return [row["chunk_kind"] for row in self.rows[target]]


def run(directory: Path, url: str, model: str, tokenizer: Path, concurrency: int = 2) -> Run:
    plan = directory / "plan.yaml"
    plan.write_text(
        PLAN.format(
            url=url,
            model=model,
            tokenizer=tokenizer,
            concurrency=concurrency,
            requests=REQUESTS,
            input_tokens=INPUT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
        )
    )
    done = subprocess.run(
        [LOADTEST, "run", str(plan), "--store", str(directory / "store"), "--out", str(directory / "out"), "--quiet"],
        capture_output=True, text=True, timeout=250, cwd=directory,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: a busy machine may be too slow for a valid run
    summary = json.loads((directory / "out/summary.json").read_text())
    integrity = summary["integrity"]
    assert integrity["scheduled"] == integrity["sent"] == integrity["stored"] == REQUESTS * len(TARGETS)
    with open_store(str(directory / "store")) as store:
        return Run(summary, store.query("SELECT * FROM requests ORDER BY target, seq"))


def assert_sound(run: Run) -> None:
    """What must be so of every server, whatever its ways."""
    for target in TARGETS:
        assert run.values(target, "error") == {""}, run.values(target, "error_detail")
        assert run.values(target, "status") == {200}
        assert run.values(target, "finish_reason") <= {"length", "stop"}
        assert run.values(target, "streamed") == {target.endswith("stream")}
        assert run.values(target, "clock") == {"kernel" if sys.platform == "linux" else "user"}
        for row in run.rows[target]:
            offsets = [0, *row["chunk_offset_ns"]]
            assert offsets == sorted(offsets), "no chunk came before the request was sent, or before its predecessor"
            assert row["done_ns"] >= row["sent_ns"] + offsets[-1]
            assert CONTENT in row["chunk_kind"]
            assert row["output_tokens"] >= 1
    for target in ("chat-whole", "completions-whole"):
        assert run.kinds(target) == [[CONTENT]] * REQUESTS
        assert run.values(target, "token_source") == {"usage"}


def token_chunks(kinds: list[int]) -> int:
    return sum(kind == CONTENT for kind in kinds)


def test_transformers_serve(serve: Serve, transformers_model: Path, tokenizer: Path, tmp_path: Path) -> None:
    model = str(transformers_model)
    argv = [str(BIN / "transformers"), "serve", model, "--device", "cpu", "--host", "127.0.0.1", "--port", "{port}"]
    found = run(tmp_path, serve(argv, "/health"), model, tokenizer)
    assert_sound(found)
    for target in TARGETS:
        assert found.values(target, "output_tokens") <= set(range(1, OUTPUT_TOKENS + 1))
        assert all(found.values(target, "request_id")), "every answer has an x-request-id"
        assert found.values(target, "response_model") == {f"{model}@main"}
        template = (
            0 if target.startswith("completions") else next(iter(found.values(target, "input_tokens"))) - INPUT_TOKENS
        )
        assert template == 0 or template > 2, "the chat template has tokens of its own"
        assert found.values(target, "input_tokens") == {INPUT_TOKENS + template}, "prompts are as long as asked for"
    for target, first in (("chat-stream", EMPTY), ("completions-stream", CONTENT)):
        assert found.values(target, "token_source") <= {"usage", "usage_matched"}
        for row in found.rows[target]:
            kinds = row["chunk_kind"]
            assert kinds[0] == first, "a chat begins with its role alone"
            assert kinds[-1] == USAGE, "usage comes with the finish reason, in a chunk that carries nothing; no [DONE]"
            assert set(kinds[1:-1]) == {CONTENT}
            assert token_chunks(kinds) <= row["output_tokens"], "text of several tokens may come in one chunk"
            assert (row["token_source"] == "usage_matched") == (token_chunks(kinds) == row["output_tokens"])


def llama(model: Path, *options: str) -> list[str]:
    argv = [str(BIN / "python"), "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "tiny"]
    return [*argv, "--host", "127.0.0.1", "--port", "{port}", "--n_threads", "1", "--verbose", "False", *options]


def test_llama_cpp_server(serve: Serve, gguf_model: Path, tokenizer: Path, tmp_path: Path) -> None:
    url = serve(llama(gguf_model, "--interrupt_requests", "False"), "/v1/models")
    found = run(tmp_path, url, "tiny", tokenizer)
    assert_sound(found)
    for target in TARGETS:
        assert all(found.values(target, "request_id"))
        assert found.values(target, "response_model") == {"tiny"}
    for target, first in (("chat-stream", EMPTY), ("completions-stream", CONTENT)):
        assert found.values(target, "token_source") == {"tokenizer"}, "a stream has no usage, though it was asked for"
        assert found.values(target, "input_tokens") == {INPUT_TOKENS}, "the text alone, without the chat template"
        for row in found.rows[target]:
            kinds = row["chunk_kind"]
            assert USAGE not in kinds
            assert first == CONTENT or kinds[0] == EMPTY, "a chat begins with its role alone"
            assert kinds[-1] == EMPTY, "the finish reason comes alone"
            assert set(kinds) <= {EMPTY, CONTENT}, "a token that is half a character makes a chunk without text"
            assert sum(row["chunk_tokens"]) == row["output_tokens"]
    assert found.values("completions-whole", "input_tokens") == {INPUT_TOKENS}, "its usage agrees with the tokenizer"
    (with_template,) = found.values("chat-whole", "input_tokens")
    assert with_template > INPUT_TOKENS


def test_llama_cpp_server_cuts_streams_short_unless_told_not_to(
    serve: Serve, gguf_model: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """By default a new request ends the stream under way, with [DONE] and without a finish reason."""
    found = run(tmp_path, serve(llama(gguf_model), "/v1/models"), "tiny", tokenizer, concurrency=4)
    streams = [row for target in ("chat-stream", "completions-stream") for row in found.rows[target]]
    cut = [row for row in streams if row["finish_reason"] == ""]
    assert cut
    assert {row["error"] for row in cut} <= {"", "empty"}, "what was cut before its first token is no answer"
    assert all(row["output_tokens"] < OUTPUT_TOKENS for row in cut)


def test_guidellm_mock_server(serve: Serve, tokenizer: Path, tmp_path: Path) -> None:
    argv = [str(BIN / "guidellm"), "mock-server", "--host", "127.0.0.1", "--port", "{port}", "--model", "tiny"]
    url = serve([*argv, "--ttft-ms", "20", "--itl-ms", "5"], "/v1/models")
    found = run(tmp_path, url, "tiny", tokenizer)
    assert_sound(found)
    for target in TARGETS:
        assert found.values(target, "output_tokens") == {OUTPUT_TOKENS}
        assert found.values(target, "input_tokens") == {2 * INPUT_TOKENS - 1}, "it counts words and the spaces between"
        assert found.values(target, "request_id") == {""}
        assert found.values(target, "finish_reason") == {"stop"}
    for target in ("chat-stream", "completions-stream"):
        assert found.values(target, "token_source") == {"usage_matched"}
        assert found.kinds(target) == [[CONTENT] * OUTPUT_TOKENS + [EMPTY, USAGE]] * REQUESTS, "no role-only chunk"
        figures = found.summary["targets"][target]["stages"]["s"]
        assert figures["ttft_ms"]["p50"] >= 20, "it waits so long before the first token"
        assert figures["itl_ms"]["p50"] >= 5
        assert figures["e2e_ms"]["p50"] >= 20 + 5 * (OUTPUT_TOKENS - 1)
