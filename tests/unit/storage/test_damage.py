"""Damaged files (D4): what is loaded is right, or a full sync is due; never wrong, never a failure.

The disk here holds what one run left: a snapshot, its journal, and a journal after that one, as
when a fold was cut short. `history` is every state that was ever right.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass
from functools import cache

import orjson
import pytest

from store_cache.storage.files import Loaded
from store_cache.storage.framing import frame
from store_cache.storage.snapshot import CHUNK_LINES, encode_snapshot
from tests.harness.faulty_directory import FaultyFolder
from tests.unit.storage.small_store import SmallStore, State, installed, state

SNAPSHOT, FIRST, LAST = "snapshot-2.jsonl", "journal-2.jsonl", "journal-3.jsonl"


@dataclass(frozen=True)
class Run:
    files: dict[str, bytes]
    history: list[State | None]
    final: State | None
    keys: list[str]


async def _run() -> Run:
    folder = FaultyFolder()
    store = SmallStore(folder)
    await store.start()
    await store.note("k0")
    await store.note("k1")
    await store.install({"A": 10, "a": 20, "B/1": 30, 'q"\\': 50}, offset=7)
    await store.sell("A", 9, key="k2")
    await store.sell("B/1", None)
    await store.note("k3")
    folder.trace.clear()
    folder.failures = {8: errno.ENOSPC}  # the fold's snapshot; its journal goes on
    with pytest.raises(OSError, match="No space"):
        await store.compact()
    await store.sell("Z", 5, key="k4")
    await store.sell("A", 8)
    await store.note("k5")
    final = state(store.catalogue)
    keys = [f"k{number}" for number in range(6)]
    return Run(folder.contents(), [None, *store.states[2:]], final, keys)


@cache
def run() -> Run:
    """Made once: every test damages a copy."""
    return asyncio.run(_run())


async def load(files: dict[str, bytes]) -> Loaded:
    return await SmallStore(FaultyFolder(files)).files.load()


def check(loaded: Loaded, *, about: object) -> None:
    """Right, or damaged; and in no case a state that never was, or keys that nobody gave."""
    whole = run()
    found = state(loaded.catalogue)
    keys = [record["key"] for record in loaded.writes]
    right = found == whole.final and keys == whole.keys

    assert found in whole.history, about
    assert [key for key in whole.keys if key in keys] == keys, about
    assert right or loaded.findings, about
    if not right and not loaded.damaged:
        assert found is not None, about
        assert all("never acknowledged" in finding for finding in loaded.findings), about


def lines(name: str) -> list[bytes]:
    return run().files[name].splitlines(keepends=True)


@pytest.fixture(scope="module", autouse=True)
def _made_before_any_loop_runs() -> None:
    run()


async def test_the_whole_files_load_to_the_last_state() -> None:
    """A snapshot and two journals in a row, as a fold that was cut short leaves them."""
    loaded = await load(run().files)

    assert sorted(run().files) == [FIRST, LAST, SNAPSHOT]
    assert state(loaded.catalogue) == run().final
    assert [record["key"] for record in loaded.writes] == run().keys
    assert (loaded.findings, loaded.damaged) == ((), False)


@pytest.mark.parametrize("name", [SNAPSHOT, FIRST, LAST])
@pytest.mark.parametrize("bit", [0, 5])
async def test_any_byte_with_a_flipped_bit_is_noticed(name: str, bit: int) -> None:
    """Each byte of each file in turn, newlines and checksums included."""
    whole = run().files[name]
    for place in range(len(whole)):
        flipped = bytes([whole[place] ^ 1 << bit])
        damaged = whole[:place] + flipped + whole[place + 1 :]
        loaded = await load(run().files | {name: damaged})
        check(loaded, about=(name, place))

        assert loaded.findings, (name, place)
        assert loaded.damaged or (name == LAST and place >= whole[:-1].rindex(b"\n")), place


@pytest.mark.parametrize("name", [SNAPSHOT, FIRST, LAST])
async def test_a_file_cut_off_at_any_byte_is_right_or_noticed(name: str) -> None:
    """Truncated within a record and between two; only the end of the last journal may be missing
    without damage, since nobody can tell that from a record that was never written."""
    whole = run().files[name]
    for length in range(len(whole)):
        loaded = await load(run().files | {name: whole[:length]})
        found, keys = state(loaded.catalogue), [record["key"] for record in loaded.writes]

        assert found in run().history, length
        assert keys == [key for key in run().keys if key in keys], length
        if name != LAST and length < len(whole) - 1:
            assert loaded.damaged, length


@pytest.mark.parametrize("name", [SNAPSHOT, FIRST, LAST])
async def test_a_line_that_is_missing_repeated_or_moved_is_noticed(name: str) -> None:
    """Each line checks out by itself; their numbers and counts say that they do not fit."""
    whole = lines(name)
    for place in range(len(whole) - (name == LAST)):
        without = whole[:place] + whole[place + 1 :]
        twice = whole[: place + 1] + whole[place:]
        swapped = [*without[: place + 1], whole[place], *without[place + 1 :]]
        for changed in (without, twice, swapped):
            if changed != whole:
                loaded = await load(run().files | {name: b"".join(changed)})
                check(loaded, about=(name, place))


async def test_zeros_garbage_and_foreign_text_are_noticed() -> None:
    """What a disk or a person may leave in place of a file, in whole or from the middle on."""
    for name, whole in run().files.items():
        for junk in (b"", b"\0" * 500, b"\n" * 9, b"[1,2]\n", b"{}\n", b'{"crc":"00000000"}\n'):
            for kept in (0, len(whole) // 2):
                loaded = await load(run().files | {name: whole[:kept] + junk})
                check_prefix(loaded, about=(name, junk, kept))


def check_prefix(loaded: Loaded, *, about: object) -> None:
    assert state(loaded.catalogue) in run().history, about
    assert loaded.findings, about


@pytest.mark.parametrize("name", [SNAPSHOT, FIRST, LAST])
async def test_a_missing_file_is_noticed(name: str) -> None:
    """Somebody removed it. Without the last journal the state before it is right, and nobody can
    tell that there was one."""
    files = {other: data for other, data in run().files.items() if other != name}
    loaded = await load(files)

    assert state(loaded.catalogue) in run().history
    assert loaded.damaged is (name != LAST)


async def test_a_snapshot_whose_journals_are_all_missing_is_damage() -> None:
    """A journal is there before its snapshot is, so somebody or something took it away."""
    loaded = await load({SNAPSHOT: run().files[SNAPSHOT]})

    assert loaded.damaged
    assert state(loaded.catalogue) in run().history
    assert f"{FIRST} belongs to it and is missing" in loaded.findings[0]


async def test_a_chunk_of_another_snapshot_is_noticed() -> None:
    """A disk that gives an old block for a new one: it checks out, with yesterday's stock."""
    old = installed({"A": 99, "a": 99, "B/1": 99, 'q"\\': 99}, offset=7)
    pieces = encode_snapshot(1, written="", view=old.begin_view(), writes=[])
    rows = list(pieces)[1]
    whole = run().files[SNAPSHOT]
    end = whole.index(b"\n", whole.index(b'"of":"rows"')) + 1
    begin = whole.index(b"\n") + 1
    loaded = await load(run().files | {SNAPSHOT: whole[:begin] + rows + whole[end:]})

    assert loaded.catalogue is None
    assert loaded.damaged


