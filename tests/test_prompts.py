"""Prompts: pure functions of seed, nonce, stage and seq, of the lengths that were asked for."""

import json
import os
from pathlib import Path
from statistics import NormalDist, fmean, pstdev

import made_tokenizers as made
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import prompts
from loadtest.errors import PlanError
from loadtest.prompts import WORDS, Cache, Dataset, Lines, Prompt, SharedPrefix, Synthetic, Tokens
from loadtest.tokens import Tokenizer

SMALL = Synthetic(input_tokens=Tokens(mean=8, stdev=3), output_tokens=Tokens(mean=150, stdev=20))


def text_of(prompt: Prompt) -> str:
    assert [message["role"] for message in prompt.messages] == ["user"]
    return str(prompt.messages[0]["content"])


def test_there_is_one_word_for_each_value_of_a_byte() -> None:
    assert len(WORDS) == len(set(WORDS)) == 256
    assert all(word.isascii() and word.isalpha() and word.islower() for word in WORDS)


def test_values_for_a_seed_are_the_same_under_every_python() -> None:
    source = SMALL.open(7, "n1")
    assert [text_of(source("peak", seq)) for seq in range(3)] == [
        "men before get through about this far form might",
        "like even place must look plant on draw why page",
        "boy sun too round page plant page",
    ]
    assert [source("peak", seq).max_tokens for seq in range(3)] == [163, 139, 145]
    assert source("peak", 2).id == "peak:2"


def test_the_nonce_changes_the_words_and_no_length() -> None:
    one, other = SMALL.open(7, "one"), SMALL.open(7, "other")
    for seq in range(200):
        a, b = one("peak", seq), other("peak", seq)
        assert len(text_of(a).split()) == len(text_of(b).split())
        assert (a.id, a.max_tokens) == (b.id, b.max_tokens)
    long = Synthetic(input_tokens=Tokens(mean=100))
    texts = {text_of(long.open(7, nonce)("peak", 0)) for nonce in map(str, range(50))}
    assert len({text[:40] for text in texts}) == 50  # and no common beginning for a prefix cache


def test_stage_seed_and_seq_each_make_another_prompt() -> None:
    long = Synthetic(input_tokens=Tokens(mean=50))
    texts = [
        text_of(long.open(7, "n")("a", 0)),
        text_of(long.open(8, "n")("a", 0)),
        text_of(long.open(7, "n")("b", 0)),
        text_of(long.open(7, "n")("a", 1)),
    ]
    assert len(set(texts)) == 4


def test_asking_in_another_order_changes_nothing() -> None:
    source = SMALL.open(1, "n")
    forwards = [source("s", seq) for seq in range(50)]
    assert [SMALL.open(1, "n")("s", seq) for seq in reversed(range(50))] == forwards[::-1]


def test_lengths_are_normally_distributed() -> None:
    source = Synthetic(input_tokens=Tokens(mean=55, stdev=15), output_tokens=Tokens(mean=150, stdev=20)).open(7, "")
    drawn = [source("s", seq) for seq in range(4000)]
    inputs = [len(text_of(prompt).split()) for prompt in drawn]
    outputs = [prompt.max_tokens or 0 for prompt in drawn]
    assert fmean(inputs) == pytest.approx(55, abs=0.8)
    assert pstdev(inputs) == pytest.approx(15, rel=0.04)
    assert fmean(outputs) == pytest.approx(150, abs=1)
    assert pstdev(outputs) == pytest.approx(20, rel=0.04)
    covariance = fmean((a - 55) * (b - 150) for a, b in zip(inputs, outputs, strict=True))
    assert abs(covariance / (15 * 20)) < 0.05


def test_without_stdev_every_length_is_the_mean() -> None:
    source = Synthetic(input_tokens=Tokens(mean=550)).open(0, "")
    assert {len(text_of(source("s", seq)).split()) for seq in range(20)} == {550}
    assert source("s", 0).max_tokens is None


