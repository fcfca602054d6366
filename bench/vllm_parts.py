"""vLLM's request function and statistics on their own: `vllm bench serve` without the engine around it.

Run by the Python of an environment that holds `vllm/benchmarks` of the wheel and nothing else of it. What serve.py
imports of the rest (datasets, argument parsers, tokenizers) does not touch a figure and stands empty here.

    python vllm_parts.py SITE_PACKAGES URL BODY REQUESTS OUTPUT_TOKENS RESULT
"""

import asyncio
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import aiohttp

PERCENTILES = [25.0, 50.0, 75.0, 90.0]
EMPTY = {
    "vllm": (),
    "vllm.benchmarks": (),
    "vllm.benchmarks.datasets": ("SampleRequest", "add_dataset_parser", "get_samples"),
    "vllm.benchmarks.lib": (),
    "vllm.benchmarks.lib.ready_checker": ("wait_for_endpoint",),
    "vllm.benchmarks.lib.utils": ("convert_to_pytorch_benchmark_format", "redact_sensitive_namespace", "write_to_json"),
    "vllm.tokenizers": ("TokenizerLike", "get_tokenizer"),
    "vllm.utils": (),
    "vllm.utils.argparse_utils": ("FlexibleArgumentParser",),
    "vllm.utils.gc_utils": ("freeze_gc_heap",),
    "vllm.utils.network_utils": ("join_host_port",),
}


def load(site: Path, name: str) -> Any:
    """A module of the wheel by its path, under its own name."""
    spec = importlib.util.spec_from_file_location(name, site / f"{name.replace('.', '/')}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def parts(site: Path) -> tuple[Any, Any]:
    """endpoint_request_func.py and serve.py."""
    for name, members in EMPTY.items():
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, object)
        sys.modules[name] = module
    return load(site, "vllm.benchmarks.lib.endpoint_request_func"), load(site, "vllm.benchmarks.serve")


async def run(request: Any, url: str, body: dict[str, Any], requests: int, output_tokens: int) -> list[Any]:
    """One after another over one session, as with --max-concurrency 1."""
    asked = request.RequestFuncInput(
        prompt="word " * 50,
        api_url=f"{url}/v1/chat/completions",
        prompt_len=50,
        output_len=output_tokens,
        model="m",
        extra_body=body,
    )
    async with aiohttp.ClientSession(timeout=request.AIOHTTP_TIMEOUT) as session:
        return [await request.async_request_openai_chat_completions(asked, session) for _ in range(requests)]


def main() -> None:
    site, url, body, requests, output_tokens, result = sys.argv[1:]
    request, serve = parts(Path(site))
    outputs = asyncio.run(run(request, url, json.loads(body), int(requests), int(output_tokens)))
    found, _ = serve.calculate_metrics([None] * len(outputs), outputs, 1.0, None, PERCENTILES, {})
    if found.completed != len(outputs):
        sys.exit(f"{found.failed} of {len(outputs)} requests failed: {outputs[0].error}")
    figures = {
        name: {"mean": getattr(found, f"mean_{name}_ms")}
        | {f"p{percent:g}": value for percent, value in getattr(found, f"percentiles_{name}_ms")}
        for name in ("ttft", "tpot", "itl", "e2el")
    }
    Path(result).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
