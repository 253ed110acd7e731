"""What an event, an answer or a reading does to the catalogue (V1, V2, W6, W7, E5).

Knows: versions, lives, marks, doubts. Plans on a `ChangeSet`; nothing is changed until the draft's
change has been kept on disk and made.
Refuses to know: where events come from, files, Central.

A product's life begins with `product_created` and ends with `product_deleted`; within it the
version rises by one with each applied write. Some Centrals publish events of one product out of
order, by up to a tenth of a second; a creation or deletion then looks like an update of another
life. Wherever that can be, the product is owed a reading by itself, and until it is done the
fresher state stays: a till never sees a product go back within a life.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, KeysView, Sequence
from dataclasses import dataclass
from operator import lt, sub

import orjson

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, Kind, QuarantinedEvent
from store_cache.model.position import Position
from store_cache.model.product import Row, is_same_state, with_stock
from store_cache.model.stock import StockAnswer

TOMBSTONE_SECONDS = 600.0
"""How long a deletion is remembered at the least (V2)."""

NEAR_EVENTS = 100
"""An event this near behind a deletion, or behind the head that a page named, may have been
numbered late, and be of before it: a tenth of a second, at a thousand events a second."""

CROSSING_SECONDS = 60.0
"""A creation or deletion this near to an answer may have crossed it (W6); longer than any write
may take (`WRITE_TIMEOUT_SECONDS` is at most 60)."""

ABSENT_VERSION = 0
"""The version of a product that is ahead of the feed by not being there."""

OVERRIDE_SECONDS = 60.0
"""A product still ahead of the feed after this is read again (W7)."""

_VERSION = b',"version":'


def version_of(body: bytes) -> int:
    """The version in a row, cut out where that is sure, which takes half the time of parsing.

    In a text a quotation mark stands behind a backslash, so `,"version":` is never inside one, and
    begins a name. With no brace before it but the row's own, that name is one of the row's.
    """
    before = body.find(_VERSION)
    if before > 0 and body.rfind(b"{", 0, before) == 0:
        begin = before + len(_VERSION)
        # Where no comma follows, the version is the last field, and -1 leaves out the brace.
        return int(body[begin : body.find(b",", begin)])
    version: int = orjson.loads(body)["version"]
    return version


@dataclass(frozen=True, slots=True)
class KnownState:
    """What was known of a product when a reading of it was sent: the reading's answer counts only
    if that is still so (V2). A doubt that arose meanwhile (`owed`) is news too: an answer from
    before it cannot settle it."""

    body: bytes | None
    tombstone: Tombstone | None
    owed: PendingRefetch | None

    @classmethod
    def of(cls, catalogue: Catalogue, product_id: str) -> KnownState:
        body, tombstone = catalogue.get(product_id), catalogue.tombstones.get(product_id)
        return cls(body, tombstone, catalogue.pending_refetches.get(product_id))


class ChangeSet:
    """A change being planned over a catalogue: reads see the plan first, then the catalogue.

    `now` is unix seconds; `grace_seconds` is how far apart events of one product may be published
    and still be out of order (`HOLE_GRACE_SECONDS`). `is_partial`: the catalogue is a copy whose
    pages are still to come. `existing`: products that exist although it does not hold them yet;
    their first row begins no life.
    """

    def __init__(
        self,
        base: Catalogue,
        *,
        now: float,
        grace_seconds: float,
        is_partial: bool = False,
        existing: Container[str] = frozenset(),
    ) -> None:
        self.now = now
        self.grace_seconds = grace_seconds
        self.unfollowed_until = base.unfollowed_until
        self.is_partial = is_partial
        self._existing = existing
        self._base = base
        self._rows: dict[str, bytes | None] = {}
        self._tombstones: dict[str, Tombstone | None] = {}
        self._overrides: dict[str, Override | None] = {}
        self._pending_refetches: dict[str, PendingRefetch | None] = {}
        self._incarnations: dict[str, float] = {}

    def row(self, product_id: str) -> bytes | None:
        if product_id in self._rows:
            return self._rows[product_id]
        return self._base.get(product_id)

    def tombstone(self, product_id: str) -> Tombstone | None:
        if product_id in self._tombstones:
            return self._tombstones[product_id]
        return self._base.tombstones.get(product_id)

    def override(self, product_id: str) -> Override | None:
        if product_id in self._overrides:
            return self._overrides[product_id]
        return self._base.overrides.get(product_id)

    def pending_refetch(self, product_id: str) -> PendingRefetch | None:
        if product_id in self._pending_refetches:
            return self._pending_refetches[product_id]
        return self._base.pending_refetches.get(product_id)

    def incarnation_changed_within(self, product_id: str, seconds: float) -> bool:
        """Whether the product was created or deleted that lately."""
        at = self._incarnations.get(product_id, self._base.incarnations.get(product_id))
        return at is not None and abs(self.now - at) <= seconds

    def apply_plain_updates(self, events: Sequence[AnyEvent]) -> bool:
        """Take updates of as many products of each of which nothing is known but an older row, as
        nearly all events bring. False, and nothing is planned: more has to be looked at."""
        if set(map(type, events)) != {Event}:
            return False
        offsets, kinds, ids, versions, bodies, _ = zip(*events, strict=True)
        if offsets[0] < self.unfollowed_until or kinds.count(Kind.UPDATED) < len(kinds):
            return False
        rows = dict(zip(ids, bodies, strict=True))
        if len(rows) < len(ids) or not self._knows_rows_alone(rows.keys()):
            return False
        held = self._held_rows(ids)
        if not all(held):
            return False
        known = list(map(version_of, filter(None, held)))
        if any(map(lt, versions, known)):
            return False
        if self.is_partial and max(map(sub, versions, known)) > 1:
            return False
        self._rows.update(rows)
        return True

    def _knows_rows_alone(self, product_ids: KeysView[str]) -> bool:
        base = self._base
        known = (
            base.incarnations,
            base.tombstones,
            base.overrides,
            self._incarnations,
            self._tombstones,
            self._overrides,
        )
        return all(each.keys().isdisjoint(product_ids) for each in known)

    def _held_rows(self, product_ids: Iterable[str]) -> list[bytes | None]:
        if self._rows:
            return list(map(self.row, product_ids))
        return list(map(self._base.rows.get, product_ids))

    def put(self, product_id: str, body: bytes) -> None:
        self.begin(product_id, body)
        if self.tombstone(product_id) is not None:
            self._tombstones[product_id] = None

    def begin(self, product_id: str, body: bytes) -> None:
        """The same, but the mark of a life before stays: its late events are known by that."""
        if self.row(product_id) is None and product_id not in self._existing:
            self.begin_incarnation(product_id)
        self._rows[product_id] = body

    def delete(self, product_id: str, *, offset: int, version: int) -> None:
        """End the product's life and leave a mark. Version 0: not known."""
        if self.row(product_id) is not None:
            self._rows[product_id] = None
        self._tombstones[product_id] = Tombstone(offset, version, self.now)
        self._incarnations[product_id] = self.now
        self.drop_override(product_id)

    def begin_incarnation(self, product_id: str) -> None:
        self._incarnations[product_id] = self.now

    def add_override(self, product_id: str, version: int) -> None:
        self._overrides[product_id] = Override(version, self.now)

    def drop_override(self, product_id: str) -> None:
        if self.override(product_id) is not None:
            self._overrides[product_id] = None

    def request_refetch(
        self, product_id: str, reason: RefetchReason, *, after_seconds: float = 0.0
    ) -> None:
        """Have the product read again. A doubt that wins is never weakened to a refresh."""
        owed = self.pending_refetch(product_id)
        if owed is not None and owed.reason.wins and not reason.wins:
            return
        self._pending_refetches[product_id] = PendingRefetch(
            reason, self.now + after_seconds, self.now
        )

    def postpone(self, product_id: str, owed: PendingRefetch) -> None:
        self._pending_refetches[product_id] = owed

    def complete_refetch(self, product_id: str) -> None:
        """The product was read. A doubt whose time is still to come stays: the late event that it
        waits for may come after this reading."""
        owed = self.pending_refetch(product_id)
        if owed is None:
            return
        waits = not owed.attempts and 0 < owed.due - self.now <= self.grace_seconds
        if not waits:
            self._pending_refetches[product_id] = None

    def to_change(
        self, cause: str, *, position: Position | None = None, in_sync_at: float | None = None
    ) -> Change:
        return Change(
            cause=cause,
            position=position,
            rows=self._rows,
            tombstones=self._tombstones,
            overrides=self._overrides,
            pending_refetches=self._pending_refetches,
            incarnations=self._incarnations,
            in_sync_at=in_sync_at,
        )