@given(
    mean=st.floats(1, 10_000),
    stdev=st.floats(0, 10_000),
    share=st.floats(0, 1, exclude_min=True, exclude_max=True).filter(lambda x: 2**-33 <= x <= 1 - 2**-33),
)
def test_no_length_is_below_one(mean: float, stdev: float, share: float) -> None:
    assert Tokens(mean=mean, stdev=stdev).at(share) >= 1


def test_the_cut_off_part_of_a_distribution_does_not_pile_up_at_one() -> None:
    # of a normal distribution of mean 2 and stdev 2, what lies above 0.5 is 0.7734; of that, below 1.5: 0.1747 / 0.7734
    counts = [Tokens(mean=2, stdev=2).at((i + 0.5) / 10_000) for i in range(10_000)]
    normal = NormalDist(2, 2)
    assert counts.count(1) / 10_000 == pytest.approx(
        (normal.cdf(1.5) - normal.cdf(0.5)) / (1 - normal.cdf(0.5)), abs=1e-3
    )
    assert counts.count(1) / 10_000 == pytest.approx(0.2258, abs=1e-3)


# Exact lengths with a tokenizer


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    directory = tmp_path_factory.mktemp("tokenizers")
    return {kind: Tokenizer(made.save(make(), directory)) for kind, make in made.KINDS.items()}


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(made.KINDS)),
    mean=st.integers(1, 700),
    spread=st.floats(0, 1),
    cache=st.none() | st.just("defeat") | st.integers(1, 300),
    seed=st.integers(0, 2**63 - 1),
)
def test_prompts_are_as_long_as_asked_for_whatever_the_nonce(
    tokenizers: dict[str, Tokenizer], kind: str, mean: int, spread: float, cache: str | int | None, seed: int
) -> None:
    tokenizer = tokenizers[kind]
    asked: Cache | None = SharedPrefix(shared_prefix_tokens=cache) if isinstance(cache, int) else cache  # type: ignore[assignment]
    lengths = Tokens(mean=mean, stdev=mean * spread)
    with_cache = Synthetic(input_tokens=lengths, cache=asked)
    plain = Synthetic(input_tokens=lengths).open(seed, "n")
    for seq in range(3):
        requested = len(text_of(plain("s", seq)).split())  # without a tokenizer a word is taken for a token
        if isinstance(cache, int):
            requested = max(requested, cache + 1)
        for nonce in ("one", "other"):
            count = tokenizer.count(text_of(with_cache.open(seed, nonce, tokenizer)("s", seq, "t")))
            # a tokenizer that puts a space before every text and knows few words may have no text of one token
            assert count == requested or (requested == 1 and count == 2), kind


def test_where_words_are_tokens_only_those_are_drawn_and_nothing_is_counted(tokenizers: dict[str, Tokenizer]) -> None:
    known = prompts.words_of_one_token(tokenizers["byte-level, each word a token"])
    assert 64 <= len(known) < 256  # the rest of the vocabulary went to words with a space before them

    class Counted:
        calls = 0

        def count(self, text: str) -> int:
            self.calls += 1
            return len([word for word in text.split(" ") if word in known]) + 2 * text.count("about")

        def ends(self, text: str) -> list[int]:
            raise AssertionError(text)

    counted = Counted()
    source = Synthetic(input_tokens=Tokens(mean=50), cache="defeat").open(7, "n", counted)
    before = counted.calls
    words = " ".join(text_of(source("s", seq)) for seq in range(100)).split()
    assert len(words) == 5000
    assert set(words) <= set(known) - {"about"}
    assert counted.calls == before


