"""Safeguards of live changes and of the history, removed one by one (rules L)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from store_cache.announcer import Announcer
from store_cache.api.connection import ClientConnection
from store_cache.api.handlers import history as history_handler
from store_cache.api.stream import blocks, reader
from store_cache.api.stream.feed import ChangeFeed, ResetReason
from store_cache.api.stream.reader import Reader
from store_cache.api.stream.ring import ChangeRing
from store_cache.api.stream.streams import Stream, StreamEnd, Streams
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.differences import Difference, Differences
from store_cache.catalogue.history.entries import Entries, Entry
from store_cache.catalogue.observer import CatalogueObserver
from tests.removals.removal import Patch, Removals

of_streams = Removals()

_STREAM = "tests/unit/api/stream/test_stream.py"
_ANNOUNCER = "tests/unit/test_announcer.py"


# -- what is told ------------------------------------------------------------------------------


@of_streams(
    "L1",
    "no stream is told ready before all differences were found",
    test="tests/unit/api/stream/test_reader.py::test_ready_waits_for_the_differences",
    why="the small catalogues of the simulation are compared within a moment",
)
def ready_when_whole(patch: Patch) -> None:
    """A full sync counts as told once its first part is."""

    def is_complete(self: ChangeFeed) -> bool:
        if self._writer.announcer.is_telling:
            patch.act()
        return True

    patch.replace(ChangeFeed, "is_complete", property(is_complete))


@of_streams("L2", "changes of products behind a reader are told while it is led through")
def changes_behind_a_reader(patch: Patch) -> None:
    """A reader that is still being led through gets no changes in between."""
    next_changes = Reader._next_changes

    def none(self: Reader) -> list[bytes]:
        if self._walked is None:
            return next_changes(self)
        if next(self._feed.ring.after(self._cursor), None) is not None:
            patch.act()
        self._cursor = self._feed.ring.head
        return []

    patch.replace(Reader, "_next_changes", none)
    patch.replace(reader, "_PART_PRODUCTS", 2)


@of_streams("L2", "what is superseded is skipped")
def superseded_changes(patch: Patch) -> None:
    """Each change is kept, also when a newer one of its product is."""

    def keep(self: ChangeRing, product_id: str, event: bytes, **_: object) -> None:
        if product_id in self._newest:
            patch.act()
        self.head += 1
        self._entries[self.head % self._size] = (product_id, event, product_id)
        self._newest[product_id] = self.head
        self._first = max(self._first, self.head - self._size + 1)

    patch.replace(ChangeRing, "add", keep)


@of_streams("L2", "of a full sync the products that differ are told", needs="retention")
def differences_of_a_full_sync(patch: Patch) -> None:
    """Only events, answers and refetches are told."""

    def nothing(_self: Announcer, _catalogue: Catalogue, found: dict[str, Difference]) -> None:
        if found:
            patch.act()

    patch.replace(Announcer, "_tell_differences", nothing)


@of_streams(
    "L2",
    "a product that changes while differences are found has its own told first",
    test=f"{_ANNOUNCER}::test_changes_during_a_walk_keep_the_chain",
    why="a stream holds the right rows all the same; an index of the rows before would not",
)
def difference_before_a_change(patch: Patch) -> None:
    """Its difference is told later, from a row that readers no longer see."""

    def nothing(_self: Differences, ids: Iterable[str]) -> dict[str, Difference]:
        if any(True for _ in ids):
            patch.act()
        return {}

    patch.replace(Differences, "take", nothing)


# -- gaps --------------------------------------------------------------------------------------


@of_streams(
    "L3",
    "a reader goes on only from a change whose successors are all kept",
    test=f"{_STREAM}::test_an_id_older_than_the_history_is_answered_with_a_reset",
)
def history_that_is_kept(patch: Patch) -> None:
    """A reader goes on from any number, with the changes that are there."""
    holds_all_after = ChangeRing.holds_all_after

    def held(self: ChangeRing, number: int) -> bool:
        if not holds_all_after(self, number):
            patch.act()
        return number <= self.head

    patch.replace(ChangeRing, "holds_all_after", held)


@of_streams("L3", "an id counts only within its epoch", needs="kill")
def epochs(patch: Patch) -> None:
    """The number in an id is gone on from, whichever process gave it."""
    find = ChangeFeed.find

    def any_epoch(self: ChangeFeed, event_id: str) -> int | ResetReason:
        epoch, _, number = event_id.partition(":")
        if epoch != self.epoch:
            patch.act()
            event_id = f"{self.epoch}:{min(int(number), self.ring.head)}"
        return find(self, event_id)

    patch.replace(ChangeFeed, "find", any_epoch)


@of_streams(
    "L3",
    "a replaced Central begins an epoch",
    test=f"{_STREAM}::test_a_replaced_central_resets_its_readers",
    why="without a reset readers still get the rows that differ",
)
def epoch_of_a_generation(patch: Patch) -> None:
    """Readers are led on from the old feed into the new one without a word."""

    def go_on(_self: ChangeFeed, _reason: ResetReason) -> None:
        patch.act()

    patch.replace(ChangeFeed, "_end_epoch", go_on)


@of_streams(
    "L3",
    "products before ready carry no id",
    test=f"{_STREAM}::test_a_reader_that_lost_its_connection_before_it_was_ready_begins_again",
    why="in the simulation a reader is led through in one part",
)
def ids_before_ready(patch: Patch) -> None:
    """A reader that lost its connection before it was ready goes on without the rest."""
    take = Reader.take
    product = blocks.product

    def with_ids(self: Reader) -> bytes:
        place = self._feed.event_id(self._cursor)

        def named(row: bytes, event_id: bytes | None = None) -> bytes:
            if event_id is None:
                patch.act()
            return product(row, event_id or place)

        blocks.product = named
        try:
            return take(self)
        finally:
            blocks.product = product

    patch.replace(Reader, "take", with_ids)


# -- bounds ------------------------------------------------------------------------------------


@of_streams(
    "L4",
    "nothing is written to a client that takes nothing",
    test=f"{_STREAM}::test_a_reader_that_takes_nothing_is_ended_after_a_minute",
    why="the simulation does not count bytes",
)
def waiting_for_a_slow_client(patch: Patch) -> None:
    """Everything is written at once, and kept until the client takes it."""

    def always(self: Stream) -> bool:
        if self.is_blocked:
            patch.act()
        return not self.ended.done()

    patch.replace(Stream, "can_write", always)


@of_streams(
    "L4",
    "a client that takes nothing is cut off after a minute",
    test=f"{_STREAM}::test_a_reader_that_takes_nothing_is_ended_after_a_minute",
)
def stuck_clients(patch: Patch) -> None:
    """Its place is taken for ever."""
    takes_nothing = Stream.takes_nothing

    def never(self: Stream, now: float) -> bool:
        if takes_nothing(self, now):
            patch.act()
        return False

    patch.replace(Stream, "takes_nothing", never)


@of_streams(
    "L4",
    "a stream has its own deadlines",
    test=f"{_STREAM}::test_a_reader_that_takes_nothing_is_ended_after_a_minute",
    why="no stream of the simulation is slow for long enough",
)
def deadlines_of_a_stream(patch: Patch) -> None:
    """A stream is cut off as any answer that is not read, after half a minute."""

    def forget(_self: ClientConnection, _reply: Any) -> None:
        patch.act()

    patch.replace(ClientConnection, "begin_long_reply", forget)


@of_streams(
    "L4",
    "the number of streams is limited",
    test=f"{_STREAM}::test_there_are_at_most_as_many_streams_as_set",
    why="the simulation has two readers",
)
def number_of_streams(patch: Patch) -> None:
    """Any number may be open."""
    is_full = vars(Streams)["is_full"].fget

    def never(self: Streams) -> bool:
        if is_full(self):
            patch.act()
        return False

    patch.replace(Streams, "is_full", property(never))


@of_streams(
    "L4 T2",
    "a key that is no longer valid ends its streams",
    test=f"{_STREAM}::test_a_key_that_is_revoked_ends_its_streams",
    why="the keys of the simulation stay",
)
def revoked_keys(patch: Patch) -> None:
    """Whoever has a stream keeps it."""
    end = Stream.end

    def keep(self: Stream, reason: StreamEnd) -> None:
        if reason is StreamEnd.REVOKED:
            patch.act()
            return
        end(self, reason)

    patch.replace(Stream, "end", keep)


@of_streams(
    "L4 T2",
    "a client that takes nothing loses its connection with its stream",
    test=f"{_STREAM}::test_a_key_that_is_revoked_ends_a_stream_that_nobody_reads",
    why="the keys of the simulation stay",
)
def connections_of_ended_streams(patch: Patch) -> None:
    """It keeps the connection, and what is on its way, for as long as it likes."""
    end = Stream.end

    def only_end(self: Stream, reason: StreamEnd) -> None:
        if self.is_blocked and not self.ended.done():
            patch.act()
            self.is_blocked = False
        end(self, reason)

    patch.replace(Stream, "end", only_end)


# -- observers ---------------------------------------------------------------------------------


@of_streams(
    "L5",
    "a defect of an observer does not fail a change",
    test=f"{_ANNOUNCER}::test_a_defect_of_an_observer_does_not_harm_the_writer",
    why="no observer of the product is known to fail",
)
def defects_of_observers(patch: Patch) -> None:
    """The writer raises what an observer raises."""

    def tell(self: Announcer, message: Callable[[CatalogueObserver], None]) -> None:
        patch.act()
        for observer in self.observers:
            message(observer)

    patch.replace(Announcer, "_tell", tell)


# -- the history -------------------------------------------------------------------------------


@of_streams(
    "T4",
    "only admins see the keys of writes",
    test="tests/unit/api/test_history.py::test_only_admins_see_keys",
    why="no till of the simulation reads histories",
)
def keys_in_histories(patch: Patch) -> None:
    """Every till sees under which key another one sold."""
    shown = history_handler._shown

    def with_keys(entry: Entry, *, with_keys: bool) -> Any:
        if not with_keys:
            patch.act()
        return shown(entry, with_keys=True)

    patch.replace(history_handler, "_shown", with_keys)


@of_streams(
    "L4",
    "the history is bounded",
    test="tests/unit/catalogue/test_history.py::test_entries_are_the_last_ones_of_all",
    why="the simulation does not last long enough",
)
def bound_of_the_history(patch: Patch) -> None:
    """No change is ever forgotten."""

    def grow(self: Entries, number: int) -> int:
        if number > self._limit:
            patch.act()
        return number - 1

    patch.replace(Entries, "_place", grow)
