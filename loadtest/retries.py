"""When a failed request is sent again. Pure: the worker waits.

As the clients of users do it: as long as the server asks for (`Retry-After`), else half a second, doubled each time, to
at most 8 s, less up to a quarter that depends on the request alone, so that those which failed together do not come back
together, and yet the same run waits the same.
"""

from loadtest.types import Result, Retries

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
SPREAD = 0.25


def wait_s(retries: Retries | None, result: Result, longest_s: float) -> float | None:
    """Seconds until the next attempt; None: there is none. A server that asks for more than `longest_s` is not asked."""
    if retries is None or result.error not in retries.on or result.attempt >= retries.max:
        return None
    if retries.honour_retry_after and result.retry_after_s is not None:
        return result.retry_after_s if result.retry_after_s <= longest_s else None
    share = int(result.trace_id[:8], 16) / 2**32
    return min(FIRST_WAIT_S * 2.0**result.attempt, LONGEST_WAIT_S) * (1 - SPREAD * share)
