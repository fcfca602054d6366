"""`make demo`: two simulated providers that differ in speed and reliability, one plan against both, on a local Ray.

The unreliable one breaches an SLO, which is exit status 1 of `loadtest run` and what the demo is there to show: it counts
as done. Everything else that is not 0 is a failure of the demo too.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOADTEST = Path(sys.executable).with_name("loadtest")
PLAN = """\
name: demo
seed: 1
targets:
  - name: swift
    url: "{swift}/v1"
    dialect: openai-chat
    model: sim-8b
    price: {{input_per_million: 0.3, output_per_million: 0.6}}
  - name: thrifty
    url: "{thrifty}/v1"
    dialect: openai-chat
    model: sim-8b
    price: {{input_per_million: 0.1, output_per_million: 0.2}}
prompts: {{kind: synthetic, input_tokens: {{mean: 300, stdev: 80}}, output_tokens: {{mean: 60, stdev: 15}}}}
stages:
  - {{name: warm-up, arrivals: {{kind: constant, rate: 4}}, duration_s: 3, warmup: true, drain_s: 5}}
  - {{name: steady, arrivals: {{kind: poisson, rate: 20}}, duration_s: 10, drain_s: 5}}
  - {{name: rising, arrivals: {{kind: ramp, from: 20, to: 40}}, duration_s: 7, drain_s: 5}}
slos:
  - {{metric: ttft_ms, stat: p90, limit: 500}}
  - {{metric: e2e_ms, stat: p90, limit: 1500}}
  - {{metric: error_rate, limit: 0.05}}
goodput: {{ttft_ms: 500, tpot_ms: 50}}
fleet: {{workers: 2}}
"""


@contextmanager
def provider(profile: str) -> Iterator[str]:
    """A simulated provider in a process of its own; its URL."""
    nice = ["nice", "-n", "10"]  # they share this machine with the load generator, which must not wait for them
    command = [*nice, str(LOADTEST), "simulate", "--profile", profile, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def main() -> int:
    plan = Path("runs/demo.yaml")
    plan.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        swift, thrifty = (stack.enter_context(provider(profile)) for profile in ("fast", "flaky"))
        print(
            f"Two simulated providers: swift at {swift}, thrifty (slower, fails now and then) at {thrifty}.", flush=True
        )
        plan.write_text(PLAN.format(swift=swift, thrifty=thrifty))
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        print("loadtest run runs/demo.yaml --on ray --workers 2", flush=True)
        command = [str(LOADTEST), "run", str(plan), "--on", "ray", "--workers", "2"]
        status = subprocess.run(command, env=environment).returncode
    if status == 1:
        print(
            "Exit status 1: an SLO was breached. That is what the unreliable provider is here to show; the demo worked."
        )
    if status == 3:
        print(
            "Exit status 3: this machine was too busy to measure, and the run says so (INVALID). Let it do nothing else, and "
            "run the demo again; its report shows what the run looked like."
        )
    return 0 if status in (0, 1, 5) else status


if __name__ == "__main__":
    sys.exit(main())
