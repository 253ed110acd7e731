"""What an administrator does to the database: migrate it, and tell that it was restored."""

import uuid

from central_stub.postgres import schema
from central_stub.postgres.database import CHANNEL, connect
from central_stub.postgres.tail import BEGIN_GENERATION


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
            "SELECT tenant, name, generation, epoch FROM central.feed ORDER BY name FOR UPDATE"
        )
        for tenant, name, old, epoch in await tenants.fetchall():
            new = str(uuid.uuid4())
            values = {"tenant": tenant, "new": new, "old": old, "epoch": epoch, "channel": CHANNEL}
            await connection.execute(BEGIN_GENERATION.encode(), values)
            begun.append((name, new))
    return begun
