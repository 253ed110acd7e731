"""A snapshot: the whole catalogue at one moment, and the key table, as lines of JSON.

    {"crc":"…","header":{"file":"snapshot","format":1,"number":7,"written":"…","catalogue":{
        "position":{…},"inStepAt":…,"sequence":12,"rows":4069,"marks":0,"ahead":1,…}}}
    {"productId":"PROD-001",…}                      up to 2,000 lines of one kind, closed by
    {"crc":"…","chunk":{"snapshot":7,"number":1,"of":"rows","lines":2000}}
    …
    {"crc":"…","end":{"snapshot":7,"chunks":4,"writes":120}}

Chunks name their snapshot and are numbered, so that one that is missing, repeated or left over
from another file shows. Kinds: `rows`, `marks`, `ahead`, `owed`, `incarnations`, `writes`.

Knows: this form, and how much of a damaged snapshot can still be trusted: the catalogue whole or
not at all, of the key table every chunk that checks out.
Refuses to know: when snapshots are written, and what follows from damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress, count, islice, repeat
from operator import methodcaller
from typing import Any

import orjson

from store_cache.catalogue.catalogue import Catalogue, PointInTimeView
from store_cache.model.change import Override, PendingRefetch, Tombstone
from store_cache.model.position import Position
from store_cache.storage.directory import Directory
from store_cache.storage.framing import (
    OPENING,
    frame,
    frame_header,
    read_header,
    read_lines,
    unframe,
)

CHUNK_LINES = 2000
"""Some 280 kB: a chunk holds the loop for less than a millisecond."""

_ROW_START = b'{"productId":"'
_ENTRIES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "marks": ("tombstones", Tombstone.from_json),
    "ahead": ("overrides", Override.from_json),
    "owed": ("pending_refetches", PendingRefetch.from_json),
    "lives": ("incarnations", float),
}
"""What the catalogue holds by product id beside its rows: the name in the file, the attribute of
the catalogue, and how an entry is read back."""


def snapshot_name(number: int) -> str:
    return f"snapshot-{number}.jsonl"


# -- writing -------------------------------------------------------------------------------


def encode_snapshot(
    number: int, *, written: str, cut: PointInTimeView | None, writes: Iterable[bytes]
) -> Iterator[bytes]:
    """The file's bytes in pieces of one chunk. `cut` and `writes` are read on as pieces are taken;
    `written` is the time, for people; each of `writes` is one JSON object."""
    yield frame_header("snapshot", number, {"written": written, "catalogue": _summary(cut)})
    chunks = 0
    records = 0
    for kind, lines in _sections(cut, writes):
        chunks += 1
        records += len(lines) if kind == "writes" else 0
        yield _chunk({"snapshot": number, "number": chunks, "of": kind}, lines)
    end = {"snapshot": number, "chunks": chunks, "writes": records}
    yield frame("end", orjson.dumps(end))


def _summary(cut: PointInTimeView | None) -> dict[str, Any] | None:
    if cut is None or cut.position is None:
        return None
    return {
        "position": cut.position.to_json(),
        "inStepAt": cut.in_sync_at,
        "unfollowedUntil": cut.unfollowed_until,
        "flaw": cut.follow_up_reason,
        "sequence": cut.sequence,
        "rows": cut.count,
    } | {kind: len(getattr(cut, name)) for kind, (name, _) in _ENTRIES.items()}


def _sections(
    cut: PointInTimeView | None, writes: Iterable[bytes]
) -> Iterator[tuple[str, list[bytes]]]:
    if cut is not None and cut.position is not None:
        while rows := cut.next_rows(CHUNK_LINES):
            yield "rows", rows
        for kind, (name, _) in _ENTRIES.items():
            for lines in _batches(_entry_lines(getattr(cut, name))):
                yield kind, lines
    for lines in _batches(b'{"write":' + write + b"}" for write in writes):
        yield "writes", lines


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


def _chunk(about: dict[str, Any], lines: list[bytes]) -> bytes:
    joined = b"\n".join((*lines, b""))
    return joined + frame("chunk", orjson.dumps(about | {"lines": len(lines)}), lines=joined)


# -- reading -------------------------------------------------------------------------------


@dataclass(slots=True)
class SnapshotContents:
    """What could be read. `is_usable`: the catalogue, or its absence, is certain. `problems` is
    empty where the whole file checks out; each says where and what."""

    number: int
    is_usable: bool = False
    catalogue: Catalogue | None = None
    writes: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return snapshot_name(self.number)


async def read_snapshot(folder: Directory, number: int) -> SnapshotContents:
    """Read a snapshot, however damaged; trouble is in the result, nothing is raised."""
    reader = _Reader(number)
    try:
        async for lines in read_lines(folder, snapshot_name(number)):
            reader.take(lines)
    except OSError as problem:
        reader.note(f"it cannot be read on: {problem}")
    return reader.finish()


class _Reader:
    """Takes a snapshot's lines as they come."""

    def __init__(self, number: int) -> None:
        self._contents = SnapshotContents(number)
        self._catalogue = Catalogue()
        self._header: dict[str, Any] | None = None
        self._chunk = 0
        self._end: dict[str, Any] | None = None
        self._open: list[bytes] = []  # lines whose chunk has not been closed yet
        self._line = 1  # where the open lines begin
        self._byte = 0

    def take(self, lines: list[bytes]) -> None:
        start = 0
        for place in compress(count(), map(bytes.startswith, lines, repeat(OPENING))):
            self._open += lines[start:place]
            self._close(lines[place])
            start = place + 1
        self._open += lines[start:]

    def note(self, problem: str) -> None:
        last = self._line + len(self._open)
        where = f"line {last}" if last == self._line else f"lines {self._line} to {last}"
        self._contents.problems.append(f"{where} (from byte {self._byte}): {problem}")

    def finish(self) -> SnapshotContents:
        contents = self._contents
        if self._open:
            self.note("the end is cut off")
        elif not contents.problems and not self._is_complete():
            self.note("a part before this is missing")
        if self._has_catalogue():
            contents.is_usable = True
            contents.catalogue = self._placed()
        return contents

    def _close(self, line: bytes) -> None:
        """Take the open lines, if `line` proves them."""
        joined = b"\n".join((*self._open, b""))
        if self._line == 1 and not self._open:
            self._take_header(line)
        else:
            self._take_framed(unframe(line, lines=joined), joined)
        self._line += len(self._open) + 1
        self._byte += len(joined) + len(line) + 1
        self._open = []

    def _take_header(self, line: bytes) -> None:
        self._header = read_header(line, file="snapshot", number=self._contents.number)
        if self._header is None:
            self.note("the header is damaged")

    def _take_framed(self, framed: tuple[str, Any] | None, joined: bytes) -> None:
        own = self._contents.number
        match framed:
            case ("chunk", {"snapshot": int(of), "number": int(number), "of": str(kind)}) if (
                of == own and number > self._chunk
            ):
                self._chunk = number
                self._take_chunk(kind, joined)
            case ("end", {"snapshot": int(of)} as end) if of == own and not self._open:
                self._end = end
            case _:
                self.note("damaged, the checksum does not match")

    def _take_chunk(self, kind: str, joined: bytes) -> None:
        try:
            if kind == "rows":
                self._catalogue.load(_row_ids(self._open, joined), self._open)
            elif kind == "writes":
                self._contents.writes += [orjson.loads(line)["write"] for line in self._open]
            else:
                self._take_entries(kind)
        except (KeyError, TypeError, ValueError) as problem:
            self.note(f"the checksum is right, but what is there is not readable: {problem!r}")

    def _take_entries(self, kind: str) -> None:
        name, read = _ENTRIES[kind]
        entries = getattr(self._catalogue, name)
        for line in self._open:
            value = orjson.loads(line)
            entries[value["productId"]] = read(value["entry"])

    def _is_complete(self) -> bool:
        counts = {"chunks": self._chunk, "writes": len(self._contents.writes)}
        return self._end == {"snapshot": self._contents.number} | counts

    def _has_catalogue(self) -> bool:
        """Whether all of the catalogue arrived, by the header's counts; or none was to."""
        if self._header is None:
            return False
        summary = self._header["catalogue"]
        if summary is None:
            return True
        if len(self._catalogue) != summary["rows"]:
            return False
        return all(
            len(getattr(self._catalogue, name)) == summary[kind]
            for kind, (name, _) in _ENTRIES.items()
        )

    def _placed(self) -> Catalogue | None:
        assert self._header is not None
        summary = self._header["catalogue"]
        if summary is None:
            return None
        self._catalogue.position = Position.from_json(summary["position"])
        self._catalogue.in_sync_at = summary["inStepAt"]
        self._catalogue.unfollowed_until = summary.get("unfollowedUntil", 0)
        self._catalogue.follow_up_reason = summary.get("flaw", "")
        self._catalogue.sequence = summary["sequence"]
        self._catalogue.index()
        return self._catalogue


def _row_ids(rows: list[bytes], joined: bytes) -> list[str]:
    """The ids by splitting, four times as fast as parsing, where every row begins with its id and
    nothing in it is escaped. `joined`: the rows, each with its newline."""
    behind_first = joined.count(b"\n" + _ROW_START)
    if b"\\" in joined or not joined.startswith(_ROW_START) or behind_first != len(rows) - 1:
        return [_row_id(row) for row in rows]
    return b"\n".join([row.split(b'"', 4)[3] for row in rows]).decode().split("\n")


def _row_id(row: bytes) -> str:
    product_id = orjson.loads(row)["productId"]
    if not isinstance(product_id, str):
        raise TypeError(f"productId is {product_id!r}")
    return product_id
