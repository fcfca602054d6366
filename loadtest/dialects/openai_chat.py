"""openai-chat: POST {url}/chat/completions, as vLLM, SGLang, TGI and most providers speak it."""

from loadtest.dialects import Request, _openai
from loadtest.dialects._openai import TERMINAL, decode_body, decode_stream
from loadtest.prompts import Prompt
from loadtest.types import Target

__all__ = ["OPERATION", "TERMINAL", "accepts", "check", "decode_body", "decode_stream", "encode", "streams"]

OPERATION = "chat"
PATH = "/chat/completions"


def check(target: Target) -> list[str]:
    return _openai.check(target, PATH)


def encode(target: Target, prompt: Prompt, key: str | None) -> Request:
    return _openai.request(target, PATH, {"messages": prompt.messages}, prompt.max_tokens, key)


def streams(target: Target) -> bool:
    return target.stream


def accepts(_target: Target, status: int) -> bool:
    return status == 200
