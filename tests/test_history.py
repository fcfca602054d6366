"""What the lists of runs count, on the terminal and on the page."""

from loadtest import history
from loadtest.store import Store
from tests.rows import CONTENT, answer, failure, insert


def listed(run: str) -> history.Listed:
    return history.Listed(
        run=run, started_ns=0, ended_ns=0, plan_name="p", kind="load", targets=[], going_on=False, result="", told=""
    )


def test_all_but_success_counts_as_failed_whoever_is_to_blame(store: Store) -> None:
    fine = [answer((100, CONTENT)) for _ in range(4)]
    failed = [failure(word) for word in ("http_5xx", "connect", "http_4xx", "generator")]
    insert(store, "history", [*fine, *failed, failure("http_5xx", stage="warm-up", warmup=True)], {})
    found = history.counted(store, [listed("history")])["history"]
    assert (found.requests, found.failed, found.failed_share) == (8, 4, 0.5)


def test_a_run_whose_every_request_was_refused_has_failed(store: Store) -> None:
    insert(store, "refused", [failure("http_4xx", status=401) for _ in range(3)], {})
    assert history.counted(store, [listed("refused")])["refused"].failed_share == 1


def test_of_a_run_without_a_request_no_share_is_known() -> None:
    assert history.Counted().failed_share is None
