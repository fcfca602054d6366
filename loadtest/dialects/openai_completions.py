"""openai-completions: POST {url}/completions, the older form without messages, which engines still speak."""

from loadtest.dialects import Head, _openai, text_of
from loadtest.dialects._openai import TERMINAL, decode_body, decode_stream
from loadtest.prompts import Prompt
from loadtest.types import Target

__all__ = ["OPERATION", "TERMINAL", "accepts", "body", "check", "decode_body", "decode_stream", "head", "streams"]

OPERATION = "text_completion"
PATH = "/completions"


def check(target: Target) -> list[str]:
    return _openai.check(target, PATH)


def head(target: Target, key: str | None) -> Head:
    return _openai.head(target, PATH, key)


def body(target: Target, prompt: Prompt) -> bytes:
    return _openai.body(target, "prompt", text_of(prompt), prompt.max_tokens)


def streams(target: Target) -> bool:
    return target.stream


def accepts(_target: Target, status: int) -> bool:
    return status == 200