def test_words_that_melt_together_are_not_relied_upon() -> None:
    class Melting:
        """One token for each word, but "the" and what follows it are one."""

        def count(self, text: str) -> int:
            words = text.split(" ")
            return len(words) - sum(word == "the" and i < len(words) - 1 for i, word in enumerate(words))

        def ends(self, text: str) -> list[int]:
            raise AssertionError(text)

    assert "the" not in prompts.words_of_one_token(Melting())

    class MeltingPairs(Melting):
        def count(self, text: str) -> int:
            return len(text.split(" ")) - text.count("a the")

    assert prompts.words_of_one_token(MeltingPairs()) == []


# Prefix caches


def starts(source: prompts.Source, tokens: int, count: int = 50, target: str = "t") -> list[str]:
    return [" ".join(text_of(source("s", seq, target)).split()[:tokens]) for seq in range(count)]


def test_defeat_gives_each_request_a_start_of_its_own() -> None:
    source = Synthetic(input_tokens=Tokens(mean=20), cache="defeat").open(7, "n")
    both = starts(source, 8) + starts(source, 8, target="other")
    assert len(set(both)) == 100
    assert len({text.split()[0] for text in both}) > 60, "the very first word differs too"
    a, b = text_of(source("s", 0, "t")).split(), text_of(source("s", 0, "other")).split()
    assert a[8:] == b[8:], "what follows the salt is the same for every target"
    assert len(a) == len(b) == 20
    assert starts(Synthetic(input_tokens=Tokens(mean=20), cache="defeat").open(7, "n"), 8) == starts(source, 8)
    assert not set(starts(Synthetic(input_tokens=Tokens(mean=20), cache="defeat").open(7, "m"), 8)) & set(both)


def test_a_salt_is_never_longer_than_its_prompt() -> None:
    for length in (1, 7, 8, 9):
        source = Synthetic(input_tokens=Tokens(mean=length), cache="defeat").open(7, "n")
        assert len(text_of(source("s", 0, "t")).split()) == length


def test_a_shared_prefix_is_the_same_in_a_run_and_what_follows_is_not() -> None:
    synthetic = Synthetic(input_tokens=Tokens(mean=20), cache=SharedPrefix(shared_prefix_tokens=12))
    source = synthetic.open(7, "n")
    assert len(set(starts(source, 12))) == 1
    assert len(set(starts(source, 13))) > 30
    assert starts(source, 20) == starts(source, 20, target="other")
    assert source("a", 0).messages[0]["content"].split()[:12] == source("b", 9).messages[0]["content"].split()[:12]
    assert len(text_of(source("s", 0)).split()) == 20
    assert starts(synthetic.open(7, "n"), 20) == starts(source, 20)
    assert set(starts(synthetic.open(7, "m"), 12)) != set(starts(source, 12)), "yesterday's prefix does not answer"


def test_a_datasets_own_words_follow_what_the_cache_is_given(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    lines = [
        {"prompt": "hello"},
        {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]},
        {"messages": [{"role": "user", "content": parts}]},
        {"messages": [{"role": "assistant", "tool_calls": []}]},
    ]
    path = str(jsonl(tmp_path, *map(json.dumps, lines)))
    salted = Dataset(path=path, cache="defeat").open(7, "n")
    contents = [salted("s", seq, "t").messages[0]["content"] for seq in range(8)]
    assert len({str(content)[:60] for content in contents}) == 8, "the same line is another prompt the next time"
    salt, _, words = contents[0].partition("\n\n")
    assert (len(salt.split()), words) == (8, "hello")
    assert contents[1].endswith("\n\nbe brief")
    assert salted("s", 1).messages[1] == {"role": "user", "content": "hi"}
    assert (contents[2][0]["type"], contents[2][1:]) == ("text", parts)
    assert contents[3].endswith("\n\n")
    shared = Dataset(path=path, cache=SharedPrefix(shared_prefix_tokens=5)).open(7, "n")
    first, second = shared("s", 0).messages[0]["content"], shared("s", 1).messages[0]["content"]
    assert first.removesuffix("hello") == second.removesuffix("be brief")
    assert len(first.split()) == 6


