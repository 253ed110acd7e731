"""Lines that prove themselves: how a line of JSON on disk carries its checksum.

    {"crc":"1c291ca3","record":{"journal":3,"number":1,...}}

`crc` is the CRC-32 of the bytes of the named value. Where the line closes a chunk of other lines,
theirs, newlines included, come first. The first line of every file, in this format and in all
later ones, is such a line with the `header`: `file` (its kind), `format` and `number`.

Knows: how such lines are written, checked and read in batches.
Refuses to know: what the values mean.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from zlib import crc32

import orjson

from store_cache.storage.directory import Directory

FORMAT = 1
"""The newest format of the files that this program reads, and the one it writes."""

HEAD_BYTES = 64 * 1024
"""A header is shorter; at most this much is read of a file to learn its format."""

OPENING = b'{"crc":"'
_FRAMED = re.compile(rb'\{"crc":"([0-9a-f]{8})","([a-z]+)":(.*)\}', re.DOTALL)


class NewerFormat(Exception):
    """A file was written by a newer version; nothing was touched (D6)."""


def frame(name: str, value: bytes, *, lines: bytes = b"") -> bytes:
    """The line, newline included, that holds `value`, JSON on one line, and proves `lines`."""
    crc = crc32(value, crc32(lines))
    return b'{"crc":"%08x","%s":%s}\n' % (crc, name.encode(), value)


def frame_header(file: str, number: int, rest: dict[str, Any]) -> bytes:
    value = {"file": file, "format": FORMAT, "number": number} | rest
    return frame("header", orjson.dumps(value))


def unframe(line: bytes, *, lines: bytes = b"") -> tuple[str, Any] | None:
    """Name and value of a line made by `frame`; None where it does not check out."""
    match = _FRAMED.fullmatch(line)
    if match is None or int(match[1], 16) != crc32(match[3], crc32(lines)):
        return None
    try:
        return match[2].decode(), orjson.loads(match[3])
    except orjson.JSONDecodeError:
        return None


def read_header(line: bytes, *, file: str, number: int) -> dict[str, Any] | None:
    """The header, if this is the first line of that very file."""
    match unframe(line):
        case ("header", {"file": kind, "number": own} as value) if (kind, own) == (file, number):
            return dict(value)
        case _:
            return None


async def check_format(folder: Directory, name: str) -> None:
    """Raises NewerFormat, and OSError. Any other trouble is found when the file is read."""
    head = b""
    async with aclosing(folder.read(name, HEAD_BYTES)) as chunks:
        async for chunk in chunks:
            head += chunk
            if len(head) >= HEAD_BYTES or b"\n" in head:
                break
    match unframe(head.partition(b"\n")[0]):
        case ("header", {"format": int(form)}) if form > FORMAT:
            raise NewerFormat(
                f"{name} has format {form}, and this version reads up to {FORMAT}: start the "
                "newer version again, or empty DATA_DIR for a new full sync; nothing was touched"
            )


async def read_lines(folder: Directory, name: str) -> AsyncIterator[list[bytes]]:
    """The file's lines in batches, without newlines; what follows the last newline is a line too.

    Each line is a copy of its exact size, so that rows can be kept as they are.
    """
    rest: list[bytes] = []
    async for chunk in folder.read(name):
        first, *lines = chunk.split(b"\n")
        rest.append(first)
        if lines:
            last = lines.pop()
            yield [b"".join(rest), *lines]
            rest = [last]
    if tail := b"".join(rest):
        yield [tail]
