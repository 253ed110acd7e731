"""A journal: the records that followed a snapshot, one line of JSON each.

    {"crc":"…","header":{"file":"journal","format":1,"number":7,"store":"…","written":"…"}}
    {"crc":"…","record":{"journal":7,"number":1,"change":{…},"write":{…}}}

A record holds a `change` of the catalogue, a `write` (an entry of the key table, or a list of
them), or both. It names its journal and is numbered, so that a missing, repeated or foreign record
is noticed. If a journal continues another one, with no snapshot between them, its first record
names the end of that one: `{"after":{"journal":6,"records":57}}`. So a journal that lost its end is
noticed, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from store_cache.model.change import Change, encode_change
from store_cache.storage.directory import Directory, DiskHangs, File
from store_cache.storage.framing import frame, frame_header, read_header, read_lines, unframe
from store_cache.storage.names import journal_name

# -- writing -------------------------------------------------------------------------------


class JournalRecord(NamedTuple):
    """What is recorded together. `key_entry`: an entry of the key table, or a list of them, as JSON
    on one line."""

    change: Change | None = None
    key_entry: bytes | None = None


def encode_payload(record: JournalRecord) -> bytes:
    """Return the content of a record without the braces; its number is added when it is written."""
    parts = []
    if record.change is not None:
        parts.append(b'"change":' + encode_change(record.change))
    if record.key_entry is not None:
        parts.append(b'"write":' + record.key_entry)
    return b",".join(parts)


class Journal:
    """A journal that is being written. `size` is its length in bytes."""

    def __init__(self, file: File, number: int, size: int) -> None:
        self.number = number
        self.records = 0
        self.size = size
        self._file = file

    @classmethod
    async def create(cls, directory: Directory, number: int, *, about: dict[str, str]) -> Journal:
        """Create a journal with a durable header. Its name needs a sync of the directory.

        `about`: what the header holds besides, for checks and for people.
        """
        header = frame_header("journal", number, about)
        file = await directory.create(journal_name(number))
        try:
            await file.write_durably(header)
        except BaseException:
            await file.close()
            raise
        return cls(file, number, len(header))

    async def write(self, payloads: Sequence[bytes]) -> None:
        """Write one record for each payload, durably, by one append and one sync.

        If this raises, the end of the file is unknown and nothing more may be written to it.
        """
        data = b"".join(
            frame("record", b'{"journal":%d,"number":%d,%s}' % (self.number, number, payload))
            for number, payload in enumerate(payloads, self.records + 1)
        )
        await self._file.write_durably(data)
        self.records += len(payloads)
        self.size += len(data)

    async def continue_from(self, old: Journal) -> None:
        """Write, as the first record, where the journal before this one ended."""
        await self.write([b'"after":{"journal":%d,"records":%d}' % (old.number, old.records)])

    async def close(self) -> None:
        await self._file.close()


# -- reading -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """A record whose checksum is right. `is_certain`: so is everything before it."""

    value: dict[str, Any]
    is_certain: bool


class JournalReader:
    """Reads one journal, however damaged. It raises nothing; the attributes describe faults.

    `records` counts the records before the first fault, `strays` the intact ones after it.
    `problem` says where the first fault is, and what. `is_damaged`: there is more to the fault
    than a missing end.
    """

    def __init__(self, directory: Directory, number: int) -> None:
        self.number = number
        self.name = journal_name(number)
        self.records = 0
        self.strays = 0
        self.problem = ""
        self.is_damaged = False
        self._directory = directory
        self._latest = 0  # number of the latest record
        self._line = 0
        self._byte = 0

    async def batches(self) -> AsyncIterator[list[Record]]:
        """Yield the intact records in order. Raises DiskHangs."""
        try:
            async for lines in read_lines(self._directory, self.name):
                batch = []
                for line in lines:
                    self._line += 1
                    if (record := self._read(line)) is not None:
                        batch.append(record)
                    self._byte += len(line) + 1
                yield batch
        except DiskHangs:  # nothing is wrong with the file
            raise
        except OSError as problem:
            self.is_damaged = True
            self._add_problem(f"it cannot be read on: {problem}")
        if self._line == 0:
            self._add_problem("it is empty")

    def _read(self, line: bytes) -> Record | None:
        if self._line == 1:
            if read_header(line, file="journal", number=self.number) is None:
                self._add_problem("the header is damaged")
            return None
        match unframe(line):
            case ("record", {"journal": self.number, "number": int(number)} as value):
                return self._check_number(number, value)
            case None:
                self._add_problem("damaged, the checksum does not match")
            case _:
                self.is_damaged = True
                self._add_problem("it checks out, but is no record of this journal")
        return None

    def _check_number(self, number: int, value: dict[str, Any]) -> Record | None:
        """Return the record, or None for a repeated one: the later entry of a key must win."""
        if number != self._latest + 1:
            self._add_problem(f"record {number} stands where record {self._latest + 1} belongs")
            self.is_damaged = True
        if number <= self._latest:
            return None
        self._latest = number
        is_certain = not self.problem
        if is_certain:
            self.records += 1
        else:
            self.strays += 1
            self.is_damaged = True
        return Record(value, is_certain)

    def _add_problem(self, problem: str) -> None:
        """Keep the first problem, with its place."""
        if not self.problem:
            self.problem = f"line {max(self._line, 1)} (byte {self._byte}): {problem}"
