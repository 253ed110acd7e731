"""What a start finds in the folder, and how much of it is certainly right (D4, D6, D7).

The base is the highest snapshot whose catalogue is whole. Journals are laid over it in order, from
its own number on, as long as each goes on exactly where the one before ended. The first doubt ends
that: what is loaded then is an older state, but a right one. Entries of the key table are absolute
and taken from everything that checks out.

A fault at the very end of the last journal, with nothing good behind it, is a record that was
being written when the power went, and was never acknowledged: it is cut off. Any other fault is
damage: the file is to be put aside, and a full sync is due.

Knows: these rules. Reads only, so that a start on a read-only disk, or one that is killed, changes
nothing: files are put aside by the archive, once what was read from them is safe in new ones.
Refuses to know: how files are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import decode_change
from store_cache.storage.directory import Directory
from store_cache.storage.framing import check_format
from store_cache.storage.journal import JournalReader, Record, journal_name
from store_cache.storage.retention import LIVE, kept_aside
from store_cache.storage.snapshot import SnapshotContents, read_snapshot

_NUMBERED = re.compile(r"(?:snapshot|journal)-(\d+)\.jsonl.*")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was on disk. `catalogue`: None where none was placed, or none is certainly whole.
    `writes`: entries of the key table, the later one of a key counts. `findings`: what was cut
    off, lost or put aside, for people. `damaged`: a full sync is due."""

    catalogue: Catalogue | None
    writes: list[dict[str, Any]]
    findings: tuple[str, ...]
    damaged: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """`highest`: the highest number in use. `aside`: damaged files and the names to keep them
    under."""

    loaded: Loaded
    highest: int
    aside: dict[str, str]


async def recover(folder: Directory) -> Recovered:
    """Read the folder. Raises NewerFormat, and OSError where the folder cannot be listed;
    damaged and unreadable files are findings."""
    names = await folder.names()
    for name in names:
        if LIVE.fullmatch(name):
            await _check_format(folder, name)
    recovery = _Recovery(folder, names)
    await recovery.read_snapshots(_numbers(names, "snapshot"))
    await recovery.read_journals(_numbers(names, "journal"))
    highest = max((int(found[1]) for name in names if (found := _NUMBERED.match(name))), default=0)
    return Recovered(recovery.loaded(), highest, recovery.aside)


async def _check_format(folder: Directory, name: str) -> None:
    try:
        await check_format(folder, name)
    except OSError:
        # Reading the whole file meets the same error and reports it.
        return


def _numbers(names: list[str], kind: str) -> list[int]:
    found = (LIVE.fullmatch(name) for name in names)
    return sorted(int(match[2]) for match in found if match and match[1] == kind)


@dataclass(slots=True)
class _Chain:
    """How far journals have been laid over the base: the latest of them, and its records."""

    journal: int
    records: int = 0

    def admits(self, journal: int, first: dict[str, Any]) -> bool:
        """Whether a journal with this first record goes on exactly where the chain ends."""
        if journal == self.journal:
            return True
        return first.get("after") == {"journal": self.journal, "records": self.records}


