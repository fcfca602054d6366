"""Tokenizers: where they are found, what they count, and to which chunk a token belongs."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import made_tokenizers as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import tokens
from loadtest.types import ChunkKind

REASONING, CONTENT, TOOL_CALL = int(ChunkKind.REASONING), int(ChunkKind.CONTENT), int(ChunkKind.TOOL_CALL)
EMPTY, USAGE = int(ChunkKind.EMPTY), int(ChunkKind.USAGE)


@cache
def tokenizer(kind: str) -> tokens.Tokenizer:
    opened = tokens.Tokenizer.__new__(tokens.Tokenizer)
    opened._model = made.KINDS[kind]()
    return opened


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tokens.Tokenizer:
    """A token for each of the common words, with and without the space before it."""
    return tokens.Tokenizer(made.save(made.byte_level(2000), tmp_path_factory.mktemp("words")))


def test_counts_are_of_the_text_alone(words: tokens.Tokenizer) -> None:
    assert words.count("") == 0
    assert words.count("about") == 1
    assert words.count("about the house") == 3
    assert words.ends("about the house") == [5, 9, 15]


def test_a_file_that_asks_for_truncation_and_padding_still_counts_everything(tmp_path: Path) -> None:
    model = made.byte_level(2000)
    model.enable_truncation(4)
    model.enable_padding(length=16)
    opened = tokens.Tokenizer(made.save(model, tmp_path))
    assert opened.count("about") == 1
    assert opened.count("about " * 9 + "about") == 10


def test_a_token_belongs_to_the_chunk_that_brought_its_last_character(words: tokens.Tokenizer) -> None:
    # "about| act| after": tokens end at 5, 9 and 15
    assert tokens.per_chunk(words, [CONTENT] * 4, ["ab", "out a", "ct af", "ter"]) == [0, 1, 1, 1]
    assert tokens.per_chunk(words, [CONTENT] * 2, ["about act", " after"]) == [2, 1]


def test_chunks_without_text_have_no_tokens_and_do_not_part_a_word(words: tokens.Tokenizer) -> None:
    kinds = [EMPTY, CONTENT, EMPTY, CONTENT, USAGE]
    assert tokens.per_chunk(words, kinds, ["", "ab", "", "out act", ""]) == [0, 0, 0, 2, 0]
    assert tokens.per_chunk(words, [], []) == []
    assert tokens.per_chunk(words, [EMPTY], [""]) == [0]


def test_reasoning_and_content_are_two_texts(words: tokens.Tokenizer) -> None:
    # as one text, "ab" and "out" would be the one token "about"
    alone = words.count("ab") + words.count("out")
    assert alone > words.count("about") == 1
    assert sum(tokens.per_chunk(words, [REASONING, CONTENT], ["ab", "out"])) == alone
    assert tokens.per_chunk(words, [REASONING, TOOL_CALL, TOOL_CALL], [" the", " house", " act"]) == [1, 1, 1]


def test_a_character_of_several_tokens_counts_where_it_arrived(words: tokens.Tokenizer) -> None:
    # nothing was learned of it: each of its four bytes is a token
    assert tokens.per_chunk(words, [CONTENT] * 3, ["about", "\U0001f44d", " the"]) == [1, 4, 1]


@given(
    kind=st.sampled_from(sorted(made.KINDS)),
    pieces=st.lists(
        st.tuples(
            st.sampled_from([CONTENT, REASONING, EMPTY]),
            st.text(max_size=12) | st.sampled_from([" the", "house", " ", "\n\n", "é", "\u200d", "ﬁ", "\ud83d"]),
        ),
        max_size=12,
    ),
)
def test_the_sum_over_chunks_is_the_count_of_the_text(kind: str, pieces: list[tuple[int, str]]) -> None:
    opened = tokenizer(kind)
    texts = ["" if kind == EMPTY else text for kind, text in pieces]
    counts = tokens.per_chunk(opened, [kind for kind, _ in pieces], texts)
    runs: list[tuple[int, str]] = []
    for (kind_of_chunk, _), text in zip(pieces, texts, strict=True):
        if text and runs and runs[-1][0] == kind_of_chunk:
            runs[-1] = kind_of_chunk, runs[-1][1] + text
        elif text:
            runs.append((kind_of_chunk, text))
    assert sum(counts) == sum(opened.count(text) for _, text in runs)
    assert all(text or not count for text, count in zip(texts, counts, strict=True))


# Where it is found


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("/models/llama", True),
        ("./llama", True),
        ("../llama", True),
        ("~/llama", True),
        ("tokenizer.json", True),
        ("models/llama/v1", True),
        ("gpt2", False),
        ("meta-llama/Llama-3.1-8B", False),
    ],
)
def test_what_has_the_form_of_a_path_is_one(reference: str, path: bool) -> None:
    assert tokens.is_path(reference) is path


def test_a_file_and_its_directory_are_the_same_tokenizer(tmp_path: Path) -> None:
    path = made.save(made.byte_level(300), tmp_path)
    assert tokens.file_of(str(tmp_path)) == tokens.file_of(str(path)) == path


def test_a_path_without_a_tokenizer_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist; give the path of a tokenizer.json, or of the dir"):
        tokens.file_of(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"/tokenizer.json does not exist; give the path"):
        tokens.file_of(str(tmp_path))
    wrong = tmp_path / "tokenizer.json"
    wrong.write_text('{"name": "no tokenizer"}')
    with pytest.raises(ValueError, match=r"is not a tokenizer that can be read: .*; give the path"):
        tokens.Tokenizer(wrong)
    wrong.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is not a tokenizer that can be read"):
        tokens.Tokenizer(wrong)


class Hub(BaseHTTPRequestHandler):
    """What of the Hugging Face hub a download of one file asks for."""

    files: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        model = self.path.partition("/resolve/")[0].strip("/")
        content = self.files.get(model)
        if content is None:
            error = {"gated/model": "GatedRepo", "no/tokenizer": "EntryNotFound"}.get(model, "RepoNotFound")
            self._answer(403 if error == "GatedRepo" else 404, b"", {"X-Error-Code": error})
        else:
            self._answer(200, content, {"ETag": '"e0"', "X-Repo-Commit": "c" * 40})

    do_HEAD = do_GET

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Not to the terminal."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    saved = made.save(made.byte_level(2000), tmp_path_factory.mktemp("hub"))
    Hub.files, Hub.asked = {"some/model": saved.read_bytes()}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


ASK = """
import json, sys
from loadtest import tokens
out = {}
for name in sys.argv[1:]:
    try:
        out[name] = tokens.Tokenizer(tokens.file_of(name)).count("about the house")
    except ValueError as e:
        out[name] = str(e)