# -- events ------------------------------------------------------------------------------------


def apply_events(change_set: ChangeSet, events: Sequence[AnyEvent]) -> None:
    """Apply events in the order of their offsets: all at once where they are as nearly all events
    are, else by halves, so that the one that is not keeps the others up as little as can be."""
    if not events or change_set.apply_plain_updates(events):
        return
    if len(events) == 1:
        _apply_event(change_set, events[0])
        return
    half = len(events) // 2
    apply_events(change_set, events[:half])
    apply_events(change_set, events[half:])


def _apply_event(change_set: ChangeSet, event: AnyEvent) -> None:
    if event.offset < change_set.unfollowed_until:
        _doubt(change_set, event)
    elif isinstance(event, QuarantinedEvent):
        if event.product_id is not None:
            change_set.request_refetch(event.product_id, RefetchReason.UNREADABLE)
    elif event.body is not None and event.kind is Kind.CREATED:
        _create(change_set, event, event.body)
    elif event.body is not None:
        _update(change_set, event, event.body)
    else:
        _delete(change_set, event)


def _doubt(change_set: ChangeSet, event: AnyEvent) -> None:
    """Rows may be newer than this event, nobody knows by how much: it may be of a life that had
    ended before its row was read. What it changes is read from Central; what is held stays until
    then, since a till has seen it (V1)."""
    if event.product_id is not None and not _is_reflected(change_set, event):
        _doubt_order(change_set, event.product_id)


