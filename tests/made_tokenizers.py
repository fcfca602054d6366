"""Tokenizers trained on the spot, of the kinds that models come with. Training takes a few milliseconds."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from loadtest.prompts import WORDS


def corpus() -> list[str]:
    random = Random(1)
    return [" ".join(random.choices(WORDS, k=60)) for _ in range(400)]


def byte_level(vocabulary: int) -> Tokenizer:
    """As GPT-2 and Llama 3: bytes, a space belongs to the word after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=alphabet,
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for line in corpus() for text in (line, " " + line)], trainer)
    return tokenizer


def spaces_as_letters(vocabulary: int) -> Tokenizer:
    """As Llama 2 and Mistral: nothing is split beforehand, a space is a letter, one more stands at the start."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<unk>"], max_token_length=12, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def unigram(vocabulary: int) -> Tokenizer:
    """As T5: the likeliest pieces of each word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def word_piece(vocabulary: int) -> Tokenizer:
    """As BERT: words and their continuations."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level, each word a token": lambda: byte_level(2000),
    "byte-level, some words a token": lambda: byte_level(500),
    "byte-level, bytes": lambda: byte_level(257),
    "spaces as letters": lambda: spaces_as_letters(1500),
    "spaces as letters, few": lambda: spaces_as_letters(60),
    "unigram": lambda: unigram(1000),
    "unigram, few": lambda: unigram(80),
    "word pieces": lambda: word_piece(1500),
    "word pieces, few": lambda: word_piece(60),
}


def save(tokenizer: Tokenizer, directory: Path) -> Path:
    path = directory / "tokenizer.json"
    tokenizer.save(str(path))
    return path
