"""docs/metrics.md: `python -m loadtest.definitions > docs/metrics.md`."""

from loadtest import metrics
from loadtest.definitions import catalogue

print(f"{metrics.catalogue()}\n{catalogue()}", end="")
