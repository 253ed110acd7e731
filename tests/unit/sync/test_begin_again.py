"""What is left after a defect of the store stopped the sync in the middle of something."""

from dataclasses import replace

from store_cache.model.position import Position
from store_cache.sync.cursor import Cursor, Lost
from store_cache.sync.machine import advance, begin, begin_again
from store_cache.sync.states import (
    FullSyncing,
    Interrupted,
    Starting,
    SyncSettings,
    request_full_sync,
)

HELD = Position("g-1", 42, "f")


def test_a_full_sync_that_a_defect_stopped_is_told_to_who_waits_for_it() -> None:
    """[F1] Its record says so, and what the store needs is wanted again, later."""
    state, _ = advance(begin(SyncSettings(), None), Interrupted(), 10.0)
    assert isinstance(state.phase, FullSyncing)

    left = begin_again(state, None, 12.0)

    assert (1, True) == (left.full_syncs[-1].number, "defect" in left.full_syncs[-1].problem)
    assert left.requested is not None
    assert ("first start",) == left.requested.reasons
    assert left.spacing.next_at > 12.0


def test_what_was_lost_stays_lost() -> None:
    """[P1] A position that is worth nothing is not followed because the sync began again."""
    lost = replace(begin(SyncSettings(), HELD), lost=Lost("the position is gone (410)"))
    state = request_full_sync(lost, "the position is gone (410)", not_before=100.0)
    state = begin_again(state, HELD, 5.0)

    assert isinstance(state.phase, Starting)
    assert Cursor(HELD, is_unverified=True) == state.cursor
    assert state.requested is not None
    assert state.lost