async def test_a_chunk_of_keys_in_another_ones_place_is_noticed() -> None:
    """As many keys as there should be, but half of them twice."""
    writes = [orjson.dumps({"key": f"k{n}"}) for n in range(2 * CHUNK_LINES)]
    header, first, _, end = encode_snapshot(1, written="", view=None, writes=writes)
    journal = run().files[FIRST].splitlines(keepends=True)[0]
    loaded = await load({"snapshot-1.jsonl": header + first + first + end, FIRST: journal})

    assert loaded.damaged
    assert len(loaded.writes) == CHUNK_LINES


async def test_leftovers_beside_a_whole_snapshot_do_not_matter() -> None:
    """Killed before the old files were removed, whatever state those are in by now."""
    folder = FaultyFolder(run().files)
    store = SmallStore(folder)
    await store.start()
    await store.begin(store.catalogue)
    leftovers = {name: data[:-20] for name, data in run().files.items()}
    loaded = await load(leftovers | folder.contents())

    assert (loaded.findings, loaded.damaged) == ((), False)
    assert state(loaded.catalogue) == run().final
    assert [record["key"] for record in loaded.writes] == run().keys


async def test_a_file_under_another_ones_name_is_noticed() -> None:
    """Files name themselves, so a copy put back under a wrong name is no journal of this one."""
    for name, other in ((SNAPSHOT, FIRST), (FIRST, LAST), (LAST, FIRST)):
        loaded = await load(run().files | {name: run().files[other]})
        check(loaded, about=(name, other))

        assert loaded.damaged


async def test_a_torn_tail_is_cut_and_no_full_sync_follows() -> None:
    """A record that the power cut short was never acknowledged; the feed fills it in."""
    torn = run().files[LAST][:-9]
    loaded = await load(run().files | {LAST: torn})
    line, byte = torn.count(b"\n") + 1, torn.rindex(b"\n") + 1

    assert not loaded.damaged
    finding = (
        f"{LAST}: line {line} (byte {byte}): damaged, the checksum does not match. What is from "
        "there on was never acknowledged and is cut off; the feed fills it in"
    )
    assert loaded.findings == (finding,)