print(json.dumps(out))
"""


def ask(home: Path, *names: str, **environment: str) -> dict[str, int | str]:
    """In a process of its own: the library reads its environment when it is imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env={**clean, "HF_HOME": str(home), **environment},
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    answers: dict[str, int | str] = json.loads(done.stdout)
    return answers


def test_a_name_is_fetched_from_the_hub_once_and_then_taken_from_its_cache(hub: str, tmp_path: Path) -> None:
    assert ask(tmp_path, "some/model", HF_ENDPOINT=hub) == {"some/model": 3}
    before = len(Hub.asked)
    assert ask(tmp_path, "some/model", HF_ENDPOINT=hub) == {"some/model": 3}
    assert len(Hub.asked) == before, "what is cached is not asked for again"
    assert ask(tmp_path, "some/model", HF_HUB_OFFLINE="1") == {"some/model": 3}


def test_a_name_that_cannot_be_had_says_to_give_a_path(hub: str, tmp_path: Path) -> None:
    begin, end = (
        "it could not be had from the Hugging Face hub: ",
        ("; give the path of a tokenizer.json, or of the directory that holds it"),
    )
    assert ask(tmp_path, "gated/model", "no/tokenizer", "not/there", HF_ENDPOINT=hub) == {
        "gated/model": f"{begin}its owner has to let you in, and HF_TOKEN must be set{end}",
        "no/tokenizer": f"{begin}the model has no tokenizer.json{end}",
        "not/there": f"{begin}there is no such model, or HF_TOKEN is not set for it{end}",
    }
    assert ask(tmp_path, "not/there", HF_HUB_OFFLINE="1") == {
        "not/there": f"{begin}HF_HUB_OFFLINE is set, and its cache on this machine does not hold it{end}"
    }
