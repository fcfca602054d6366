"""What requests say: a pure function of (seed, nonce, stage, seq), evaluated lazily, never all in memory.

Everything is drawn from hashes (BLAKE2b for lengths, SHAKE-128 for words) and not from `random`, so that the same plan
means the same bytes under every Python, on every worker, in any order. Lengths depend on the seed only: two runs with
different nonces ask for the same work in other words, and a prefix cache filled by one does not help the other.

With a tokenizer, words of exactly one token are drawn, so that a length is right without a look at the text; where a
tokenizer has too few of them, the text is cut to its length.
"""

import os
import re
import weakref
from array import array
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from hashlib import blake2b, shake_128
from pathlib import Path
from statistics import NormalDist
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from loadtest.errors import PlanError

WORDS = """
    about act add after again air all also always an and animal answer any are as ask at back be been before begin
    between big both boy build but by call can cause change city close come could country cover cross day did do
    does down draw each earth end even every example eye far farm father few find first follow food for form found
    four from get give go good got great group grow had hand hard has have he head help her here high him his home
    house how if in is it just keep kind know land large last late learn left let life light like line little live
    long look low made make man many mark may me mean men might more most mother move much music must my name near
    need never new next night no north now number of off often old on one only open or other our out over own page
    paper part people picture place plant play point port press put read real right round run said same say school
    sea see self set she should show side small so some sound stand start state still story study such sun take tell
    than that the their them then there these they thing think this those thought three through time to too tree try
    turn two under up us use very walk want was water way we well went were what when where which while white who
    why will with word work world would write year you your
""".split()  # noqa: SIM905 (256 lines would hide the rest)
"""256 words, one for each value of a byte. Each is one token, with and without a space before it, in the vocabularies
of GPT-2, Llama 3, Mistral 7B and OpenLLaMA; so n of them joined by spaces are taken to be n tokens. What the server
counts is in its `usage`: a chat template adds its own tokens on top."""

MAX_LINE_BYTES = 64 * 1024 * 1024
MOST_TURNS = 99
TURN_SEQS = 10_000_000_000_000
"""The seq of a turn is its conversation's, and so many more for each turn before it: see rounds.py."""
MOST_BAD_LINES = 5  # of a dataset are told at once
SALT_TOKENS = 8  # of at least 64 words each: 48 bits and more
LEAST_WORDS = 64
SAMPLE_WORDS = 4096
CUT_ATTEMPTS = 16

TokenCount = Annotated[float, Meta(ge=1, le=10_000_000)]
TokenSpread = Annotated[float, Meta(ge=0, le=10_000_000)]


class Counter(Protocol):
    """What is asked of a tokenizer (tokens.py)."""

    def count(self, text: str) -> int: ...

    def ends(self, text: str) -> list[int]: ...


Answers = Mapping[int, str]
"""Turn of a conversation -> what the model said."""
NO_ANSWERS: Answers = MappingProxyType({})


class Source(Protocol):
    """The prompt of a stage's request. The target's name matters only where `cache: defeat` salts each request; `turn`
    only in a conversation, whose number is `seq`; `answers`, to the turns before, where the model's own are its history."""

    def __call__(
        self, stage: str, seq: int, target: str = "", turn: int = 0, answers: Answers = NO_ANSWERS
    ) -> "Prompt": ...


class Prompt(Struct, frozen=True):
    id: str
    messages: list[dict[str, Any]]  # OpenAI chat form; a completion dialect joins their text
    max_tokens: int | None = None
    turns: int = 1  # of the conversation that it belongs to
    think_s: float = 0  # before the next of them
    own_answers: bool = False  # whether those are to have what the model said in them


