"""Every exception that a user may see, in one tree. Its text says what is wrong, where, and what to write instead.

    UserError               ends with status 2: nothing was sent
    ├── PlanError           the plan, a dataset or a key is wrong
    ├── StoreError          the store cannot be reached, opened or written
    ├── RunFailed           the workers could not be started or placed
    ├── Interrupted         before anything was sent: status 130
    ├── NotKept             a calibration of a busy machine: status 3, as for any INVALID run
    ├── ResultsNotStored    the load was sent and its store failed: status 3 too
    └── NotWritten          the run is stored, and its files could not be written: status 4

Whatever else is raised is a fault of ours: exit status 4.
"""


class UserError(Exception):
    """Something the user can put right."""

    exit_status = 2


class PlanError(UserError, ValueError):
    """Several problems stand on lines of their own."""


class StoreError(UserError):
    pass


class RunFailed(UserError):
    pass


class Interrupted(UserError):
    exit_status = 130


class NotKept(UserError):
    exit_status = 3


class ResultsNotStored(UserError):
    exit_status = 3


class NotWritten(UserError):
    exit_status = 4
