"""A snapshot: the whole catalogue at one moment, and the key table, as lines of JSON.

    {"crc":"…","header":{"file":"snapshot","format":1,"number":7,"store":"…","written":"…",
        "keysSince":…,
        "catalogue":{"position":{…},"inStepAt":…,"sequence":12,"rows":4069,"marks":0,"ahead":1,…}}}
    {"productId":"PROD-001",…}                      up to 2,000 lines of one kind, closed by
    {"crc":"…","chunk":{"snapshot":7,"number":1,"of":"rows","lines":2000}}
    …
    {"crc":"…","end":{"snapshot":7,"chunks":4,"writes":120}}

The kinds are `rows`, `marks`, `ahead`, `owed`, `lives` and `writes`. A chunk names its snapshot and
is numbered, so that a missing, repeated or foreign chunk is noticed.

Of a damaged snapshot, the catalogue is used only if all of it is intact. Entries of the key table
are taken from every intact chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress, count, islice, repeat
from operator import methodcaller
from typing import Any

import orjson

from store_cache.catalogue.catalogue import UNFOLLOWED, Catalogue, PointInTimeView
from store_cache.model.change import Override, PendingRefetch, Tombstone
from store_cache.model.position import Position
from store_cache.storage.directory import Directory, DiskHangs
from store_cache.storage.framing import (
    OPENING,
    frame,
    frame_header,
    read_header,
    read_lines,
    unframe,
)
from store_cache.storage.names import snapshot_name

CHUNK_LINES = 2000
"""About 280 kB: a chunk blocks the event loop for less than a millisecond."""

CHUNK_BYTES = 4 * 2**20
"""The most of a chunk of large rows."""

_ROW_START = b'{"productId":"'
_WRITE_START = b'{"write":'
_BETWEEN_WRITES = b"}\n" + _WRITE_START
_ENTRIES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "marks": ("tombstones", Tombstone.from_json),
    "ahead": ("overrides", Override.from_json),
    "owed": ("pending_refetches", PendingRefetch.from_json),
    "lives": ("incarnations", float),
}
"""What the catalogue holds by product id, rows aside: for each kind in the file, the attribute of
the catalogue and the function that reads an entry."""

# -- writing -------------------------------------------------------------------------------


def encode_snapshot(
    number: int, *, about: dict[str, Any], view: PointInTimeView | None, writes: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield the bytes of the file, one chunk at a time.

    `view` and `writes` are read as the result is iterated over. Each of `writes` is one JSON object
    on one line. `about`: what the header holds besides, for checks and for people.
    """
    if view is not None and view.position is None:
        view = None
    summary = None if view is None else _summary(view)
    yield frame_header("snapshot", number, about | {"catalogue": summary})
    chunks = 0
    write_count = 0
    for kind, lines in _sections(view, writes):
        chunks += 1
        write_count += len(lines) if kind == "writes" else 0
        closing = {"snapshot": number, "number": chunks, "of": kind, "lines": len(lines)}
        joined = _joined_writes(lines) if kind == "writes" else b"\n".join((*lines, b""))
        yield joined + frame("chunk", orjson.dumps(closing), lines=joined)
    end = {"snapshot": number, "chunks": chunks, "writes": write_count}
    yield frame("end", orjson.dumps(end))


def _summary(view: PointInTimeView) -> dict[str, Any]:
    assert view.position is not None
    return {
        "position": view.position.to_json(),
        "inStepAt": view.in_sync_at,
        "flaw": view.follow_up_reason,
        "sequence": view.sequence,
        "rows": view.count,
    } | {kind: len(getattr(view, name)) for kind, (name, _) in _ENTRIES.items()}


def _sections(
    view: PointInTimeView | None, writes: Iterable[bytes]
) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the lines of each chunk with their kind; of `writes` the entries alone."""
    if view is not None:
        while rows := view.next_rows(CHUNK_LINES):
            for lines in _halved(rows):
                yield "rows", lines
        for kind, (name, _) in _ENTRIES.items():
            for lines in _batches(_entry_lines(getattr(view, name))):
                yield kind, lines
    for lines in _batches(iter(writes)):
        yield "writes", lines


def _joined_writes(entries: list[bytes]) -> bytes:
    return _WRITE_START + _BETWEEN_WRITES.join(entries) + b"}\n"


def _halved(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines in parts of at most `CHUNK_BYTES`."""
    if len(lines) == 1 or sum(map(len, lines)) <= CHUNK_BYTES:
        yield lines
        return
    half = len(lines) // 2
    yield from _halved(lines[:half])
    yield from _halved(lines[half:])


def _entry_lines(entries: Mapping[str, Any]) -> Iterator[bytes]:
    for product_id, entry in entries.items():
        yield orjson.dumps(
            {"productId": product_id, "entry": entry},
            default=methodcaller("to_json"),
            option=orjson.OPT_PASSTHROUGH_DATACLASS,
        )