class Tokens(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A number of tokens: normally distributed, rounded, never below 1. A bare number in a plan is the mean."""

    mean: TokenCount
    stdev: TokenSpread = 0

    def at(self, share: float) -> int:
        """The count below which `share` (above 0, below 1) of all counts lie: the inverse of the distribution.

        The part of the normal distribution that would round to less than 1 is cut off, not folded onto 1.
        """
        if not self.stdev:
            return round(self.mean)
        normal = NormalDist(self.mean, self.stdev)
        cut_off = normal.cdf(0.5)
        return max(round(normal.inv_cdf(cut_off + share * (1 - cut_off))), 1)


class SharedPrefix(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All prompts of a run begin alike: what a prefix cache is for."""

    shared_prefix_tokens: Annotated[int, Meta(ge=1, le=10_000_000)]


Cache = Literal["defeat"] | SharedPrefix


class Synthetic(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="synthetic"):
    """Common English words in random order: `input_tokens` of them, what `cache` puts at their start included."""

    input_tokens: Tokens
    output_tokens: Tokens | None = None
    cache: Cache | None = None

    def open(self, seed: int, nonce: str, tokenizer: Counter | None = None) -> Source:
        writer = Writer(tokenizer)
        begin = Beginning(self.cache, writer, seed, nonce)
        vary = self.input_tokens.stdev or (self.output_tokens and self.output_tokens.stdev)

        def prompt(
            stage: str,
            seq: int,
            target: str = "",
            turn: int = 0,  # noqa: ARG001 of one turn
            answers: Answers = NO_ANSWERS,  # noqa: ARG001 of one turn
        ) -> Prompt:
            input_share, output_share = _shares(seed, stage, seq) if vary else (0.5, 0.5)
            length = self.input_tokens.at(input_share)
            if isinstance(self.cache, SharedPrefix):
                length = max(length, self.cache.shared_prefix_tokens + 1)  # or it were no prompt of its own
            begun = begin(stage, seq, target, length)
            text = writer.text(f"{seed}\0{nonce}\0{stage}\0{seq}", length, begun)
            max_tokens = self.output_tokens.at(output_share) if self.output_tokens else None
            return Prompt(f"{stage}:{seq}", [{"role": "user", "content": text}], max_tokens)

        return prompt


class Dataset(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="dataset"):
    """A JSONL file, one prompt a line, in the order of the file and from its start again after its end.

    A line's own `max_tokens` wins over `output_tokens`. The nonce does not touch the user's own words; what `cache`
    asks for stands before them.
    """

    path: str
    output_tokens: Tokens | None = None
    cache: Cache | None = None
    think_s: Annotated[float, Meta(ge=0, le=3600)] = 0  # between an answer and the next turn of its conversation
    history: Literal["scripted", "model"] = (
        "scripted"  # the answers in a turn's messages: the line's, or the model's own
    )

    def open(self, seed: int, nonce: str, tokenizer: Counter | None = None) -> Source:
        lines = Lines(Path(self.path))
        begin = Beginning(self.cache, Writer(tokenizer), seed, nonce)

        def prompt(stage: str, seq: int, target: str = "", turn: int = 0, answers: Answers = NO_ANSWERS) -> Prompt:
            number = seq % len(lines)
            line = lines[number]
            max_tokens = line.max_tokens
            if max_tokens is None and self.output_tokens:
                max_tokens = self.output_tokens.at(_shares(seed, stage, seq + turn * TURN_SEQS)[1])
            messages = _begun_with(begin(stage, seq, target, SALT_TOKENS).text, line.chat(turn, answers))
            name = f"{lines.path.name}:{number + 1}" + (f" turn {turn + 1}" if turn else "")
            own_answers = line.turns > 1 and self.history == "model"
            return Prompt(name, messages, max_tokens, line.turns, self.think_s, own_answers)

        return prompt


Prompts = Synthetic | Dataset


class Line(Struct, frozen=True):
    """What a line of a dataset may say. Other keys are the user's own and of no meaning here, unless they look like these."""

    prompt: Annotated[str, Meta(min_length=1)] | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    conversation: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = (
        None  # each message of the user is a turn
    )
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.prompt, self.messages, self.conversation)) != 1:
            raise ValueError("needs one of `prompt`, `messages` and `conversation`")
        for name, messages in (("messages", self.messages), ("conversation", self.conversation)):
            for at, message in enumerate(messages or ()):
                if problem := _message_problem(message):
                    raise ValueError(f"{name}[{at}].{problem}")
        if self.conversation is not None and not 1 <= self.turns <= MOST_TURNS:
            raise ValueError(
                f"`conversation` has {self.turns} messages of the role user; it must have 1 to {MOST_TURNS}"
            )

    @property
    def turns(self) -> int:
        """How many requests it makes."""
        return 1 if self.conversation is None else len(self._asked())

    def chat(self, turn: int = 0, answers: Answers = NO_ANSWERS) -> list[dict[str, Any]]:
        """What is sent: of a conversation all up to the user's message of this turn, the answers as the line has them
        or, where there are `answers`, those."""
        if self.conversation is not None:
            asked = self._asked()[: turn + 1]
            said = self.conversation[: asked[-1] + 1]
            return _answered(said, asked, answers) if answers else said
        return [{"role": "user", "content": self.prompt}] if self.messages is None else self.messages

    def _asked(self) -> list[int]:
        return [at for at, message in enumerate(self.conversation or ()) if message["role"] == "user"]


