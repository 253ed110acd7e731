"""Damaged files (D4): what is loaded is right, or a full sync is due; a load never fails.

The disk here holds what one run left: a snapshot, its journal, and a journal that continues that
one, as after a compaction that failed. `history` is every state that was ever right.
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
from tests.harness.faulty_directory import FaultyDirectory
from tests.unit.storage.small_store import (
    SmallStore,
    State,
    installed,
    keys_of,
    load,
    records_of,
    state,
)

SNAPSHOT, FIRST, LAST = "snapshot-2.jsonl", "journal-2.jsonl", "journal-3.jsonl"


@dataclass(frozen=True)
class Run:
    files: dict[str, bytes]
    history: list[State | None]
    final: State | None
    keys: list[str]


async def _run() -> Run:
    folder = FaultyDirectory()
    store = SmallStore(folder)
    await store.start()
    await store.record("k0")
    await store.record("k1")
    await store.install({"A": 10, "a": 20, "B/1": 30, 'q"\\': 50}, offset=7)
    await store.sell("A", 9, key="k2")
    await store.sell("B/1", None)
    await store.record("k3")
    folder.trace.clear()
    folder.failures = {8: errno.ENOSPC}  # the snapshot of the compaction; its journal goes on
    with pytest.raises(OSError, match="No space"):
        await store.compact()
    await store.sell("Z", 5, key="k4")
    await store.sell("A", 8)
    await store.record("k5")
    keys = [f"k{number}" for number in range(6)]
    return Run(folder.contents(), [None, *store.states[2:]], state(store.held), keys)


@cache
def run() -> Run:
    """Made once: every test damages a copy."""
    return asyncio.run(_run())


@pytest.fixture(scope="module", autouse=True)
def _made_before_any_loop_runs() -> None:
    run()


def lines(name: str) -> list[bytes]:
    return run().files[name].splitlines(keepends=True)


async def load_with(changed: dict[str, bytes]) -> Loaded:
    """What a start finds in the run's files, with these instead or besides."""
    return await load(FaultyDirectory(run().files | changed))


def check(loaded: Loaded, *, about: object) -> None:
    """Right, or with findings; and in no case a state that never was, or keys out of order."""
    whole = run()
    found, keys = state(loaded.catalogue), keys_of(loaded)
    right = found == whole.final and keys == whole.keys

    assert found in whole.history, about
    assert [key for key in whole.keys if key in keys] == keys, about
    assert right or loaded.findings, about
    if not right and not loaded.damaged:
        assert found is not None, about
        assert all("never acknowledged" in finding for finding in loaded.findings), about


async def started() -> tuple[SmallStore, FaultyDirectory]:
    """The next process, which has begun new files."""
    folder = FaultyDirectory(run().files)
    store = SmallStore(folder)
    await store.start()
    return store, folder


async def test_the_whole_files_load_to_the_last_state() -> None:
    """A snapshot and two journals in a row, as a compaction that failed leaves them."""
    loaded = await load_with({})

    assert sorted(run().files) == [FIRST, LAST, SNAPSHOT]
    assert state(loaded.catalogue) == run().final
    assert keys_of(loaded) == run().keys
    assert (loaded.findings, loaded.damaged) == ((), False)


@pytest.mark.parametrize("name", [SNAPSHOT, FIRST, LAST])
@pytest.mark.parametrize("bit", [0, 5])
async def test_any_byte_with_a_flipped_bit_is_noticed(name: str, bit: int) -> None:
    """Each byte of each file in turn, newlines and checksums included."""
    whole = run().files[name]
    for place in range(len(whole)):
        flipped = bytes([whole[place] ^ 1 << bit])
        loaded = await load_with({name: whole[:place] + flipped + whole[place + 1 :]})
        check(loaded, about=(name, place))

        assert loaded.findings, (name, place)
        assert loaded.damaged or (name == LAST and place >= whole[:-1].rindex(b"\n")), place


