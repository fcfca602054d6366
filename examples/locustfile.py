"""A Locust file with token-level calls: loadtest run --locustfile examples/locustfile.py --users 20 --host http://HOST/v1

Without an endpoint at hand: `loadtest simulate --port 9000`, and --host http://127.0.0.1:9000/v1. It also runs under plain
Locust: locust -f examples/locustfile.py --host http://127.0.0.1:9000/v1
"""

from locust import between, task

from loadtest import InferenceUser

QUESTIONS = ("What do locusts eat?", "How far does a swarm fly in a day?", "Why do they gather?")


class Chat(InferenceUser):
    """Someone who asks, reads the answer, and asks on: the history grows from turn to turn."""

    model = "sim-8b"
    # key = "env:ACME_LOADTEST_KEY"     or file:PATH; never the key itself
    wait_time = between(0.5, 2)

    @task(3)
    def converse(self) -> None:
        history = []
        for turn, question in enumerate(QUESTIONS, 1):
            history.append({"role": "user", "content": question})
            answer = self.client.chat(history, max_tokens=40, name=f"turn {turn}", temperature=0.7)
            if answer.error:
                return
            history.append({"role": "assistant", "content": answer.text})
            self.wait()

    @task
    def be_brief(self) -> None:
        with self.client.chat("Say yes.", max_tokens=4, name="brief", catch_response=True) as answer:
            if answer.ttft_ms is not None and answer.ttft_ms > 2000:
                answer.failure("the first token took longer than 2 s")