def jsonl(directory: Path, *lines: str) -> Path:
    path = directory / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_dataset_is_read_in_its_order_and_from_its_start_again(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        '{"prompt": "première", "max_tokens": 5, "topic": "the user\'s own"}',
        '{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]}',
    )
    source = Dataset(path=str(path), output_tokens=Tokens(mean=64)).open(0, "n")
    first, second, third = source("s", 0), source("s", 1), source("s", 2)
    assert first == Prompt("prompts.jsonl:1", [{"role": "user", "content": "première"}], 5)
    assert [message["role"] for message in second.messages] == ["system", "user"]
    assert (second.id, second.max_tokens) == ("prompts.jsonl:2", 64)
    assert third == first
    assert source("s", 10**12 + 1) == second
    assert Dataset(path=str(path)).open(0, "other")("s", 1).max_tokens is None


def test_the_last_line_may_lack_its_line_break_and_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "a"}\r\n{"prompt": "b"}')
    lines = Lines(path)
    assert [lines[i].prompt for i in range(len(lines))] == ["a", "b"]


def test_a_file_put_in_its_place_does_not_change_a_dataset_that_is_open(tmp_path: Path) -> None:
    path = jsonl(tmp_path, '{"prompt": "old"}', '{"prompt": "old too"}')
    source = Dataset(path=str(path)).open(0, "")
    replacement = tmp_path / "new"
    replacement.write_text('{"prompt": "new"}\n')
    os.replace(replacement, path)
    assert text_of(source("s", 1)) == "old too"


def test_an_index_takes_eight_bytes_a_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *(json.dumps({"prompt": "x" * 1000}) for _ in range(2000)))
    lines = Lines(path)
    assert len(lines) == 2000
    assert lines._offsets.itemsize == 8
    assert lines._offsets[2000] == path.stat().st_size


def test_the_descriptor_is_closed_with_the_last_use(tmp_path: Path) -> None:
    path = jsonl(tmp_path, '{"prompt": "a"}')
    lines = Lines(path)
    descriptor = lines._descriptor
    del lines
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "line 2: it is empty"),
        ("hello", "line 2: JSON is malformed"),
        ('["prompt"]', "line 2: Expected `object`"),
        ('{"text": "hi"}', "line 2: needs one of `prompt`, `messages` and `conversation`"),
        (
            '{"prompt": "a", "messages": [{"role": "user"}]}',
            "line 2: needs one of `prompt`, `messages` and `conversation`",
        ),
        ('{"prompt": ""}', "line 2: Expected `str` of length >= 1"),
        ('{"prompt": 5}', "line 2: Expected `str"),
        ('{"messages": []}', "line 2: Expected `array` of length >= 1"),
        ('{"prompt": "a", "max_tokens": 0}', "line 2: Expected `int` >= 1"),
        ('{"prompt": "a", "max_tokens": "many"}', "line 2: Expected `int"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_expected(tmp_path: Path, line: str, reason: str) -> None:
    path = jsonl(tmp_path, '{"prompt": "fine"}', line, '{"prompt": "fine"}')
    with pytest.raises(PlanError) as error:
        Lines(path)
    assert f"{path} {reason}" in str(error.value)
    assert '{"prompt": "..."}' in str(error.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"prompt": "a", "max_token": 5}', "max_token is no key; write max_tokens, or another name if it is"),
        ('{"prompt": "a", "maxTokens": 5}', "maxTokens is no key; write max_tokens, or"),
        ('{"prompt": "a", "max_new_tokens": 5}', "max_new_tokens is no key; write max_tokens, or"),
        ('{"prompt": "a", "mesages": []}', "mesages is no key; write messages, or"),
        ('{"messages": [{"content": "hi"}]}', "messages[0].role is missing; write one of user, assistant, system"),
        ('{"messages": [{"role": "usr", "content": "hi"}]}', "messages[0].role is 'usr'; write user"),
        ('{"messages": [{"role": "Human", "content": "hi"}]}', "messages[0].role is 'Human'; write user"),
        ('{"messages": [{"role": "boss", "content": "hi"}]}', "role is 'boss'; write one of user, assistant, system,"),
        ('{"messages": [{"role": 5, "content": "hi"}]}', "messages[0].role is 5; write one of user"),
        ('{"messages": [{"role": "user", "contnet": "hi"}]}', "messages[0].contnet is no key; write content"),
        ('{"messages": [{"role": "assistant", "contnet": "hi"}]}', "messages[0].contnet is no key; write content"),
        (
            '{"messages": [{"role": "assistant", "content": null}]}',
            "messages[0].content is None; write a text or a list",
        ),
        ('{"messages": [{"role": "user"}]}', 'messages[0].content is missing; write "content": "..."'),
        ('{"messages": [{"role": "user", "content": null}]}', "messages[0].content is None; write a text or a list"),
        (
            '{"conversation": [{"role": "user", "content": "a"}, {"role": "gpt", "content": "b"}]}',
            "conversation[1].role is 'gpt'; write assistant",
        ),
    ],
)
def test_what_is_misspelt_is_named_with_what_to_write(tmp_path: Path, line: str, told: str) -> None:
    path = jsonl(tmp_path, '{"prompt": "fine", "id": 7, "prompt_id": "x", "topic": "t", "input_tokens": 3}', line)
    with pytest.raises(PlanError) as error:
        Lines(path)
    assert f"{path} line 2: {told}" in str(error.value) or f"line 2: messages[0].{told}" in str(error.value)
    assert '{"prompt": "..."}' not in str(error.value), "one remedy"


