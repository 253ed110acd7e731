"""What a start reads from the directory, and how much of it is certainly right (D4, D6, D7).

The base is the highest snapshot whose catalogue is intact. The changes in the journals are applied
to it in order, from the journal of the same number on, as long as each journal continues exactly
where the one before it ended. The first doubt ends that, so the result may be older, but it is a
state that was right. Entries of the key table hold absolute values, so every intact one is taken.

A fault at the very end of the last journal, with nothing intact after it, is a record that was
being written when the power went. It was never acknowledged, so it is cut off. Any other fault is
damage: the file is to be quarantined, and a full sync is due.

Recovery only reads. A start on a read-only disk, or one that is killed, changes nothing; `files`
quarantines damaged files once everything that was read from them is durable in new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import decode_change
from store_cache.model.product import encode_exactly
from store_cache.storage.directory import Directory, DiskHangs
from store_cache.storage.framing import Owner, check_header
from store_cache.storage.journal import JournalReader
from store_cache.storage.names import (
    FileName,
    journal_name,
    parse_names,
    quarantined_name,
    snapshot_name,
)
from store_cache.storage.snapshot import SnapshotContents, read_snapshot


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was on disk.

    `catalogue`: None if none was installed, or none is certainly intact. `writes`: entries of the
    key table, one JSON object on each line, in parts; the later one of a key counts. `findings`:
    what was cut off, lost or quarantined, for people. `damaged`: a full sync is due. `highest`: the
    highest file number in use. `quarantine`: the names of damaged files, and the names under which
    they are to be kept. `keys_since`: when the key table began, in unix seconds; None if that is
    not known. `is_new`: there were no files.
    """

    catalogue: Catalogue | None
    writes: list[bytes]
    findings: tuple[str, ...]
    damaged: bool
    highest: int
    quarantine: dict[str, str]
    keys_since: float | None
    is_new: bool


async def recover(directory: Directory, owner: Owner) -> Loaded:
    """Read the directory. Damaged and unreadable files are findings, not errors.

    Raises NewerFormat, OtherStore, DiskHangs, and OSError if the directory cannot be listed.
    """
    files = await list_files(directory, owner)
    live = {name: file for name, file in files.items() if file.is_live}
    quarantined = max((file.quarantine for file in files.values()), default=0)
    recovery = _Recovery(directory, quarantined)
    await recovery.read_snapshots(_numbers(live, "snapshot"))
    await recovery.read_journals(_numbers(live, "journal"))
    return Loaded(
        catalogue=None if recovery.base is None else recovery.base.catalogue,
        writes=recovery.writes,
        findings=tuple(recovery.findings),
        damaged=recovery.is_damaged,
        highest=highest_number(files),
        quarantine=recovery.quarantine,
        keys_since=recovery.keys_since,
        is_new=not live,
    )


async def list_files(directory: Directory, owner: Owner) -> dict[str, FileName]:
    """Return the store's files by name.

    Raises NewerFormat or OtherStore if this store must not use them, and OSError.
    """
    files = parse_names(await directory.names())
    for name, file in files.items():
        if file.is_live:
            try:
                await check_header(directory, name, owner)
            except DiskHangs:
                raise
            except OSError:  # reading the whole file meets the same error and reports it
                continue
    return files


def highest_number(files: dict[str, FileName]) -> int:
    """Return the highest number in use, or 0."""
    return max((file.number for file in files.values()), default=0)


def _numbers(files: dict[str, FileName], kind: str) -> list[int]:
    return sorted(file.number for file in files.values() if file.kind == kind)