def _is_reflected(change_set: ChangeSet, event: AnyEvent) -> bool:
    """Whether an event says nothing that the row held does not know. An update of a life after
    the held one comes behind a deletion and a creation, and these are doubted."""
    if not isinstance(event, Event) or event.kind is not Kind.UPDATED:
        return False
    held = change_set.row(event.product_id)
    return held is not None and event.version <= version_of(held)


def _update(change_set: ChangeSet, event: Event, body: bytes) -> None:
    product_id = event.product_id
    held = change_set.row(product_id)
    if held is None:
        _update_unheld(change_set, event, body)
        return
    held_version = version_of(held)
    if _is_of_earlier_incarnation(change_set, event, body, held):
        _doubt_order(change_set, product_id)
        return
    jumps = event.version > held_version + 1  # of another life?
    tombstone = change_set.tombstone(product_id)
    near_life = _is_near_incarnation(change_set, event, tombstone, jumps=jumps)
    if near_life or (
        jumps and change_set.incarnation_changed_within(product_id, TOMBSTONE_SECONDS)
    ):
        _doubt_order(change_set, product_id)
    may_be_of_before = jumps or (tombstone is not None and event.version < tombstone.version)
    if event.version >= held_version and not (near_life and may_be_of_before):
        change_set.begin(product_id, body)
    _back_in_line(change_set, event)


def _is_near_incarnation(
    change_set: ChangeSet, event: Event, tombstone: Tombstone | None, *, jumps: bool
) -> bool:
    """Whether a creation or deletion is so near that an update may be of another life: by the
    clock, or by the feed, since a backlog may be fetched much more slowly than it came about. A
    copy's rows are of lives that began, and followed on others, before it followed the feed: what
    jumps there may come late from one that had ended."""
    unseen = change_set.is_partial and jumps
    is_behind_its_end = (
        tombstone is not None
        and not tombstone.is_of_refetch
        and event.offset - tombstone.offset <= NEAR_EVENTS
    )
    near = change_set.incarnation_changed_within(event.product_id, change_set.grace_seconds)
    return unseen or is_behind_its_end or near


def _is_of_earlier_incarnation(
    change_set: ChangeSet, event: Event, body: bytes, held: bytes
) -> bool:
    """Whether an update may be of a life that ended before the state that is held ahead of the
    feed: of that one's life, only the versions before it and then its own can come. The version
    after it looks like the next of the same life, and is not, as long as its own is to come."""
    ahead = change_set.override(event.product_id)
    if ahead is None:
        return False
    if event.version == ahead.version:
        return not is_same_state(body, held)
    return event.version > ahead.version


def _update_unheld(change_set: ChangeSet, event: Event, body: bytes) -> None:
    tombstone = change_set.tombstone(event.product_id)
    if tombstone is None and change_set.is_partial:
        change_set.put(event.product_id, body)
        return
    _doubt_order(change_set, event.product_id)
    if tombstone is not None and event.version > tombstone.version > 0:
        change_set.put(event.product_id, body)
    # Else it is of a life that ended, perhaps before the catalogue was read, or of one whose
    # beginning was not seen.


def _create(change_set: ChangeSet, event: Event, body: bytes) -> None:
    product_id = event.product_id
    held = change_set.row(product_id)
    if held is None:
        near_life = change_set.incarnation_changed_within(product_id, change_set.grace_seconds)
        tombstone = change_set.tombstone(product_id)
        if near_life or tombstone is not None:
            _doubt_order(change_set, product_id)
        if tombstone is not None and tombstone.is_of_refetch:
            return  # the reading may have been behind this life's end
        change_set.begin(product_id, body)
    elif held != body:
        # Held already, and otherwise: a new life whose deletion is still to come, or an old
        # event behind a fresher state. Only a reading can tell; a till that has seen the fresher
        # one must not see it undone until then.
        _doubt_order(change_set, product_id)
        change_set.begin_incarnation(product_id)
        return
    change_set.begin_incarnation(product_id)
    _back_in_line(change_set, event)