def _batches(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(islice(lines, CHUNK_LINES)):
        yield batch


# -- reading -------------------------------------------------------------------------------


@dataclass(slots=True)
class SnapshotContents:
    """What was read of a snapshot.

    `is_usable`: the catalogue is intact, or the snapshot was certainly written without one.
    `writes`: intact entries of the key table, one JSON object on each line, in parts. `keys_since`:
    when the key table began, in unix seconds; None if that is not known. `problems` say where the
    file is damaged, and how.
    """

    number: int
    is_usable: bool = False
    catalogue: Catalogue | None = None
    writes: list[bytes] = field(default_factory=list)
    write_count: int = 0
    keys_since: float | None = None
    problems: list[str] = field(default_factory=list)


async def read_snapshot(directory: Directory, number: int) -> SnapshotContents:
    """Read a snapshot, however damaged. The result names the problems. Raises DiskHangs."""
    reader = _Reader(number)
    try:
        async for lines in read_lines(directory, snapshot_name(number)):
            reader.take(lines)
    except DiskHangs:  # nothing is wrong with the file
        raise
    except OSError as problem:
        reader.add_problem(f"it cannot be read on: {problem}")
    return reader.finish()


class _Reader:
    """Reads a snapshot's lines as they come. `_open` are those whose chunk is not closed yet."""

    def __init__(self, number: int) -> None:
        self._contents = SnapshotContents(number)
        self._catalogue = Catalogue()
        self._header: dict[str, Any] | None = None
        self._chunk = 0
        self._end: dict[str, Any] | None = None
        self._open: list[bytes] = []
        self._line = 1  # where the open lines begin
        self._byte = 0

    def take(self, lines: list[bytes]) -> None:
        """Read a batch of lines. Rows are not looked at one by one, only closing lines are."""
        start = 0
        for place in compress(count(), map(bytes.startswith, lines, repeat(OPENING))):
            self._open += lines[start:place]
            self._close_chunk(lines[place])
            start = place + 1
        self._open += lines[start:]

    def add_problem(self, problem: str) -> None:
        last = self._line + len(self._open)
        where = f"line {last}" if last == self._line else f"lines {self._line} to {last}"
        self._contents.problems.append(f"{where} (from byte {self._byte}): {problem}")

    def finish(self) -> SnapshotContents:
        contents = self._contents
        if self._open:
            self.add_problem("the end is cut off")
        elif not contents.problems and self._end != {
            "snapshot": contents.number,
            "chunks": self._chunk,
            "writes": contents.write_count,
        }:
            self.add_problem("a part before this is missing")
        if self._header is not None:
            contents.keys_since = self._header.get("keysSince")
            summary = self._header["catalogue"]
            contents.is_usable = summary is None or self._is_whole(summary)
            if summary is not None and contents.is_usable:
                contents.catalogue = self._finish_catalogue(summary)
        return contents

    def _close_chunk(self, line: bytes) -> None:
        """Use the open lines if `line` has their checksum."""
        number = self._contents.number
        joined = b"\n".join((*self._open, b""))
        if self._line == 1 and not self._open:
            self._header = read_header(line, file="snapshot", number=number)
            if self._header is None:
                self.add_problem("the header is damaged")
        else:
            match unframe(line, lines=joined):
                case ("chunk", {"snapshot": int(of), "number": int(chunk), "of": str(kind)}) if (
                    of == number and chunk > self._chunk
                ):
                    self._chunk = chunk
                    self._take_chunk(kind, joined)
                case ("end", {"snapshot": int(of)} as end) if of == number and not self._open:
                    self._end = end
                case _:
                    self.add_problem("damaged, the checksum does not match")
        self._line += len(self._open) + 1
        self._byte += len(joined) + len(line) + 1
        self._open = []

    def _take_chunk(self, kind: str, joined: bytes) -> None:
        try:
            if kind == "rows":
                self._catalogue.load(_row_ids(self._open, joined), self._open)
            elif kind == "writes":
                self._contents.writes.append(_entries(self._open))
                self._contents.write_count += len(self._open)
            else:
                name, read = _ENTRIES[kind]
                entries = getattr(self._catalogue, name)
                for line in self._open:
                    value = orjson.loads(line)
                    entries[value["productId"]] = read(value["entry"])
        except (KeyError, TypeError, ValueError) as problem:
            self.add_problem(
                f"the checksum is right, but what is there is not readable: {problem!r}"
            )

    def _is_whole(self, summary: dict[str, Any]) -> bool:
        """Whether all of the catalogue was read, by the counts of the header."""
        return len(self._catalogue) == summary["rows"] and all(
            len(getattr(self._catalogue, name)) == summary[kind]
            for kind, (name, _) in _ENTRIES.items()
        )

    def _finish_catalogue(self, summary: dict[str, Any]) -> Catalogue:
        catalogue = self._catalogue
        catalogue.position = Position.from_json(summary["position"])
        catalogue.in_sync_at = summary["inStepAt"]
        catalogue.follow_up_reason = summary.get("flaw", "")
        if summary.get("unfollowedUntil"):  # of an earlier version
            catalogue.follow_up_reason = UNFOLLOWED
        catalogue.sequence = summary["sequence"]
        catalogue.index()
        return catalogue


def _entries(lines: list[bytes]) -> bytes:
    """Return the entries of the key table in the lines. They are parsed when the table loads them:
    half a million objects would take more memory than the table does."""
    if not all(map(bytes.startswith, lines, repeat(_WRITE_START))):
        raise ValueError("a line is no entry of the key table")
    return b"\n".join([line[len(_WRITE_START) : -1] for line in lines])


def _row_ids(rows: list[bytes], joined: bytes) -> list[str]:
    """Return the ids of the rows. `joined`: the rows, each with its newline.

    Fast path: if every row begins with its id and no byte is escaped, split instead of parsing,
    which takes a quarter of the time.
    """
    behind_first = joined.count(b"\n" + _ROW_START)
    if b"\\" in joined or not joined.startswith(_ROW_START) or behind_first != len(rows) - 1:
        return [_row_id(row) for row in rows]
    return b"\n".join([row.split(b'"', 4)[3] for row in rows]).decode().split("\n")


def _row_id(row: bytes) -> str:
    product_id = orjson.loads(row)["productId"]
    if not isinstance(product_id, str):
        raise TypeError(f"productId is {product_id!r}")
    return product_id
