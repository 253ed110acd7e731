"""Lines of JSON with a checksum, from which all files of the store are made.

    {"crc":"1c291ca3","record":{"journal":3,"number":1,...}}

`crc` is the CRC-32 of the bytes of the named value. If the line closes a chunk of other lines, the
bytes of those, newlines included, come first. The first line of every file, in this and all later
formats, is such a line with a `header` that holds `file` (the kind), `format` and `number`. Since
`STORE_ID` is checked at a start, it also holds `store`; and `tenant`, if the store has one.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import orjson

from store_cache.model import exact_json
from store_cache.storage.directory import Directory, DirectoryRefused

FORMAT = 1
"""The format that this program writes, and the newest that it reads."""

HEADER_BYTES = 64 * 1024
"""The most that is read of a file to find its format; headers are shorter."""

OPENING = b'{"crc":"'
_FRAMED = re.compile(rb'\{"crc":"([0-9a-f]{8})","([a-z]+)":(.*)\}', re.DOTALL)


class NewerFormat(DirectoryRefused):
    """A newer version of the program wrote a file (D6)."""


class OtherStore(DirectoryRefused):
    """A store with another STORE_ID or TENANT_ID wrote a file (D6)."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose files these are. `tenant_id` is empty for a store without a tenant."""

    store_id: str
    tenant_id: str = ""

    def header(self) -> dict[str, str]:
        """Return what a file's header says of its owner."""
        tenant = {"tenant": self.tenant_id} if self.tenant_id else {}
        return {"store": self.store_id, **tenant}


def frame(name: str, value: bytes, *, lines: bytes = b"") -> bytes:
    """Return a line that holds `value` and the checksum of `lines` and `value`.

    `value` is JSON on one line. The result ends with a newline.
    """
    crc = crc32(value, crc32(lines))
    return b'{"crc":"%08x","%s":%s}\n' % (crc, name.encode(), value)


def frame_header(file: str, number: int, rest: dict[str, Any]) -> bytes:
    value = {"file": file, "format": FORMAT, "number": number} | rest
    return frame("header", orjson.dumps(value))


def unframe(line: bytes, *, lines: bytes = b"") -> tuple[str, Any] | None:
    """Return name and value of a line made by `frame`, or None if the checksum is wrong."""
    match = _FRAMED.fullmatch(line)
    if match is None or int(match[1], 16) != crc32(match[3], crc32(lines)):
        return None
    try:
        return match[2].decode(), exact_json.loads(match[3])
    except ValueError:
        return None


def read_header(line: bytes, *, file: str, number: int) -> dict[str, Any] | None:
    """Return the header if `line` is the first of the file of this kind and number."""
    match unframe(line):
        case ("header", {"file": kind, "number": own} as value) if (kind, own) == (file, number):
            return dict(value)
        case _:
            return None


async def check_header(directory: Directory, name: str, owner: Owner) -> None:
    """Raise NewerFormat or OtherStore if this store must not use the file.

    Files of older versions do not name their store. Damage is no error here: it is found when the
    whole file is read. Raises OSError if the file cannot be read.
    """
    head = b""
    async with aclosing(directory.read(name, HEADER_BYTES)) as chunks:
        async for chunk in chunks:
            head += chunk
            if len(head) >= HEADER_BYTES or b"\n" in head:
                break
    match unframe(head.partition(b"\n")[0]):
        case ("header", {"format": int(form)}) if form > FORMAT:
            raise NewerFormat(
                f"{name} has format {form}, and this version reads up to {FORMAT}: start the "
                "newer version again, or empty DATA_DIR for a new full sync; nothing was touched"
            )
        case ("header", {"store": str(other)}) if other != owner.store_id:
            raise OtherStore(
                f"DATA_DIR belongs to the store {other} ({name}), and STORE_ID is "
                f"{owner.store_id}: set "
                f"STORE_ID={other} again, or begin with an empty DATA_DIR. That costs a full sync "
                "and the answers to all earlier writes: a till that repeats one sells again. "
                "Nothing was touched"
            )
        case ("header", {"store": str()} as header) if (
            tenant := header.get("tenant", "")
        ) != owner.tenant_id:
            raise OtherStore(
                f"DATA_DIR belongs to {_tenant(tenant)} ({name}), and TENANT_ID names "
                f"{_tenant(owner.tenant_id)}: set TENANT_ID={tenant} again, or give this store a "
                "DATA_DIR of its own. Nothing was touched"
            )


def _tenant(tenant_id: str) -> str:
    return f"the tenant {tenant_id}" if tenant_id else "no tenant"


async def read_lines(directory: Directory, name: str) -> AsyncIterator[list[bytes]]:
    """Yield the file's lines in batches, without newlines.

    Bytes after the last newline are a line too. Each line is an object of its exact size, so that
    rows can be kept without another copy.
    """
    rest: list[bytes] = []
    async for chunk in directory.read(name):
        first, *lines = chunk.split(b"\n")
        rest.append(first)
        if lines:
            last = lines.pop()
            yield [b"".join(rest), *lines]
            rest = [last]
    if tail := b"".join(rest):
        yield [tail]