class _Recovery:
    def __init__(self, folder: Directory, names: list[str]) -> None:
        self.aside: dict[str, str] = {}
        self._folder = folder
        self._kept = max(kept_aside(names), default=0)
        self._snapshots: list[SnapshotContents] = []  # those read, lowest first
        self._base: SnapshotContents | None = None
        self._chain = _Chain(journal=0)  # which no journal is: without a base none goes on
        self._torn: list[JournalReader] = []  # nothing good was seen behind their faults so far
        self._writes: list[dict[str, Any]] = []
        self._findings: list[str] = []
        self._is_damaged = False

    def loaded(self) -> Loaded:
        catalogue = None if self._base is None else self._base.catalogue
        return Loaded(catalogue, self._writes, tuple(self._findings), self._is_damaged)

    # -- snapshots -------------------------------------------------------------------------

    async def read_snapshots(self, numbers: list[int]) -> None:
        """Read from the highest down to one without any fault."""
        for number in reversed(numbers):
            contents = await read_snapshot(self._folder, number)
            self._snapshots.insert(0, contents)
            if self._base is None and contents.is_usable:
                self._base = contents
                self._chain = _Chain(journal=number)
            if not contents.problems:
                break
            self._report_snapshot(contents)

    def _report_snapshot(self, contents: SnapshotContents) -> None:
        use = "is whole and used" if contents.is_usable else "is not used"
        self._report(
            contents.name,
            f"{'; '.join(contents.problems)}. The catalogue in it {use}, "
            f"{len(contents.writes)} entries of the key table were saved",
        )

    # -- journals --------------------------------------------------------------------------

    async def read_journals(self, numbers: list[int]) -> None:
        floor = self._floor()
        for number in numbers:
            if number >= floor:
                self._take_writes_up_to(number)
                await self._read_journal(number)
        self._take_writes_up_to(None)
        self._report_missing(numbers)
        for reader in self._torn:
            self._findings.append(
                f"{reader.name}: {reader.problem}. What is from there on was never acknowledged "
                "and is cut off; the feed fills it in"
            )

    def _floor(self) -> int:
        """What lies below a snapshot without fault is left over, and in it."""
        whole = [contents.number for contents in self._snapshots if not contents.problems]
        return max(whole, default=0)

    def _take_writes_up_to(self, number: int | None) -> None:
        """Entries of snapshots go before those of the journals that follow them."""
        while self._snapshots and (number is None or self._snapshots[0].number <= number):
            self._writes += self._snapshots.pop(0).writes

    async def _read_journal(self, number: int) -> None:
        reader = JournalReader(self._folder, number)
        journal = _JournalOnBase(reader, self._base, self._chain)
        async for records in reader.batches():
            for record in records:
                self._take_write(record)
                journal.take(record)
        if self._base is None or number >= self._base.number:
            self._judge(journal)

    def _take_write(self, record: Record) -> None:
        if isinstance(write := record.value.get("write"), dict):
            self._writes.append(write)

    def _judge(self, journal: _JournalOnBase) -> None:
        reader = journal.reader
        if reader.records or reader.strays:
            for torn in self._torn:  # it only looked like the end
                self._report_journal(torn)
            self._torn = []
        if journal.problem is not None:
            self._report(reader.name, journal.problem)
        elif reader.is_damaged:
            self._report_journal(reader)
        elif reader.problem is not None:
            self._torn.append(reader)

    def _report_journal(self, reader: JournalReader) -> None:
        self._report(
            reader.name,
            f"{reader.problem}. {reader.records} records before it are used; of {reader.strays} "
            "behind it only the entries of the key table are",
        )

    def _report_missing(self, numbers: list[int]) -> None:
        if self._base is not None and self._base.number not in numbers:
            name = journal_name(self._base.number)
            self._is_damaged = True
            self._findings.append(
                f"{self._base.name}: {name} belongs to it and is missing. The catalogue is used as "
                "it was without it; a full sync follows"
            )

    # -- findings --------------------------------------------------------------------------

    def _report(self, name: str, problem: str) -> None:
        self._is_damaged = True
        if name not in self.aside:
            self._kept += 1
            self.aside[name] = f"{name}.damaged-{self._kept}"
        self._findings.append(
            f"{name}: {problem}. The file is kept as {self.aside[name]}; a full sync follows"
        )


@dataclass(slots=True)
class _JournalOnBase:
    """One journal, laid over the base record by record as far as that is certainly right."""

    reader: JournalReader
    base: SnapshotContents | None
    chain: _Chain
    problem: str | None = None

    def take(self, record: Record) -> None:
        if self.base is not None and self.reader.number < self.base.number:
            return  # in the base already
        if record.value.get("number") == 1:
            self._begin(record)
        if record.is_certain and self.problem is None and self._apply(record.value):
            self.chain.records += 1

    def _begin(self, record: Record) -> None:
        if self.chain.admits(self.reader.number, record.value):
            self.chain.journal = self.reader.number
            self.chain.records = 0
        else:
            self.problem = (
                "what it goes on from is missing or damaged, so the changes in it are not used, "
                "only the entries of the key table are"
            )

    def _apply(self, value: dict[str, Any]) -> bool:
        """Make the record's change, unless the base holds it already: it was cut later than the
        journal began."""
        catalogue = None if self.base is None else self.base.catalogue
        if catalogue is None or "change" not in value:
            return True
        try:
            change = decode_change(value["change"])
        except (KeyError, TypeError, ValueError) as problem:
            self.problem = f"record {value['number']} holds no change: {problem!r}"
            return False
        if change.sequence > catalogue.sequence:
            catalogue.apply(change)
        return True
