"""A key for the command line on the store's own machine, in a file that only its user can read.

Keys are often configured as hashes, so `store-cache status` could not call the store with them. The
store makes a new token at each start and accepts it as an admin's key until it ends. Whoever can
read the file could read all of `DATA_DIR` anyway.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from store_cache.api.auth import Caller, Scope

log = logging.getLogger(__name__)

TOKEN_NAME = "admin-token"  # noqa: S105 - the name of the file
CALLER_NAME = "(local)"
"""In the log; no client of the key file can have it."""

_TOKEN_BYTES = 32
_DISK_SECONDS = 5.0


@asynccontextmanager
async def admin_token(folder: Path) -> AsyncIterator[Caller | None]:
    """Write a new token until the block ends, and yield whose key it is.

    None: the disk fails, so the command line needs another key until a restart. Enter it only while
    the folder is locked: there is one token in it.
    """
    token = secrets.token_hex(_TOKEN_BYTES)
    path = folder / TOKEN_NAME
    try:
        async with asyncio.timeout(_DISK_SECONDS):
            await asyncio.to_thread(_write, path, token)
    except OSError as problem:  # TimeoutError, if the disk hangs, is one
        log.warning(
            "%s cannot be written (%s): until a restart the command line needs --key",
            *(path, problem.strerror or "the disk hangs"),
        )
        yield None
        return
    try:
        yield Caller(CALLER_NAME, Scope.ADMIN, hashlib.sha256(token.encode()).digest())
    finally:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_DISK_SECONDS):
                await asyncio.to_thread(path.unlink)


def read_token(folder: Path) -> str | None:
    """Return the token of the store that runs on this folder; None if there is none to be read."""
    try:
        return (folder / TOKEN_NAME).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, token: str) -> None:
    """Replace the file in one step; it is never open to others."""
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{token}\n")
    new.replace(path)
