"""Load-testing and observability for GPU inference endpoints."""

__version__ = "0.1.0"
