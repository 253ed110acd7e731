"""What an administrator does to the database: migrate it, and tell that it was restored."""

import uuid

from central_stub.postgres import schema
from central_stub.postgres.database import CHANNEL, connect

BEGIN_GENERATION = """
WITH renamed AS (
    UPDATE central.feed SET generation = %(new)s, epoch = epoch + 1 WHERE tenant = %(tenant)s
    RETURNING tenant
)
SELECT pg_notify(%(channel)s, tenant::text) FROM renamed
"""


async def migrate(url: str) -> list[str]:
    """Return the names of the migrations that were applied. DatabaseError, SchemaError."""
    async with await connect(url) as connection:
        return await schema.migrate(connection)


async def begin_generations(url: str) -> list[tuple[str, str]]:
    """Begin a new generation of every tenant; return their names. DatabaseError, SchemaError."""
    begun: list[tuple[str, str]] = []
    async with await connect(url) as connection, connection.transaction():
        await schema.check(connection)
        tenants = await connection.execute(
            "SELECT tenant, name FROM central.feed ORDER BY name FOR UPDATE"
        )
        for tenant, name in await tenants.fetchall():
            new = str(uuid.uuid4())
            values = {"tenant": tenant, "new": new, "channel": CHANNEL}
            await connection.execute(BEGIN_GENERATION, values)
            begun.append((name, new))
    return begun