@pytest.mark.parametrize("key", ["conversation_id", "conversationId", "n_messages", "raw conversation", "prompt-ids"])
def test_a_key_of_more_words_is_the_users_own(tmp_path: Path, key: str) -> None:
    assert len(Lines(jsonl(tmp_path, json.dumps({"prompt": "a", key: 7})))) == 1


def test_a_message_that_calls_tools_has_no_content(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    without = {key: value for key, value in call.items() if key != "content"}
    parts = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    lines = [{"messages": [parts, call, {"role": "tool", "content": "42"}]}, {"messages": [parts, without]}]
    assert len(Lines(jsonl(tmp_path, *map(json.dumps, lines)))) == 2


def test_five_bad_lines_are_told_at_once(tmp_path: Path) -> None:
    def told(*lines: str) -> list[str]:
        with pytest.raises(PlanError) as error:
            Lines(jsonl(tmp_path, *lines))
        return str(error.value).split("\n")

    good = '{"prompt": "a"}'
    assert [line.partition(":")[0].split()[-1] for line in told("x", good, "", "[]", good)] == ["1", "3", "4"]
    many = told(good, *["x"] * 9)
    assert [line.partition(":")[0].split()[-1] for line in many] == ["2", "3", "4", "5", "6"]
    assert many[-1].endswith("; lines after this one were not looked at")


def test_bytes_that_are_not_utf_8_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    with pytest.raises(PlanError, match=r"line 2: .*utf-8"):
        Lines(path)


def test_a_file_that_is_not_there_or_empty_or_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read: No such file"):
        Lines(tmp_path / "nowhere.jsonl")
    with pytest.raises(PlanError, match="cannot be read: Is a directory"):
        Lines(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(PlanError, match=r"is empty; each line must be"):
        Lines(tmp_path / "empty.jsonl")


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MAX_LINE_BYTES", 100)
    with pytest.raises(PlanError, match="line 2 is longer than 100 bytes; put one prompt on each line"):
        Lines(jsonl(tmp_path, '{"prompt": "a"}', json.dumps({"prompt": "x" * 200})))


def test_prompts_survive_the_way_to_a_worker() -> None:
    prompt = SMALL.open(7, "n")("peak", 0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(prompt), type=Prompt) == prompt
