"""What can go wrong with a store. Foreign errors (sockets, clickhouse-connect) are mapped to these once, in client.py.

StoreError
  BadSpec             what names the store cannot be read, or carries a password where it must not
  StoreUnavailable    no answer, or the connection broke: the same insert with the same token may be sent again
    StoreOwned        a directory belongs to a process that does not answer
  StoreNotStarted     the embedded server of a directory could not start
  DirectoryUnusable   a directory cannot be created or written
  AccessDenied        wrong user or password, or not allowed
  StatementRefused    the server refused a statement; `code` is ClickHouse's number
  MigrationRefused    the schema in the store and this tool's do not fit

No text of these ever holds a password.
"""

from loadtest.errors import StoreError as StoreError


class BadSpec(StoreError):
    pass


class StoreUnavailable(StoreError):
    pass


class StoreOwned(StoreUnavailable):
    pass


class StoreNotStarted(StoreError):
    pass


class DirectoryUnusable(StoreError):
    pass


class AccessDenied(StoreError):
    pass


class StatementRefused(StoreError):
    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class MigrationRefused(StoreError):
    pass