def _delete(change_set: ChangeSet, event: Event) -> None:
    product_id, version = event.product_id, event.version
    held = change_set.row(product_id)
    if held is None:
        tombstone = change_set.tombstone(product_id)
        if tombstone is not None and tombstone.is_of_refetch:
            return  # it stands for every life that is still to end on the feed
        known = max(version, tombstone.version if tombstone else 0)
        change_set.delete(product_id, offset=event.offset, version=known)
        return
    held_version = version_of(held)
    if change_set.override(product_id) is not None:
        _doubt_order(change_set, product_id)
        change_set.begin_incarnation(
            product_id
        )  # what is held is of the life after: its creation is to come
        return
    if version == held_version + 1:
        if change_set.incarnation_changed_within(product_id, change_set.grace_seconds):
            _doubt_order(change_set, product_id)
        change_set.delete(product_id, offset=event.offset, version=version)
        return
    _doubt_order(change_set, product_id)
    if version or change_set.incarnation_changed_within(product_id, change_set.grace_seconds):
        # What is held may be of the life after, whose creation is still to come and would show its
        # first version again: it stays until the product was read.
        change_set.begin_incarnation(product_id)
    else:
        change_set.delete(product_id, offset=event.offset, version=version)


def _back_in_line(change_set: ChangeSet, event: Event) -> None:
    ahead = change_set.override(event.product_id)
    if ahead is not None and event.version >= ahead.version:
        change_set.drop_override(event.product_id)


def _doubt_order(change_set: ChangeSet, product_id: str) -> None:
    change_set.request_refetch(
        product_id, RefetchReason.ORDER, after_seconds=change_set.grace_seconds
    )


# -- answers of writes -------------------------------------------------------------------------


def apply_answer(change_set: ChangeSet, answer: StockAnswer) -> bool:
    """Show an applied write (W6). False: not without reading the product whole first."""
    held = change_set.row(answer.product_id)
    if held is None:
        return False
    held_version = version_of(held)
    if change_set.incarnation_changed_within(answer.product_id, CROSSING_SECONDS):
        return False
    if held_version >= answer.new_version:
        return True
    if held_version != answer.sent_version:
        return False
    _set_stock(change_set, held, answer)
    return True


def apply_answer_figures(change_set: ChangeSet, answer: StockAnswer) -> None:
    """Show an applied write whose product could not be read whole: quantity and version are set
    if it is held; its own event completes it (W6)."""
    held = change_set.row(answer.product_id)
    if held is not None and version_of(held) < answer.new_version:
        _set_stock(change_set, held, answer)
    change_set.request_refetch(answer.product_id, RefetchReason.CROSSED)


def _set_stock(change_set: ChangeSet, held: bytes, answer: StockAnswer) -> None:
    row = with_stock(
        held,
        available=answer.new_quantity,
        version=answer.new_version,
        last_updated=answer.last_updated,
    )
    change_set.put(answer.product_id, row.body)
    change_set.add_override(answer.product_id, answer.new_version)


# -- readings of one product -------------------------------------------------------------------


def apply_refetch(
    change_set: ChangeSet,
    product_id: str,
    row: Row | None,
    *,
    known: KnownState,
    reason: RefetchReason,
) -> bool:
    """Take what Central says of one product; `row` None: it does not exist there.

    False, and nothing planned: the product changed since the reading was sent, so it says nothing
    sure and has to be done again.
    """
    held = change_set.row(product_id)
    if (
        KnownState(held, change_set.tombstone(product_id), change_set.pending_refetch(product_id))
        != known
    ):
        return False
    change_set.complete_refetch(product_id)
    if row is None:
        _apply_absence(change_set, product_id, reason)
        return True
    if not reason.wins and held is not None and row.version < version_of(held):
        change_set.request_refetch(
            product_id, RefetchReason.CONFLICT
        )  # an old answer, or a Central that was restored
        return True
    if row.body == held:
        if reason is RefetchReason.AHEAD:  # else the events before it may still be to come
            change_set.drop_override(product_id)
        return True
    change_set.put(product_id, row.body)
    change_set.add_override(product_id, row.version)
    return True


def _apply_absence(change_set: ChangeSet, product_id: str, reason: RefetchReason) -> None:
    """Like a row that was read, an absence is ahead of the feed, and asked for once more: a Central
    that was restored before its feed told of the deletion never will."""
    if change_set.row(product_id) is not None:
        change_set.delete(product_id, offset=0, version=0)
        change_set.add_override(product_id, ABSENT_VERSION)
    elif reason is RefetchReason.AHEAD:
        change_set.drop_override(product_id)
