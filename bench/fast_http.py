"""Locust's FastHttpUser on its own: how many requests without streaming it makes in a second of its core.

python fast_http.py URL USERS SECONDS
"""

import locust  # first: it monkey-patches  # isort: skip

import json
import resource
import sys

import gevent
from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment

BODY = {"model": "paced", "messages": [{"role": "user", "content": "hello " * 50}], "max_tokens": 100}


class User(FastHttpUser):  # type: ignore[misc]
    @locust.task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        self.client.post("/v1/chat/completions", json=BODY)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    url, users, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    User.host = url
    environment = Environment(user_classes=[User])
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=users)
    gevent.sleep(2)  # all users are there and have their connections
    total = environment.stats.total
    before, before_s = total.num_requests, cpu_s()
    gevent.sleep(seconds)
    done, used_s = total.num_requests - before, cpu_s() - before_s
    failures = total.num_failures
    runner.quit()
    if failures or not done:
        sys.exit(f"{failures} of {done} requests failed")
    print(json.dumps({"requests": done, "cpu_s": used_s, "us_per_request": used_s / done * 1e6}))


if __name__ == "__main__":
    main()
