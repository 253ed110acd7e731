"""The versions of the schema, and how a database gets the newest one.

Each file of `migrations/` is one version, applied once, in a transaction, under a lock that lets
one process migrate at a time. A process serves only the version that it knows.

Errors:
    SchemaError         the schema is older or newer than this program
"""

from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg.rows import TupleRow

from central_stub.storage import StorageError

_LOCK = 4_027_301_118
"""Any number that no other program locks in this database."""


class SchemaError(StorageError):
    """The message says which version there is, and what to do."""


class Migration(NamedTuple):
    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Return all versions, the oldest first."""
    folder = files("central_stub.postgres") / "migrations"
    found = [each for each in folder.iterdir() if each.name.endswith(".sql")]
    return sorted(
        Migration(int(each.name[:4]), each.name.removesuffix(".sql"), each.read_text("utf-8"))
        for each in found
    )


async def migrate(connection: psycopg.AsyncConnection[TupleRow]) -> list[str]:
    """Bring the schema to the newest version; return the names of what was applied. SchemaError if
    it is newer than this program."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        await connection.execute("CREATE SCHEMA IF NOT EXISTS central")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS central.migrations (version integer PRIMARY KEY,"
            " name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        present = await _version(connection)
        _check_not_newer(present)
        missing = [each for each in migrations() if each.version > present]
        for each in missing:
            await connection.execute(each.sql.encode())
            await connection.execute(
                "INSERT INTO central.migrations (version, name) VALUES (%s, %s)",
                (each.version, each.name),
            )
    return [each.name for each in missing]


async def check(connection: psycopg.AsyncConnection[TupleRow]) -> None:
    """Raise SchemaError if the schema is not of the version of this program."""
    known = await connection.execute("SELECT to_regclass('central.migrations') IS NOT NULL")
    row = await known.fetchone()
    present = await _version(connection) if row is not None and row[0] else 0
    _check_not_newer(present)
    newest = migrations()[-1].version
    if present < newest:
        raise SchemaError(
            f"the database has version {present} of the schema, and this program needs {newest}: "
            "run central-stub migrate"
        )


async def _version(connection: psycopg.AsyncConnection[TupleRow]) -> int:
    found = await connection.execute("SELECT coalesce(max(version), 0) FROM central.migrations")
    row = await found.fetchone()
    return 0 if row is None else int(row[0])


def _check_not_newer(present: int) -> None:
    newest = migrations()[-1].version
    if present > newest:
        raise SchemaError(
            f"the database has version {present} of the schema, and this program knows only "
            f"{newest}: run a newer central-stub"
        )
