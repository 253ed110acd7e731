"""A journal: what came after a snapshot, one line of JSON for each record.

    {"crc":"…","header":{"file":"journal","format":1,"number":7,"written":"…"}}
    {"crc":"…","record":{"journal":7,"number":1,"change":{…},"write":{…}}}

A record holds a `change` of the catalogue, a `write`, which is an entry of the key table, or both.
Records name their journal and are numbered, so that one that is missing, repeated or left over
from another file shows. A journal that goes on from another one, with no snapshot between them,
says so in its first record: `{"after":{"journal":6,"records":57}}`; then a journal that lost its
end shows too.

Knows: this form, how far a damaged journal can be trusted, and what behind that checks out.
Refuses to know: what a change or a write means, and which journals belong together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from store_cache.model.change import Change, encode_change
from store_cache.storage.directory import Directory, File
from store_cache.storage.framing import frame, frame_header, read_header, read_lines, unframe


def journal_name(number: int) -> str:
    return f"journal-{number}.jsonl"


# -- writing -------------------------------------------------------------------------------


def encode_entry(change: Change | None, write: bytes | None) -> bytes:
    """What a record says, without the braces: its number is known only when it is written."""
    parts = []
    if change is not None:
        parts.append(b'"change":' + encode_change(change))
    if write is not None:
        parts.append(b'"write":' + write)
    return b",".join(parts)


def encode_link(journal: Journal) -> bytes:
    """The first entry of a journal that goes on from `journal`, which has ended."""
    return b'"after":{"journal":%d,"records":%d}' % (journal.number, journal.records)


class Journal:
    """A journal that is being written. Made by `create`."""

    def __init__(self, file: File, number: int, size: int) -> None:
        self.number = number
        self.records = 0
        self.size = size
        self._file = file

    @classmethod
    async def create(cls, folder: Directory, number: int, *, written: str) -> Journal:
        """A new journal whose bytes are durable; its entry in the folder is not yet."""
        header = frame_header("journal", number, {"written": written})
        file = await folder.create(journal_name(number))
        try:
            await file.write_durably(header)
        except BaseException:
            await file.close()
            raise
        return cls(file, number, len(header))

    async def write(self, entries: Sequence[bytes]) -> None:
        """Write entries, in order, by one append and one sync: durable on return. After a failure
        the file's end is unknown, and it must not be written to again."""
        data = b"".join(
            frame("record", b'{"journal":%d,"number":%d,%s}' % (self.number, number, entry))
            for number, entry in enumerate(entries, self.records + 1)
        )
        await self._file.write_durably(data)
        self.records += len(entries)
        self.size += len(data)

    async def close(self) -> None:
        await self._file.close()


# -- reading -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A record that checks out. `is_certain`: so does everything before it."""

    value: dict[str, Any]
    is_certain: bool


class JournalReader:
    """Reads one journal, however damaged; trouble ends up in the attributes, nothing is raised.

    `records` counts those that follow each other from the first on without fault, `strays` those
    that check out behind a fault. `problem` says where the first fault is, and what. `is_damaged`:
    the fault is not just an end that was cut off.
    """

    def __init__(self, folder: Directory, number: int) -> None:
        self.number = number
        self.records = 0
        self.strays = 0
        self.problem: str | None = None
        self.is_damaged = False
        self._folder = folder
        self._number = 0  # of the latest record
        self._line = 0
        self._byte = 0

    @property
    def name(self) -> str:
        return journal_name(self.number)

    async def batches(self) -> AsyncIterator[list[Record]]:
        try:
            async for lines in read_lines(self._folder, self.name):
                yield [record for line in lines if (record := self._take(line)) is not None]
        except OSError as problem:
            self.is_damaged = True
            self._note(f"it cannot be read on: {problem}")
        if self._line == 0:
            self._note("it is empty")

    def _take(self, line: bytes) -> Record | None:
        self._line += 1
        record = self._read(line)
        self._byte += len(line) + 1
        return record

    def _read(self, line: bytes) -> Record | None:
        if self._line == 1:
            if read_header(line, file="journal", number=self.number) is None:
                self._note("the header is damaged")
            return None
        match unframe(line):
            case ("record", {"journal": self.number, "number": int(number)} as value):
                return self._place(number, value)
            case None:
                self._note("damaged, the checksum does not match")
            case _:
                self.is_damaged = True
                self._note("it checks out, but is no record of this journal")
        return None

    def _place(self, number: int, value: dict[str, Any]) -> Record | None:
        """What is older than a record before it is left out: the later entry of a key counts."""
        if number != self._number + 1:
            self._note(f"record {number} stands where record {self._number + 1} belongs")
            self.is_damaged = True
        if number <= self._number:
            return None
        self._number = number
        if self.problem is None:
            self.records += 1
        else:
            self.strays += 1
            self.is_damaged = True
        return Record(value, is_certain=self.problem is None)

    def _note(self, problem: str) -> None:
        if self.problem is None:
            self.problem = f"line {max(self._line, 1)} (byte {self._byte}): {problem}"
