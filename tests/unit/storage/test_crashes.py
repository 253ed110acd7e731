"""Crashes and failures at every single operation on the disk (D2, D3, D5, promise 7)."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from random import Random

import pytest

from tests.harness.faulty_directory import Crashed, FaultyDirectory
from tests.unit.storage.small_store import SmallStore, keys_of, load, run_script, state

SEEDS = range(3)


async def _operations() -> int:
    folder = FaultyDirectory()
    await run_script(SmallStore(folder))
    return len(folder.trace)


async def _crashed(
    before: int, *, idle_syncs: tuple[str, ...] = ()
) -> tuple[SmallStore, FaultyDirectory]:
    folder = FaultyDirectory()
    folder.crash_before = before
    folder.idle_syncs = idle_syncs
    store = SmallStore(folder)
    with pytest.raises(Crashed):
        await run_script(store)
    return store, folder


def _left(folder: FaultyDirectory, seed: int | None) -> FaultyDirectory:
    """What a kill leaves, or with a seed, what a power cut leaves."""
    return folder.after_kill() if seed is None else folder.after_power_cut(Random(seed))


async def _check(store: SmallStore, folder: FaultyDirectory) -> None:
    loaded = await load(folder)

    assert not loaded.damaged, loaded.findings
    store.check(loaded)


@pytest.mark.parametrize("seed", [None, *SEEDS])
async def test_nothing_acknowledged_is_lost_by_a_crash_before_any_operation(
    seed: int | None,
) -> None:
    """Killed, or out of power, before the k-th operation, for every k: what was acknowledged is
    there, the load does not fail, and nothing counts as damaged."""
    total = await _operations()
    assert total > 80
    for before in range(1, total + 1):
        store, folder = await _crashed(before)

        await _check(store, _left(folder, seed))


async def _crash_recoveries(store: SmallStore, folder: FaultyDirectory, seed: int | None) -> None:
    """Let the start after a crash die before each of its own operations, until it gets through."""
    for before in range(1, 100):
        left = _left(folder, seed)
        left.crash_before = before
        second = SmallStore(left)
        try:
            await second.start()
        except Crashed:
            await _check(store, left.after_kill())
            await _check(store, left.after_power_cut(Random(before)))
        else:
            return
    pytest.fail("the recovery never came to its end")


@pytest.mark.parametrize("seed", [None, 0])
async def test_nothing_acknowledged_is_lost_by_a_second_crash_during_recovery(
    seed: int | None,
) -> None:
    """The start after a crash may die before any of its own operations, both ways again."""
    seen: list[object] = []
    for before in range(1, await _operations() + 1):
        store, folder = await _crashed(before)
        left = _left(folder, seed).contents(), store.acknowledged_keys
        if left not in seen:
            seen.append(left)
            await _crash_recoveries(store, folder, seed)


@pytest.mark.parametrize("removed", ["journal", "snapshot", "folder"])
async def test_a_sync_that_is_left_out_is_caught(removed: str) -> None:
    """Without the sync of journals, of snapshots or of the directory, power cuts lose data: these
    tests can fail."""
    caught = 0
    for before in range(1, await _operations() + 1):
        store, folder = await _crashed(before, idle_syncs=(removed,))
        try:
            await _check(store, folder.after_power_cut(Random(before)))
        except AssertionError:
            caught += 1

    assert caught > 10


async def test_what_a_start_has_shown_survives_the_next_power_cut() -> None:
    """A start may read records from the page cache that never reached the disk. It writes them
    into new files before it shows them, so the next power cut cannot take them."""
    for before in range(1, await _operations() + 1):
        _, folder = await _crashed(before)
        left = folder.after_kill()
        loaded = await SmallStore(left).start()
        for seed in SEEDS:
            again = await load(left.after_power_cut(Random(seed)))

            assert state(loaded.catalogue) == state(again.catalogue)
            assert set(keys_of(loaded)) == set(keys_of(again))


async def _check_after_failure(folder: FaultyDirectory) -> None:
    """Run the script; if the disk fails, begin new files from memory, as the writer does."""
    store = SmallStore(folder)
    try:
        await run_script(store)
    except OSError:
        folder.room = None
        await store.begin(store.held)
        await store.record("after")
    for seed in SEEDS:
        await _check(store, folder.after_power_cut(Random(seed)))


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC])
async def test_one_failed_operation_loses_nothing_once_new_files_have_begun(fault: int) -> None:
    """Each operation fails once, with its data gone although the next sync succeeds; after
    `begin`, a power cut takes nothing that was acknowledged before or after."""
    for failing in range(2, await _operations() + 1):
        folder = FaultyDirectory()
        folder.failures = {failing: fault}
        await _check_after_failure(folder)


async def test_a_disk_that_fills_at_any_byte_loses_nothing() -> None:
    """The disk fills in the middle of a write, wherever that is; with room again, new files hold
    everything."""
    for room in range(0, 9000, 41):
        folder = FaultyDirectory()
        folder.room = room
        await _check_after_failure(folder)


class UnfairLoop(asyncio.SelectorEventLoop):
    """Runs tasks named `slow` only when nothing else can run, so that nothing may rely on the
    usual order of callbacks."""

    _ready: deque[asyncio.Handle]

    def _run_once(self) -> None:
        slow = [handle for handle in self._ready if _is_slow(handle)]
        if len(slow) < len(self._ready):
            for handle in slow:
                self._ready.remove(handle)
        else:
            slow = []
        super()._run_once()  # type: ignore[misc]
        self._ready.extend(slow)


def _is_slow(handle: asyncio.Handle) -> bool:
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return isinstance(task, asyncio.Task) and task.get_name() == "slow"


async def _resume_late(folder: FaultyDirectory, *, by_compaction: bool) -> SmallStore:
    """Replace the files while a caller whose record is in the old ones has not resumed yet."""
    store = SmallStore(folder)
    await store.start()
    await store.install({"A": 10}, offset=7)
    held = folder.hold("sync journal-2.jsonl")
    slow = asyncio.create_task(store.finish("late"), name="slow")
    await held.reached.wait()
    held.release.set()
    await (store.compact() if by_compaction else store.begin(store.catalogue))
    await slow
    return store


@pytest.mark.parametrize("by_compaction", [True, False])
def test_a_confirmed_caller_that_has_not_resumed_is_waited_for(*, by_compaction: bool) -> None:
    """What it enters into the key table only now must be in the new snapshot, because its record
    is in the old journal."""
    folder = FaultyDirectory()
    with asyncio.Runner(loop_factory=UnfairLoop) as runner:
        store = runner.run(_resume_late(folder, by_compaction=by_compaction))
    loaded = asyncio.run(load(folder.after_kill()))

    assert set(keys_of(loaded)) == set(store.keys) == {"late"}
