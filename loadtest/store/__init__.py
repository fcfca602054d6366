"""ClickHouse: the client, the embedded server for a directory, and the schema's migrations."""

from loadtest.store.address import Address
from loadtest.store.client import Store, open_store
from loadtest.store.errors import (
    AccessDenied,
    BadSpec,
    DirectoryUnusable,
    MigrationRefused,
    StatementRefused,
    StoreError,
    StoreNotStarted,
    StoreOwned,
    StoreUnavailable,
)

__all__ = [
    "AccessDenied",
    "Address",
    "BadSpec",
    "DirectoryUnusable",
    "MigrationRefused",
    "StatementRefused",
    "Store",
    "StoreError",
    "StoreNotStarted",
    "StoreOwned",
    "StoreUnavailable",
    "open_store",
]
