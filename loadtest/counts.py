"""Who counted the tokens of an answer: the server in its `usage`, the server as it went, or a tokenizer.

The server's total stands wherever it gave one. Tokens of a chunk are known, in this order, from totals that it told with
each chunk; where the answer has as many token chunks as tokens; and from a tokenizer, which is believed beside a total only
where the two agree. Chunks are never passed off as tokens.
"""

import gevent

from loadtest import tokens
from loadtest.dialects import Decoded, text_of
from loadtest.prompts import Prompt
from loadtest.types import TOKEN_KINDS, ChunkKind, Result

LONG_CHARACTERS = 20_000
SILENT_TOKENS, SILENT_SHARE = 1, 0.02
"""So many tokens more than its text has may an answer have by the server's count: what ends a turn has no text."""
_CARRIES = bytes(kind in TOKEN_KINDS for kind in range(256))


def note_usage(result: Result, decoded: Decoded) -> None:
    """What the server said, and what follows from it."""
    result.input_tokens = decoded.input_tokens
    result.output_tokens = decoded.output_tokens
    result.reasoning_tokens = decoded.reasoning_tokens
    result.cached_tokens = decoded.cached_tokens
    if decoded.output_tokens is None:
        return
    result.token_source = "usage"
    if not result.streamed:
        result.chunk_tokens = [decoded.output_tokens] * len(decoded.chunk_kind)
        return
    result.chunk_tokens = _told(decoded)
    one_each = bytes(decoded.chunk_kind).translate(_CARRIES)
    if sum(one_each) == _sent(decoded) and result.chunk_tokens in ([], list(one_each)):
        result.token_source = "usage_matched"
        result.chunk_tokens = list(one_each)


def fill_in(result: Result, decoded: Decoded, tokenizer: tokens.Tokenizer, prompt: Prompt) -> None:
    """What the server left open, by the tokenizer."""
    if result.input_tokens is None:
        result.input_tokens = _count(tokenizer, text_of(prompt))
    if result.chunk_tokens:
        return
    found = tokens.per_chunk(tokenizer, decoded.chunk_kind, decoded.texts)
    sent = _sent(decoded)
    if sent is None:
        result.output_tokens = sum(found)
        result.token_source = "tokenizer"
    if sent is None or 0 <= sent - sum(found) <= max(SILENT_TOKENS, SILENT_SHARE * sent):
        result.chunk_tokens = found


def _sent(decoded: Decoded) -> int | None:
    """The output tokens by the server's count, without those of reasoning that it counted and never sent."""
    if decoded.output_tokens is None:
        return None
    unseen = 0 if ChunkKind.REASONING in decoded.chunk_kind else decoded.reasoning_tokens or 0
    return decoded.output_tokens - unseen


def _told(decoded: Decoded) -> list[int]:
    """Tokens of each chunk where the server told the total so far with every token chunk; else empty.

    What it counted while it sent nothing belongs to the next chunk that carries something.
    """
    totals = dict(decoded.totals)
    told = 0
    out = [0] * len(decoded.chunk_kind)
    for at, kind in enumerate(decoded.chunk_kind):
        if kind in TOKEN_KINDS:
            total = totals.get(at, -1)
            if total < told:
                return []
            out[at], told = total - told, total
    return out if told else []


def _count(tokenizer: tokens.Tokenizer, text: str) -> int:
    """A long text is counted in a thread: what arrives meanwhile is read."""
    if len(text) < LONG_CHARACTERS:
        return tokenizer.count(text)
    return int(gevent.get_hub().threadpool.apply(tokenizer.count, (text,)))
