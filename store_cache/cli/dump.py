"""`store-cache dump`: write the catalogue of a running store, at one position, into a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from store_cache.cli.client import CallFailed, StoreClient

STANDARD_OUTPUT = "-"


class DumpFailed(Exception):
    """The file cannot be written; the message says why."""


def dump(client: StoreClient, target: str) -> int:
    """Write the dump into the file `target`, completely or not at all; `-` is standard output.

    Raises:
        CallFailed: the store refused, did not answer, or sent less than it has announced.
        DumpFailed: the file cannot be written.
    """
    with client.dump() as lines:
        if target == STANDARD_OUTPUT:
            head = _copy(lines, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with _written_at_once(Path(target)) as file:
                head = _copy(lines, file)
    where = f"{head['generation']}, offset {head['offset']}"
    print(f"{head['products']} products at {where}", file=sys.stderr)
    return 0


def _copy(lines: Iterator[bytes], file: BinaryIO) -> dict[str, Any]:
    """Copy the lines, and return the first one's values."""
    first = next(lines, b"")
    try:
        head: dict[str, Any] = orjson.loads(first)
        announced = int(head["products"])
    except (ValueError, TypeError, KeyError) as problem:
        raise CallFailed("what the store sent is no dump; is --url right?") from problem
    file.write(first)
    products = 0
    for line in lines:
        file.write(line)
        products += line.endswith(b"\n")
    if products != announced:
        raise CallFailed(
            f"the store sent {products} of {announced} products; see its log, and try again"
        )
    return head


@contextmanager
def _written_at_once(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the place of `path` if the block succeeds, durably; if not, nothing is
    left of it."""
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        with new.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as problem:
        new.unlink(missing_ok=True)
        raise DumpFailed(f"{path} cannot be written: {problem.strerror or problem}") from problem
    except BaseException:
        new.unlink(missing_ok=True)
        raise
