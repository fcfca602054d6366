"""Counting tokens with a model's own tokenizer, where the server does not count or does not say where.

A plan names a tokenizer by a path (a tokenizer.json, or a directory that holds one) or by its name on the Hugging Face
hub. The driver turns names into paths before the workers start, so that no worker asks the network and a file can be
carried to nodes that lack it. `tokenizers` is imported where a tokenizer is opened and nowhere else: it costs memory,
and in a worker nothing may be imported before Locust has patched what it patches.

A count is of the text alone: a chat template and special tokens are the server's, and only its `usage` knows them.
"""

import os
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, groupby
from pathlib import Path

from msgspec.structs import replace

from loadtest.types import Plan

FILE_NAME = "tokenizer.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_ADVICE = f"give the path of a {FILE_NAME}, or of the directory that holds it"


class Tokenizer:
    """A model's tokenizer. Raises ValueError where the file is not one."""

    def __init__(self, path: Path | str) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one text at a time needs no threads of its own
        from tokenizers import Tokenizer as Model

        try:
            self._model = Model.from_str(Path(path).read_text(encoding="utf-8"))
        except Exception as e:  # noqa: BLE001 the library raises plain Exception for whatever it dislikes
            raise ValueError(f"{path} is not a tokenizer that can be read: {e}; {_ADVICE}") from None
        self._model.no_truncation()  # a file may ask for both, and either makes counts wrong
        self._model.no_padding()

    def count(self, text: str) -> int:
        """Tokens of a text. Other threads go on meanwhile."""
        return len(self._model.encode_batch_fast([_sound(text)], add_special_tokens=False)[0])

    def ends(self, text: str) -> list[int]:
        """For each token, the index in the text just past its last character."""
        return [end for _, end in self._model.encode(_sound(text), add_special_tokens=False).offsets]


@cache
def opened(path: str) -> Tokenizer:
    """One for all of a process's uses. Raises ValueError."""
    return Tokenizer(path)


def per_chunk(tokenizer: Tokenizer, kinds: Sequence[int], texts: Sequence[str]) -> list[int]:
    """How many tokens each chunk of an answer completed; a chunk without text none.

    Consecutive chunks of one kind are tokenised as the one text that they are, and a token belongs to the chunk that
    brought its last character: so the sum is the count of the whole text, wherever the server cut it.
    """
    counts = [0] * len(texts)
    with_text = [at for at, text in enumerate(texts) if text]
    for _, run in groupby(with_text, key=kinds.__getitem__):
        chunks = list(run)
        pieces = [texts[at] for at in chunks]
        boundaries = list(accumulate(map(len, pieces)))
        for end in tokenizer.ends("".join(pieces)):
            counts[chunks[bisect_left(boundaries, end)]] += 1
    return counts


def is_path(reference: str) -> bool:
    """Whether a plan's `tokenizer:` is a path by its form; else it is a name on the hub."""
    return not _HUB_NAME.fullmatch(reference) or reference.endswith(".json")


def file_of(reference: str) -> Path:
    """The tokenizer.json that is meant; from the hub where it is a name. Raises ValueError."""
    if not is_path(reference):
        return _from_hub(reference)
    path = Path(reference)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} does not exist; {_ADVICE}")
    return path


def named_by(plan: Plan) -> list[str]:
    """The tokenizers of a plan, as it refers to them, each once."""
    return sorted({reference for reference in (plan.tokenizer, *(t.tokenizer for t in plan.targets)) if reference})


def relocated(plan: Plan, places: Mapping[str, str]) -> Plan:
    """The plan with other references in the place of its own; what `places` lacks stays."""

    def at(reference: str | None) -> str | None:
        return places.get(reference, reference) if reference else reference

    targets = [replace(target, tokenizer=at(target.tokenizer)) for target in plan.targets]
    return replace(plan, tokenizer=at(plan.tokenizer), targets=targets)


def located(plan: Plan) -> Plan:
    """The plan with the file of each tokenizer in the place of its name, for workers. Raises ValueError."""
    return relocated(plan, {reference: str(file_of(reference)) for reference in named_by(plan)})


@cache
def _from_hub(name: str) -> Path:
    """From the cache on this machine, else over the network."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # a load test tells nobody
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, FILE_NAME)
        return Path(cached if isinstance(cached, str) else hf_hub_download(name, FILE_NAME))
    except (OSError, ValueError) as e:
        raise ValueError(f"it could not be had from the Hugging Face hub: {_reason(e)}; {_ADVICE}") from None


def _reason(error: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    match error:
        case GatedRepoError():
            return "its owner has to let you in, and HF_TOKEN must be set"
        case RepositoryNotFoundError():
            return "there is no such model, or HF_TOKEN is not set for it"
        case LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set, and its cache on this machine does not hold it"
        case LocalEntryNotFoundError():
            return "no answer, and its cache on this machine does not hold it"
        case EntryNotFoundError():
            return f"the model has no {FILE_NAME}"
        case _:
            return str(error).splitlines()[0]


def _sound(text: str) -> str:
    """Without half surrogate pairs, which the library refuses."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
