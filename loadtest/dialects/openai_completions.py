"""openai-completions: POST {url}/completions, the older form without messages, which engines still speak."""

from loadtest.dialects import Request, _openai, text_of
from loadtest.dialects._openai import TERMINAL, decode_body, decode_stream
from loadtest.prompts import Prompt
from loadtest.types import Target

__all__ = ["OPERATION", "TERMINAL", "accepts", "check", "decode_body", "decode_stream", "encode", "streams"]

OPERATION = "text_completion"
PATH = "/completions"


def check(target: Target) -> list[str]:
    return _openai.check(target, PATH)


def encode(target: Target, prompt: Prompt, key: str | None) -> Request:
    return _openai.request(target, PATH, {"prompt": text_of(prompt)}, prompt.max_tokens, key)


def streams(target: Target) -> bool:
    return target.stream


def accepts(_target: Target, status: int) -> bool:
    return status == 200
