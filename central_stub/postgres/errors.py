"""What an error of PostgreSQL means for a request."""

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout

RIVALS = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)
"""Another transaction was in the way, or created the same key or product: the group is repeated."""

_LOST = frozenset({"57P01", "57P02", "57P03"})
"""The server ends, has crashed, or starts."""

_UNABLE = frozenset({"08", "53", "57"})
"""Classes: connections, resources such as disk space, an operator."""

_READ_ONLY = "25006"

_TOO_LONG = frozenset({"55P03", "25P03"})
"""A lock was not given in time, or the process was too slow: the transaction was rolled back."""


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the connection was lost, and with it the outcome of what was sent."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate in _LOST


def is_unable(error: psycopg.Error) -> bool:
    """Return whether the server can do nothing of this kind now, whatever is asked of it."""
    if isinstance(error, PoolTimeout | PoolClosed) or is_lost(error):
        return True
    state = error.sqlstate or ""
    return state[:2] in _UNABLE or state == _READ_ONLY or state in _TOO_LONG


def words(error: psycopg.Error) -> str:
    """Return one line that says what PostgreSQL said."""
    if isinstance(error, PoolTimeout | PoolClosed):
        return "the database cannot be reached"
    said = str(error).strip().splitlines()
    return f"the database says: {said[0] if said else type(error).__name__}"