ROLES = ("user", "assistant", "system", "developer", "tool", "function")
ROLES_ELSEWHERE = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
INSTEAD_OF_CONTENT = {"tool_calls", "function_call", "refusal", "audio"}
"""What a message of the assistant's may be without any."""
KEYS = ("prompt", "messages", "conversation", "max_tokens")
KEYS_ELSEWHERE = dict.fromkeys(("max_new_tokens", "max_output_tokens", "max_completion_tokens"), "max_tokens")
"""Words of other tools and formats, that are not meant as keys of the user's own."""
ALIKE = 0.88  # of difflib: a letter more, less or another one in words as long as these


def _message_problem(message: dict[str, Any]) -> str:
    """What endpoints would refuse or, worse, not notice; empty where nothing is wrong."""
    role = message.get("role")
    if role not in ROLES:
        near = ROLES_ELSEWHERE.get(str(role).lower()) or next(iter(get_close_matches(str(role).lower(), ROLES, 1)), "")
        what = "missing" if "role" not in message else repr(role)
        return f"role is {what}; write {near or 'one of ' + ', '.join(ROLES)}"
    content = message.get("content")
    if content is None and role == "assistant" and INSTEAD_OF_CONTENT & message.keys():
        return ""
    if "content" not in message:
        near_key = next(iter(get_close_matches("content", message.keys() - {"role"}, 1, 0.7)), "")
        return f"{near_key} is no key; write content" if near_key else 'content is missing; write "content": "..."'
    if not isinstance(content, str | list):
        return f"content is {content!r:.40}; write a text or a list of parts"
    return ""


def _misspelt(key: str) -> str | None:
    """The key that is meant, where it looks like one. Others are the user's own: so is one of more words, as is
    `conversation_id` of many public datasets."""
    if key in KEYS_ELSEWHERE:
        return KEYS_ELSEWHERE[key]
    words = re.sub("[ -]", "_", re.sub("(?<=[a-z])(?=[A-Z])", "_", key)).lower()
    if any(known != words and f"_{known}_" in f"_{words}_" for known in KEYS):
        return None
    bare = {known.replace("_", ""): known for known in KEYS}
    near = get_close_matches(words.replace("_", ""), bare, 1, ALIKE)
    return bare[near[0]] if near and key not in KEYS else None


def _answered(said: list[dict[str, Any]], asked: list[int], answers: Answers) -> list[dict[str, Any]]:
    """The messages with the model's own answer after each of the user's: what the script has an assistant and its tools
    say from there on is of another conversation."""
    out = []
    for at, message in enumerate(said):
        if at < asked[0] or message["role"] not in ("assistant", "tool"):
            out.append(message)
        if at in asked and (turn := asked.index(at)) in answers:
            out.append({"role": "assistant", "content": answers[turn]})
    return out