class _Recovery:
    def __init__(self, directory: Directory, quarantined: int) -> None:
        """`quarantined`: the number of the latest file in quarantine."""
        self.base: SnapshotContents | None = None
        self.writes: list[bytes] = []
        self.keys_since: float | None = None
        self.findings: list[str] = []
        self.is_damaged = False
        self.quarantine: dict[str, str] = {}
        self._directory = directory
        self._quarantined = quarantined
        self._snapshots: list[SnapshotContents] = []  # lowest first
        # How far changes have been applied: the latest journal, and its records.
        self._journal = 0
        self._records = 0
        self._torn: list[JournalReader] = []  # nothing intact has been seen after their faults

    # -- snapshots -------------------------------------------------------------------------

    async def read_snapshots(self, numbers: list[int]) -> None:
        """Read from the highest down to the first one without any fault."""
        for number in reversed(numbers):
            contents = await read_snapshot(self._directory, number)
            if self.keys_since is None:
                self.keys_since = contents.keys_since
            self._snapshots.insert(0, contents)
            if self.base is None and contents.is_usable:
                self.base = contents
                self._journal = number
            if not contents.problems:
                break
            use = "is whole and used" if contents.is_usable else "is not used"
            self._report(
                snapshot_name(number),
                f"{'; '.join(contents.problems)}. The catalogue in it {use}, "
                f"{contents.write_count} entries of the key table were saved",
            )

    # -- journals --------------------------------------------------------------------------

    async def read_journals(self, numbers: list[int]) -> None:
        """Read the journals in order, and take the key table entries of all files in order."""
        # What lies below a snapshot without fault is left over, and its content is in the snapshot.
        whole = [contents.number for contents in self._snapshots if not contents.problems]
        for number in numbers:
            if number >= max(whole, default=0):
                while self._snapshots and self._snapshots[0].number <= number:
                    self.writes += self._snapshots.pop(0).writes
                await self._read_journal(number)
        for contents in self._snapshots:
            self.writes += contents.writes
        if self.base is not None and self.base.number not in numbers:
            self.is_damaged = True
            self.findings.append(
                f"{snapshot_name(self.base.number)}: {journal_name(self.base.number)} belongs to "
                "it and is missing. The catalogue is used as it was without it; a full sync follows"
            )
        for reader in self._torn:
            self.findings.append(
                f"{reader.name}: {reader.problem}. What is from there on was never acknowledged "
                "and is cut off; the feed fills it in"
            )

    async def _read_journal(self, number: int) -> None:
        is_in_base = self.base is not None and number < self.base.number
        reader = JournalReader(self._directory, number)
        problem = ""
        async for records in reader.batches():
            values = (value for record in records for value in _writes_of(record.value))
            if writes := [encode_exactly(value) for value in values if isinstance(value, dict)]:
                self.writes.append(b"\n".join(writes))
            for record in records:
                if is_in_base:
                    continue
                if record.value["number"] == 1 and not self._start_journal(number, record.value):
                    problem = (
                        "what it goes on from is missing or damaged, so the changes in it are not "
                        "used, only the entries of the key table are"
                    )
                if record.is_certain and not problem:
                    problem = self._apply(record.value)
        if not is_in_base:
            self._judge(reader, problem)

    def _start_journal(self, number: int, first: dict[str, Any]) -> bool:
        """Whether a journal with this first record goes on exactly where the last one ended."""
        end = {"journal": self._journal, "records": self._records}
        if number != self._journal and first.get("after") != end:
            return False
        self._journal, self._records = number, 0
        return True

    def _apply(self, record: dict[str, Any]) -> str:
        """Apply the record's change unless the base has it: a view may be taken after its journal
        began. Return what is wrong with the record, or an empty text."""
        catalogue = None if self.base is None else self.base.catalogue
        if catalogue is not None and "change" in record:
            try:
                change = decode_change(record["change"])
            except (KeyError, TypeError, ValueError) as problem:
                return f"record {record['number']} holds no change: {problem!r}"
            if change.sequence > catalogue.sequence:
                catalogue.apply(change)
        self._records += 1
        return ""

    def _judge(self, reader: JournalReader, problem: str) -> None:
        """Report what is wrong with a journal that has been read."""
        if reader.records or reader.strays:
            for torn in self._torn:  # it only looked like the end
                self._report_journal(torn)
            self._torn = []
        if problem:
            self._report(reader.name, problem)
        elif reader.is_damaged:
            self._report_journal(reader)
        elif reader.problem:
            self._torn.append(reader)

    # -- findings --------------------------------------------------------------------------

    def _report_journal(self, reader: JournalReader) -> None:
        self._report(
            reader.name,
            f"{reader.problem}. {reader.records} records before it are used; of {reader.strays} "
            "behind it only the entries of the key table are",
        )

    def _report(self, name: str, problem: str) -> None:
        """Quarantine a file, and say so."""
        self.is_damaged = True
        if name not in self.quarantine:
            self._quarantined += 1
            self.quarantine[name] = quarantined_name(name, self._quarantined)
        self.findings.append(
            f"{name}: {problem}. The file is kept as {self.quarantine[name]}; a full sync follows"
        )


def _writes_of(record: dict[str, Any]) -> list[Any]:
    """Return the entries of the key table in a record."""
    write = record.get("write")
    return write if isinstance(write, list) else [write]
