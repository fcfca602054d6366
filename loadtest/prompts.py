"""What requests say: a pure function of (seed, nonce, stage, seq), evaluated lazily, never all in memory."""

from typing import Any

from msgspec import Struct


class Prompt(Struct, frozen=True):
    id: str
    messages: list[dict[str, Any]]  # OpenAI chat form; a completion dialect joins their text
    max_tokens: int | None = None


class Tokens(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    mean: float
    stdev: float = 0


class Synthetic(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="synthetic"):
    input_tokens: Tokens
    output_tokens: Tokens | None = None


class Dataset(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="dataset"):
    path: str
    output_tokens: Tokens | None = None


Prompts = Synthetic | Dataset