@pytest.mark.parametrize("name", [SNAPSHOT, FIRST, LAST])
async def test_a_file_cut_off_at_any_byte_is_right_or_noticed(name: str) -> None:
    """Within a record and between two. Only the end of the last journal may be missing without
    damage, because it looks like a record that was never written."""
    whole = run().files[name]
    for length in range(len(whole)):
        loaded = await load_with({name: whole[:length]})
        keys = keys_of(loaded)

        assert state(loaded.catalogue) in run().history, length
        assert keys == [key for key in run().keys if key in keys], length
        if name != LAST and length < len(whole) - 1:
            assert loaded.damaged, length


@pytest.mark.parametrize("name", [SNAPSHOT, FIRST, LAST])
async def test_a_line_that_is_missing_repeated_or_moved_is_noticed(name: str) -> None:
    """Each line is intact by itself; numbers and counts show that they do not fit."""
    whole = lines(name)
    for place in range(len(whole) - (name == LAST)):
        without = whole[:place] + whole[place + 1 :]
        twice = whole[: place + 1] + whole[place:]
        swapped = [*without[: place + 1], whole[place], *without[place + 1 :]]
        for changed in (without, twice, swapped):
            if changed != whole:
                check(await load_with({name: b"".join(changed)}), about=(name, place))


async def test_the_finding_names_the_record_that_is_missing() -> None:
    header, first, _, third, *_ = lines(LAST)
    loaded = await load_with({LAST: header + first + third})

    assert "record 3 stands where record 2 belongs" in loaded.findings[0]