class Lines:
    """The lines of a JSONL file, each validated once, when the file is opened, and read from disk when asked for.

    Only the byte offset of each line is kept: 8 bytes. The file stays open, so that one put in its place by an editor
    does not change a run under way; `pread` shares no position with other readers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turns = 0  # of all lines; one that is no conversation has one
        self.conversations = 0
        self.least_turns = self.most_turns = 1  # of a conversation
        self._offsets = array("Q", [0])
        self._decoder = msgspec.json.Decoder(Line)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise PlanError(f"{path} cannot be read: {e.strerror}") from None
        weakref.finalize(self, os.close, self._descriptor)
        try:
            self._index()
        except OSError as e:  # a directory opens, and only then refuses to be read
            raise PlanError(f"{path} cannot be read: {e.strerror}") from None
        if not len(self):
            raise PlanError(f"{path} is empty; each line must be {_EXPECTED}")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> Line:
        start, end = self._offsets[number], self._offsets[number + 1]
        return self._decode(os.pread(self._descriptor, end - start, start), number)

    def _index(self) -> None:
        offset = 0
        wrong: list[str] = []
        keys_of = msgspec.json.Decoder(dict[str, msgspec.Raw])
        known: set[frozenset[str]] = set()  # sets of keys that were looked at
        with open(self._descriptor, "rb", closefd=False) as file:
            while line := file.readline(MAX_LINE_BYTES):
                if len(line) == MAX_LINE_BYTES:
                    place = f"{self.path} line {len(self) + 1}"
                    raise PlanError(f"{place} is longer than {MAX_LINE_BYTES} bytes; put one prompt on each line")
                try:
                    decoded = self._decoder.decode(line)
                    if (keys := frozenset(keys_of.decode(line))) not in known:
                        _refuse_misspelt(keys)
                        known.add(keys)
                    self._count(decoded)
                except (msgspec.DecodeError, UnicodeDecodeError) as e:
                    wrong.append(self._problem(line, len(self), e))
                offset += len(line)
                self._offsets.append(offset)
                if len(wrong) == MOST_BAD_LINES:
                    break
        if wrong:
            further = "; lines after this one were not looked at" if len(wrong) == MOST_BAD_LINES else ""
            raise PlanError("\n".join(wrong) + further)

    def _count(self, line: Line) -> None:
        self.turns += line.turns
        if line.conversation is not None:
            self.least_turns = min(self.least_turns, line.turns) if self.conversations else line.turns
            self.most_turns = max(self.most_turns, line.turns)
            self.conversations += 1

    def _decode(self, line: bytes, number: int) -> Line:
        try:
            return self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise PlanError(self._problem(line, number, e)) from None

    def _problem(self, line: bytes, number: int, error: Exception) -> str:
        reason = str(error) if line.strip() else "it is empty"
        rest = "" if "; write " in reason else f"; it must be {_EXPECTED}"
        return f"{self.path} line {number + 1}: {reason}{rest}"


def _refuse_misspelt(keys: Iterable[str]) -> None:
    """Raises msgspec.ValidationError, as for all that is wrong with a line."""
    for key in sorted(keys):
        if meant := _misspelt(key):
            raise msgspec.ValidationError(f"{key} is no key; write {meant}, or another name if it is for yourself")


class Contents(Struct, frozen=True):
    """What a dataset holds."""

    lines: int
    conversations: int  # lines that are one
    turns: int  # of all lines; one that is no conversation has one
    least_turns: int  # of a conversation
    most_turns: int

    @property
    def mean_turns(self) -> float:
        return self.turns / self.lines


def contents(path: str) -> Contents:
    """The file is read through once, as long as it stays as it is. Raises PlanError."""
    try:
        found = os.stat(path)
    except OSError as e:
        raise PlanError(f"{path} cannot be read: {e.strerror}") from None
    return _contents(path, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _contents(path: str, *_version: int) -> Contents:
    lines = Lines(Path(path))
    return Contents(len(lines), lines.conversations, lines.turns, lines.least_turns, lines.most_turns)


def mean_turns(prompts: Prompts) -> float:
    """Requests that come of each due time, if all are answered."""
    return contents(prompts.path).mean_turns if isinstance(prompts, Dataset) else 1


_EXPECTED = (
    'a JSON object with {"prompt": "..."}, {"messages": [{"role": "user", "content": "..."}]} or {"conversation": [...]}, '
    'and "max_tokens", a whole number above 0, if the answer is to be limited'
)


def _shares(seed: int, stage: str, seq: int) -> tuple[float, float]:
    """Two uniform draws within (0, 1), one for the length of the input and one for that of the output."""
    digest = blake2b(f"{seed}\0tokens\0{stage}\0{seq}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest[:4]) + 0.5) / 2**32, (int.from_bytes(digest[4:]) + 0.5) / 2**32


class Begun(Struct, frozen=True):
    """The start of a prompt."""

    text: str = ""
    tokens: int = 0


class Writer:
    """Writes random words of so many tokens; without a tokenizer a word is taken for a token."""

    def __init__(self, tokenizer: Counter | None = None) -> None:
        words = list(WORDS) if tokenizer is None else words_of_one_token(tokenizer)
        self._tokenizer = None if words else tokenizer  # where words are of one token each, nothing has to be counted
        self._words = [(words or WORDS)[i % len(words or WORDS)] for i in range(256)]

    def text(self, identity: str, tokens: int, begun: Begun = Begun()) -> str:  # noqa: B008 frozen
        """A text of `tokens` tokens that begins with what is begun, if that is not long enough already."""
        if self._tokenizer is not None:
            return self._cut(self._tokenizer, identity, tokens, begun)
        rest = self._draw(identity, tokens - begun.tokens) if tokens > begun.tokens else ""
        return f"{begun.text} {rest}" if begun.text and rest else begun.text or rest

    def _draw(self, identity: str, words: int) -> str:
        return " ".join(map(self._words.__getitem__, shake_128(identity.encode()).digest(words)))

    def _cut(self, tokenizer: Counter, identity: str, tokens: int, begun: Begun) -> str:
        """Enough words, cut after the token that makes it so many.

        A text cut there need not have that many tokens of its own, so a few places around it are tried; the nearest
        count is taken where none is right.
        """
        words = tokens
        while True:
            text = " ".join(filter(None, (begun.text, self._draw(identity, words))))
            ends = tokenizer.ends(text)
            if len(ends) >= tokens or words >= tokens * 64:
                break
            words *= 2
        at = max(ends[min(tokens, len(ends)) - 1], len(begun.text)) if ends else len(text)
        nearest = text
        smallest = abs(len(ends) - tokens)
        for step in range(2 * CUT_ATTEMPTS):
            cut = at + (step + 1) // 2 * (-1 if step % 2 else 1)
            if not len(begun.text) <= cut <= len(text):
                continue
            difference = abs(tokenizer.count(text[:cut]) - tokens)
            if difference < smallest:
                nearest, smallest = text[:cut], difference
            if not smallest:
                break
        return nearest


class Beginning:
    """What `cache` puts at the start of prompts."""

    def __init__(self, cache: Cache | None, writer: Writer, seed: int, nonce: str) -> None:
        self._identity = f"{seed}\0{nonce}"
        self._writer = writer
        self._salted = cache == "defeat"
        self._same = Begun()
        if isinstance(cache, SharedPrefix):
            tokens = cache.shared_prefix_tokens
            self._same = Begun(writer.text(f"{self._identity}\0prefix", tokens), tokens)

    def __call__(self, stage: str, seq: int, target: str, length: int) -> Begun:
        """The start of a prompt of `length` tokens, which a salt never exceeds."""
        if not self._salted:
            return self._same
        identity = f"{self._identity}\0salt\0{stage}\0{seq}\0{target}"
        tokens = min(SALT_TOKENS, length)
        return Begun(self._writer.text(identity, tokens), tokens)


def words_of_one_token(tokenizer: Counter) -> list[str]:
    """Those of WORDS that are one token each, wherever they stand; none if they are few or do not simply add up."""
    words = [word for word in WORDS if tokenizer.count(word) == 1 and tokenizer.count(f"{word} {word}") == 2]
    if len(words) < LEAST_WORDS:
        return []
    draws = shake_128(b"sample").digest(2 * SAMPLE_WORDS)
    numbers = (int.from_bytes(draws[i : i + 2]) for i in range(0, len(draws), 2))
    sample = " ".join(words[number % len(words)] for number in numbers)
    return words if tokenizer.count(sample) == SAMPLE_WORDS else []


def _begun_with(text: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with a text before the first one's own."""
    if not text:
        return messages
    first, *others = messages
    content = first.get("content")
    if isinstance(content, list):
        return [{**first, "content": [{"type": "text", "text": f"{text}\n\n"}, *content]}, *others]
    return [{**first, "content": f"{text}\n\n{content or ''}"}, *others]
