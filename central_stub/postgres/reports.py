"""Reports of stores, shared by the processes of Central that serve one database.

Each process keeps all of them in memory, as without a database. Once a second it writes those that
came to it, and reads those that came to others since it looked last. How long ago that was is told
by the database's clock, since the clocks of two machines may differ. While the database is away the
reports wait: stores repeat them every minute anyway.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable

import orjson
import psycopg
from pydantic import ValidationError

from central_stub.backend import Unavailable
from central_stub.cancellation import is_cancelled
from central_stub.fleet.report import Report, StoreReport, Whole
from central_stub.fleet.reports import FORGET_SECONDS, NoRoom, Reports
from central_stub.postgres.database import Database
from central_stub.postgres.errors import words

LOOK_SECONDS = 1.0
OVERLAP_SECONDS = 5.0
"""What is read once more: a transaction may have been committed after a later one."""

AT_ONCE = 100
"""Rows, between which other requests are answered."""

CLEAN_SECONDS = 600.0
FORGOTTEN = b""

STORE = """
INSERT INTO central.reports (tenant, store_id, process, central, stored_at, body)
VALUES (%(tenant)s, %(store_id)s, %(process)s, %(central)s,
    extract(epoch FROM clock_timestamp()) - %(ago)s, %(body)s)
ON CONFLICT (tenant, store_id, process) DO UPDATE
SET central = excluded.central, stored_at = excluded.stored_at, body = excluded.body
WHERE central.reports.stored_at < excluded.stored_at
"""
FORGET = """
UPDATE central.reports SET body = '', central = %(central)s,
    stored_at = extract(epoch FROM clock_timestamp())
WHERE tenant = %(tenant)s AND store_id = %(store_id)s
"""
READ = """
SELECT store_id, process, body, stored_at, extract(epoch FROM clock_timestamp())::float8 - stored_at
FROM central.reports
WHERE tenant = %(tenant)s AND central <> %(central)s AND stored_at > %(after)s
ORDER BY stored_at
"""
CLEAN = """
DELETE FROM central.reports
WHERE stored_at < extract(epoch FROM clock_timestamp()) - %(seconds)s
"""

logger = logging.getLogger("central_stub.postgres")


class SharedReport(Report):
    """A report as it is stored. `lag`: of `StoreReport`."""

    lag: Whole | None = None


class SharedReports:
    """Shares the reports of one tenant. `clock` returns unix seconds, as for `Reports`."""

    def __init__(
        self, database: Database, tenant: str, reports: Reports, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._reports = reports
        self._reports.is_shared = True
        self._clock = clock
        self._named = {"tenant": tenant, "central": uuid.uuid4().hex}
        self._after = 0.0
        self._seen: dict[tuple[str, str], float] = {}
        self._cleaned_at = float("-inf")

    async def run(self) -> None:
        """Share until cancelled."""
        while not is_cancelled():
            try:
                await self.look()
            except (Unavailable, psycopg.Error) as error:
                logger.warning("reports of stores are not shared: %s", words_of(error))
            except Exception:
                logger.exception("reports of stores are not shared")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Write what came here, and read what came to others. Unavailable, psycopg.Error."""
        await self._write()
        await self._read()
        now = asyncio.get_running_loop().time()
        if now - self._cleaned_at > CLEAN_SECONDS:
            async with self._database.connection() as connection:
                await connection.execute(CLEAN, {"seconds": FORGET_SECONDS})
            self._cleaned_at = now

    async def _write(self) -> None:
        taken, self._reports.taken = self._reports.taken, {}
        forgotten, self._reports.forgotten = self._reports.forgotten, set()
        if not taken and not forgotten:
            return
        try:
            async with (
                self._database.connection() as connection,
                connection.transaction(),
                connection.cursor() as cursor,
            ):
                for store_id in sorted(forgotten):
                    await cursor.execute(FORGET, {**self._named, "store_id": store_id})
                # In the order of the keys, so that two processes never wait for each other.
                rows = [self._row(taken[key]) for key in sorted(taken)]
                await cursor.executemany(STORE, rows)
        except BaseException:
            self._reports.put_back(taken, forgotten)
            raise

    def _row(self, kept: StoreReport) -> dict[str, object]:
        return {
            **self._named,
            "store_id": kept.store_id,
            "process": kept.report.process,
            "ago": max(0.0, self._clock() - kept.received_at),
            "body": orjson.dumps(
                kept.report.model_dump(mode="json", by_alias=True) | {"lag": kept.lag}
            ),
        }

    async def _read(self) -> None:
        named = {**self._named, "after": self._after - OVERLAP_SECONDS}
        rows = await self._database.read(READ, named)
        seen, self._seen = self._seen, {}
        left_out: NoRoom | None = None
        for number, (store_id, process, body, stored_at, ago) in enumerate(rows):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # after a start there may be thousands
            self._after = max(self._after, stored_at)
            self._seen[store_id, process] = stored_at
            if seen.get((store_id, process)) == stored_at:
                continue
            received_at = self._clock() - ago
            if bytes(body) == FORGOTTEN:
                self._reports.drop_before(store_id, received_at)
                continue
            try:
                report = SharedReport.model_validate_json(bytes(body))
            except ValidationError:
                continue  # of another version of Central
            try:
                self._reports.merge([StoreReport(store_id, received_at, report, report.lag)])
            except NoRoom as problem:
                left_out = problem
        if left_out is not None:
            logger.warning("reports that other processes were told are left out: %s", left_out)


def words_of(error: Exception) -> str:
    """Return what went wrong, in one line."""
    return words(error) if isinstance(error, psycopg.Error) else str(error)