async def test_zeros_garbage_and_foreign_text_are_noticed() -> None:
    """What a disk or a person may leave in place of a file, in whole or from the middle on."""
    for name, whole in run().files.items():
        for junk in (b"", b"\0" * 500, b"\n" * 9, b"[1,2]\n", b"{}\n", b'{"crc":"00000000"}\n'):
            for kept in (0, len(whole) // 2):
                loaded = await load_with({name: whole[:kept] + junk})

                assert state(loaded.catalogue) in run().history, (name, junk, kept)
                assert loaded.findings, (name, junk, kept)


@pytest.mark.parametrize("missing", [[SNAPSHOT], [FIRST], [LAST], [FIRST, LAST]])
async def test_a_missing_file_is_noticed(missing: list[str]) -> None:
    """Without the last journal, the state before it is right, and there is no sign that there was
    one. The journal of a snapshot is created before the snapshot has its name."""
    files = {name: data for name, data in run().files.items() if name not in missing}
    loaded = await load(FaultyDirectory(files))

    assert state(loaded.catalogue) in run().history
    assert loaded.damaged is (missing != [LAST])
    if missing == [FIRST, LAST]:
        assert f"{FIRST} belongs to it and is missing" in loaded.findings[0]


async def test_a_chunk_of_another_snapshot_is_noticed() -> None:
    """A disk that returns an old block: it is intact, with yesterday's stock."""
    old = installed({"A": 99, "a": 99, "B/1": 99, 'q"\\': 99}, offset=7)
    rows = list(encode_snapshot(1, about={}, view=old.begin_view(), writes=[]))[1]
    whole = run().files[SNAPSHOT]
    begin = whole.index(b"\n") + 1
    end = whole.index(b"\n", whole.index(b'"of":"rows"')) + 1
    loaded = await load_with({SNAPSHOT: whole[:begin] + rows + whole[end:]})

    assert loaded.catalogue is None
    assert loaded.damaged


async def test_a_chunk_of_keys_in_place_of_another_is_noticed() -> None:
    """As many keys as there should be, but half of them twice."""
    writes = [orjson.dumps({"key": f"k{n}"}) for n in range(2 * CHUNK_LINES)]
    header, first, _, end = encode_snapshot(1, about={}, view=None, writes=writes)
    files = {"snapshot-1.jsonl": header + first + first + end, FIRST: lines(FIRST)[0]}
    loaded = await load(FaultyDirectory(files))

    assert loaded.damaged
    assert len(keys_of(loaded)) == CHUNK_LINES


async def test_leftovers_beside_a_whole_snapshot_do_not_matter() -> None:
    """Killed before the old files were removed, whatever state those are in by now."""
    _, folder = await started()
    leftovers = {name: data[:-20] for name, data in run().files.items()}
    loaded = await load(FaultyDirectory(leftovers | folder.contents()))

    assert (loaded.findings, loaded.damaged) == ((), False)
    assert state(loaded.catalogue) == run().final
    assert keys_of(loaded) == run().keys


async def test_a_file_under_another_name_is_noticed() -> None:
    """Files name themselves, so a file that is put back under a wrong name is not used."""
    for name, other in ((SNAPSHOT, FIRST), (FIRST, LAST), (LAST, FIRST)):
        loaded = await load_with({name: run().files[other]})
        check(loaded, about=(name, other))

        assert loaded.damaged


async def test_a_torn_end_is_cut_off_and_no_full_sync_follows() -> None:
    """A record that the power cut short was never acknowledged; the feed fills it in."""
    torn = run().files[LAST][:-9]
    loaded = await load_with({LAST: torn})
    line, byte = torn.count(b"\n") + 1, torn.rindex(b"\n") + 1

    assert not loaded.damaged
    finding = (
        f"{LAST}: line {line} (byte {byte}): damaged, the checksum does not match. What is from "
        "there on was never acknowledged and is cut off; the feed fills it in"
    )
    assert loaded.findings == (finding,)


async def test_a_torn_end_with_a_journal_behind_it_is_damage() -> None:
    """It only looked like the end: what is missing was acknowledged, and nothing else says so."""
    loaded = await load_with({FIRST: run().files[FIRST][:-9]})

    assert loaded.damaged
    assert [FIRST, LAST] == [finding.partition(":")[0] for finding in loaded.findings]
    assert f"kept as {FIRST}.damaged-1" in loaded.findings[0]


async def test_damage_within_a_journal_keeps_what_is_before_it_and_the_keys_after_it() -> None:
    """The catalogue is the state before the fault, right though older; entries of the key table
    count wherever they are intact. The finding says which file, where, and what follows."""
    whole = lines(LAST)
    damaged = b"".join([*whole[:2], whole[2].replace(b"sold", b"SOLD"), *whole[3:]])
    loaded = await load_with({LAST: damaged})

    assert loaded.damaged
    assert state(loaded.catalogue) in run().history
    assert keys_of(loaded) == ["k0", "k1", "k2", "k3", "k5"]
    finding = (
        f"{LAST}: line 3 (byte {len(whole[0]) + len(whole[1])}): damaged, the checksum does not "
        "match. 1 records before it are used; of 2 behind it only the entries of the key table "
        f"are. The file is kept as {LAST}.damaged-1; a full sync follows"
    )
    assert loaded.findings == (finding,)


async def test_a_damaged_row_costs_the_catalogue_but_no_key() -> None:
    """A catalogue is used whole or not at all; keys are taken from every intact chunk."""
    damaged = run().files[SNAPSHOT].replace(b'"available":20', b'"available":21')
    loaded = await load_with({SNAPSHOT: damaged})

    assert loaded.catalogue is None
    assert loaded.damaged
    assert keys_of(loaded) == run().keys
    assert loaded.findings[0].startswith(f"{SNAPSHOT}: lines 2 to 6 (from byte ")
    assert f"kept as {SNAPSHOT}.damaged-1; a full sync follows" in loaded.findings[0]


async def test_damaged_keys_in_a_snapshot_do_not_cost_the_catalogue() -> None:
    """The rows are intact: shoppers see them while the full sync runs."""
    damaged = run().files[SNAPSHOT].replace(b'"key":"k1"', b'"key":"K1"')
    loaded = await load_with({SNAPSHOT: damaged})

    assert loaded.damaged
    assert state(loaded.catalogue) == run().final
    assert keys_of(loaded) == ["k2", "k3", "k4", "k5"]


async def test_a_file_that_cannot_be_read_is_damage() -> None:
    """[D5] A failing disk at the start: the rest is used, the start does not fail."""
    for failing in range(2, 8):
        folder = FaultyDirectory(run().files)
        folder.failures = {failing: errno.EIO}
        loaded = await load(folder)

        assert state(loaded.catalogue) in run().history
        if loaded.findings:
            assert loaded.damaged
            assert "cannot be read on" in loaded.findings[0]


async def test_damaged_files_stay_in_place_until_new_ones_hold_what_they_held() -> None:
    """[D2] If they were moved at once and the start was killed before it wrote new files, the next
    start would lose their intact part."""
    whole = lines(LAST)
    damaged = b"".join([*whole[:3], b"x" + whole[3], *whole[4:]])
    first = FaultyDirectory(run().files | {LAST: damaged})
    loaded = await load(first)
    again = await load(first.after_kill())
    folder = first.after_kill()
    store = SmallStore(folder)
    await store.start()

    assert state(loaded.catalogue) == state(again.catalogue) == state(store.catalogue)
    assert sorted(folder.entries) == [f"{LAST}.damaged-1", "journal-4.jsonl", "snapshot-4.jsonl"]
    assert folder.contents()[f"{LAST}.damaged-1"] == damaged


async def test_an_older_snapshot_is_used_if_the_newer_one_is_damaged() -> None:
    """Killed between the new snapshot and the removal of the old files, and then damaged: the old
    ones and their journals in a row are a right state."""
    _, folder = await started()
    newer = {"journal-4.jsonl": folder.contents()["journal-4.jsonl"]}
    loaded = await load_with(newer | {"snapshot-4.jsonl": b"garbage\n"})

    assert loaded.damaged
    assert state(loaded.catalogue) == run().final


async def test_the_keys_of_a_damaged_snapshot_replace_those_of_older_files() -> None:
    """The later entry of a key is its outcome."""
    store, folder = await started()
    await store.finish("k0")
    await store.install({"A": 1}, offset=90)
    newer = {name: folder.contents()[name] for name in ("snapshot-5.jsonl", "journal-5.jsonl")}
    damaged = newer["snapshot-5.jsonl"].replace(b'"available":1', b'"available":2')
    loaded = await load_with(newer | {"snapshot-5.jsonl": damaged})

    assert loaded.damaged
    assert ["record", "finish"] == [
        record["of"] for record in records_of(loaded) if record["key"] == "k0"
    ]


async def test_a_journal_of_another_catalogue_is_not_applied_to_an_older_snapshot() -> None:
    """The journal after a full sync continues the new snapshot. Applied to the old one, rows that
    the full sync corrected would stay wrong."""
    store, folder = await started()
    await store.install({"A": 1, "N": 2}, offset=90)
    await store.sell("N", 1, key="k6")
    loaded = await load_with(folder.contents() | {"snapshot-5.jsonl": b"garbage\n"})

    assert loaded.damaged
    assert state(loaded.catalogue) == run().final
    assert "k6" in keys_of(loaded)


async def test_an_intact_record_that_holds_no_change_is_damage() -> None:
    """A faulty program wrote it, not a faulty disk. The start does not fail, and what comes after
    it, in this journal and in the next, is not used."""
    record = orjson.dumps({"journal": 2, "number": 3, "change": {"cause": "odd"}})
    loaded = await load_with({FIRST: b"".join([*lines(FIRST)[:3], frame("record", record)])})

    assert loaded.damaged
    assert state(loaded.catalogue) in run().history
    assert "record 3 holds no change" in loaded.findings[0]
    assert LAST in loaded.findings[1]
