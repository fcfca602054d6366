"""Prompts whose beginning was computed before, as vLLM keeps them: in whole blocks, the least recently used dropped first.

A block is found by all that stands before it as well, so two prompts share exactly the blocks of their common beginning.
The last token of a prompt is always computed: its answer has to come from somewhere.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

BLOCK_TOKENS = 16


class PrefixCache:
    def __init__(self, capacity_tokens: int) -> None:
        self._capacity = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    @property
    def enabled(self) -> bool:
        return self._capacity > 0

    def take(self, prompt: Sequence[Hashable]) -> int:
        """How many tokens of a prompt are cached; from now on all its whole blocks are."""
        cached, still, chain = 0, True, 0
        for start in range(0, len(prompt) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            chain = hash((chain, tuple(prompt[start : start + BLOCK_TOKENS])))
            still = still and chain in self._blocks and start + BLOCK_TOKENS < len(prompt)
            cached += BLOCK_TOKENS * still
            self._blocks[chain] = None
            self._blocks.move_to_end(chain)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return cached
