"""A scripted inference endpoint: OpenAI-compatible, with a model of batching, faults, rate limits and exact scripting.

It ships, and it is what the tests run against: a request says in `"simulate"` what the answer shall be (script.py), so
a test knows the right figures beforehand; without that the batching model answers (engine.py). Nothing here imports
Locust, ClickHouse or Ray: it starts in well under a second.
"""

from loadtest.simulator.launch import run, start
from loadtest.simulator.profile import PROFILES, Profile, Tls
from loadtest.simulator.server import serve

__all__ = ["PROFILES", "Profile", "Tls", "run", "serve", "start"]