async def test_damage_within_a_journal_keeps_what_is_before_it_and_the_keys_behind_it() -> None:
    """The catalogue is the state before the fault, right though older; entries of the key table
    count wherever they check out. The finding says which file, where, and what follows."""
    whole = lines(LAST)
    damaged = b"".join([*whole[:2], whole[2].replace(b"sold", b"SOLD"), *whole[3:]])
    loaded = await load(run().files | {LAST: damaged})

    assert loaded.damaged
    assert state(loaded.catalogue) in run().history
    assert [record["key"] for record in loaded.writes] == ["k0", "k1", "k2", "k3", "k5"]
    finding = (
        f"{LAST}: line 3 (byte {len(whole[0]) + len(whole[1])}): damaged, the checksum does not "
        "match. 1 records before it are used; of 2 behind it only the entries of the key table "
        f"are. The file is kept as {LAST}.damaged-1; a full sync follows"
    )
    assert loaded.findings == (finding,)


async def test_a_damaged_row_costs_the_catalogue_but_no_key() -> None:
    """A catalogue is whole or it is none; keys are saved from every chunk that checks out."""
    damaged = run().files[SNAPSHOT].replace(b'"available":20', b'"available":21')
    loaded = await load(run().files | {SNAPSHOT: damaged})

    assert loaded.catalogue is None
    assert loaded.damaged
    assert [record["key"] for record in loaded.writes] == run().keys
    assert loaded.findings[0].startswith(f"{SNAPSHOT}: lines 2 to 6 (from byte ")
    assert f"kept as {SNAPSHOT}.damaged-1; a full sync follows" in loaded.findings[0]


async def test_damaged_keys_in_a_snapshot_do_not_cost_the_catalogue() -> None:
    """The rows check out: shoppers see them while the full sync runs."""
    damaged = run().files[SNAPSHOT].replace(b'"key":"k1"', b'"key":"K1"')
    loaded = await load(run().files | {SNAPSHOT: damaged})

    assert loaded.damaged
    assert state(loaded.catalogue) == run().final
    assert [record["key"] for record in loaded.writes] == ["k2", "k3", "k4", "k5"]


async def test_a_file_that_cannot_be_read_is_damage() -> None:
    """A failing disk at the start: the rest is used, the start does not fail (D5)."""
    for failing in range(2, 8):
        folder = FaultyFolder(run().files)
        folder.failures = {failing: errno.EIO}
        loaded = await SmallStore(folder).files.load()

        assert state(loaded.catalogue) in run().history
        if loaded.findings:
            assert loaded.damaged
            assert "cannot be read on" in loaded.findings[0]


async def test_damaged_files_stay_in_place_until_new_ones_hold_what_they_held() -> None:
    """Moved at once, their good part would be gone if the start was killed before it wrote new
    files: the next start would show an older world (D2)."""
    whole = lines(LAST)
    damaged = b"".join([*whole[:3], b"x" + whole[3], *whole[4:]])
    first = FaultyFolder(run().files | {LAST: damaged})
    loaded = await SmallStore(first).files.load()
    again = await SmallStore(first.after_kill()).files.load()
    folder = first.after_kill()
    store = SmallStore(folder)
    await store.start()

    assert state(loaded.catalogue) == state(again.catalogue) == state(store.catalogue)
    assert sorted(folder.entries) == [f"{LAST}.damaged-1", "journal-4.jsonl", "snapshot-4.jsonl"]
    assert folder.contents()[f"{LAST}.damaged-1"] == damaged


async def test_an_older_snapshot_is_used_where_the_newer_one_is_damaged() -> None:
    """Killed between the new snapshot and the removal of the old files, and then damaged: the old
    ones and their journals in a row are a right state."""
    folder = FaultyFolder(run().files)
    store = SmallStore(folder)
    await store.start()
    newer = {n: d for n, d in folder.contents().items() if n == "journal-4.jsonl"}
    loaded = await load(run().files | newer | {"snapshot-4.jsonl": b"garbage\n"})

    assert loaded.damaged
    assert state(loaded.catalogue) == run().final


async def test_a_journal_of_another_catalogue_is_not_laid_over_an_older_snapshot() -> None:
    """After a full sync was placed its journal goes on from the new snapshot; laid over the old
    one, rows that the full sync corrected would stay wrong."""
    folder = FaultyFolder(run().files)
    store = SmallStore(folder)
    await store.start()
    await store.install({"A": 1, "N": 2}, offset=90)
    await store.sell("N", 1, key="k6")
    newer = folder.contents()
    loaded = await load(run().files | newer | {"snapshot-5.jsonl": b"garbage\n"})

    assert loaded.damaged
    assert state(loaded.catalogue) == run().final
    assert "k6" in [record["key"] for record in loaded.writes]


async def test_a_record_that_checks_out_but_holds_no_change_is_damage() -> None:
    """Written by a faulty program, not by a faulty disk: no start fails by it, and what comes
    after it, in this journal and in the next, is not used."""
    whole = lines(FIRST)
    record = orjson.dumps({"journal": 2, "number": 3, "change": {"cause": "odd"}})
    damaged = b"".join([*whole[:3], frame("record", record)])
    loaded = await load(run().files | {FIRST: damaged})

    assert loaded.damaged
    assert state(loaded.catalogue) in run().history
    assert "record 3 holds no change" in loaded.findings[0]
    assert LAST in loaded.findings[1]
