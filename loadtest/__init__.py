"""Load-testing and observability for GPU inference endpoints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtest.locustfiles.user import InferenceUser as InferenceUser

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`from loadtest import InferenceUser` is for locustfiles: nothing else here may import Locust, which monkey-patches."""
    if name == "InferenceUser":
        from loadtest.locustfiles.user import InferenceUser

        return InferenceUser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
