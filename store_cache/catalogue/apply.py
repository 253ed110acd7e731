"""Apply events, answers to writes and refetches to the catalogue (V1, V2, W6, W7, E5).

Four ideas carry the rules:

- An *incarnation* of a product begins with `product_created` and ends with `product_deleted`.
  Within it each applied write raises the version by one, so versions put its states in order.
  Versions of two incarnations cannot be compared: each starts anew.
- A *tombstone* is what a deletion leaves: its offset, version and time. Late events of the ended
  incarnation are recognised by it.
- An *override* is a row, or an absence, that an answer or a refetch has put ahead of the feed, so
  that readers see their own writes. The event that brings its version drops it.
- A *pending refetch* asks for the product to be read from Central again by itself. Some Centrals
  publish events of one product out of order, by up to a tenth of a second, and then a creation or
  deletion looks like an update of another incarnation. Wherever that is possible, a refetch is
  requested and the fresher state stays meanwhile: a till never sees a product go back within an
  incarnation.

Each function plans on a `ChangeSet` and returns; see there for when the change becomes visible.
"""

from __future__ import annotations

from collections.abc import Sequence

from store_cache.catalogue.change_set import ChangeSet, KnownState
from store_cache.model.change import RefetchReason
from store_cache.model.event import AnyEvent, Event, Kind, QuarantinedEvent
from store_cache.model.product import (
    Row,
    is_later,
    is_same_state,
    is_same_write,
    version_of,
    with_stock,
)
from store_cache.model.stock import StockAnswer

TOMBSTONE_SECONDS = 600.0
"""How long a tombstone is kept at least (V2)."""

NEAR_EVENTS = 100
"""An event at most this many offsets after another one may have happened before it: a tenth of a
second, at a thousand events a second."""

CROSSING_SECONDS = 60.0
"""A creation or deletion at most this long before an answer may have crossed the write (W6). No
write takes longer (`WRITE_TIMEOUT_SECONDS` is at most 60)."""

OVERRIDE_SECONDS = 60.0
"""An override that lasts longer has its product refetched (W7)."""

NAMELESS = "an event could not be read and names no product or no offset"
"""Why a full sync has to follow such an event (E5)."""

ABSENT_VERSION = 0
"""The version of an override that says that the product does not exist."""


# -- events ------------------------------------------------------------------------------------


def apply_events(change_set: ChangeSet, events: Sequence[AnyEvent]) -> None:
    """Apply events in the order of their offsets.

    A batch of plain updates is applied at once. Any other batch is halved, again and again, so that
    one event that needs the full rules costs the others little.
    """
    if not events or change_set.apply_plain_updates(events):
        return
    if len(events) == 1:
        _apply_event(change_set, events[0])
        return
    half = len(events) // 2
    apply_events(change_set, events[:half])
    apply_events(change_set, events[half:])


def _apply_event(change_set: ChangeSet, event: AnyEvent) -> None:
    if isinstance(event, QuarantinedEvent):
        if event.needs_full_sync:
            change_set.request_full_sync(NAMELESS)
        if event.product_id is not None:
            change_set.request_refetch(event.product_id, RefetchReason.UNREADABLE)
        return
    change_set.renew_refetch(event.product_id)
    if event.body is None:
        _delete(change_set, event)
    elif event.kind is Kind.CREATED:
        _create(change_set, event, event.body)
    else:
        _update(change_set, event, event.body)


def _update(change_set: ChangeSet, event: Event, body: bytes) -> None:
    product_id = event.product_id
    row = change_set.row(product_id)
    if row is None:
        _update_absent(change_set, event, body)
        return
    if _is_of_earlier_incarnation(change_set, event, body, row):
        change_set.pass_over(product_id, body)
        _refetch_for_order(change_set, product_id)
        return
    version, tombstone = version_of(row), change_set.tombstone(product_id)
    jumps = event.version > version + 1  # perhaps of another incarnation
    # An incarnation began or ended so near to the event that it may be of another one. Near is
    # measured by the clock, and by offsets too, since a backlog may be fetched much more slowly
    # than it was published. A replica's row may be of an incarnation that began before the replica
    # followed the feed: a jump from it may come late from the one before.
    is_near = (
        change_set.incarnation_changed_within(product_id, change_set.grace_seconds)
        or (change_set.is_partial and jumps)
        or (tombstone is not None and event.offset - tombstone.offset <= NEAR_EVENTS)
    )
    if is_near or (jumps and change_set.incarnation_changed_within(product_id, TOMBSTONE_SECONDS)):
        _refetch_for_order(change_set, product_id)
    may_be_earlier = jumps or (tombstone is not None and event.version < tombstone.version)
    if event.version >= version and not (is_near and may_be_earlier):
        change_set.set_row(product_id, body, keep_tombstone=True)
    _drop_reached_override(change_set, event)


def _is_of_earlier_incarnation(
    change_set: ChangeSet, event: Event, body: bytes, row: bytes
) -> bool:
    """Return whether an update may be of an incarnation that ended before the overriding row's.

    Of the overriding row's incarnation, the feed can only bring versions below the override's and
    then that version itself, with the state that the row shows of it. A higher version before that
    one looks like the next of the same incarnation, and is not.
    """
    override = change_set.override(event.product_id)
    if override is None:
        return False
    if event.version == override.version:
        return not is_same_state(body, row)
    return event.version > override.version


def _update_absent(change_set: ChangeSet, event: Event, body: bytes) -> None:
    """Apply an update of a product that has no row.

    The update may be of an incarnation that has ended, perhaps before the catalogue was read, or of
    one whose creation was missed. It is only shown if it is newer than the known end of one.
    """
    tombstone = change_set.tombstone(event.product_id)
    if tombstone is None and change_set.is_partial:  # its page is still to come
        change_set.set_row(event.product_id, body)
        return
    _refetch_for_order(change_set, event.product_id)
    if tombstone is not None and event.version > tombstone.version > 0:
        change_set.set_row(event.product_id, body)


def _create(change_set: ChangeSet, event: Event, body: bytes) -> None:
    product_id = event.product_id
    row, tombstone = change_set.row(product_id), change_set.tombstone(product_id)
    if row is not None and row != body:
        # Either a new incarnation before the deletion of the one held, or an old event behind a
        # fresher state. Only a refetch can tell; the fresher state must not be undone until then.
        _refetch_for_order(change_set, product_id)
        change_set.note_incarnation(product_id)
        return
    if row is None:
        is_near = change_set.incarnation_changed_within(product_id, change_set.grace_seconds)
        if is_near or tombstone is not None:
            _refetch_for_order(change_set, product_id)
        if tombstone is not None and tombstone.from_refetch:
            return  # the refetch may have come after the end of this incarnation
        change_set.set_row(product_id, body, keep_tombstone=True)
    change_set.note_incarnation(product_id)
    _drop_reached_override(change_set, event)


def _delete(change_set: ChangeSet, event: Event) -> None:
    product_id, version = event.product_id, event.version
    row = change_set.row(product_id)
    if row is None:
        tombstone = change_set.tombstone(product_id)
        if tombstone is None or not tombstone.from_refetch:
            highest = max(version, tombstone.version if tombstone else 0)
            change_set.delete(product_id, offset=event.offset, version=highest)
        # A refetch's tombstone stands for every incarnation that is still to end on the feed.
        return
    is_next = version == version_of(row) + 1
    is_near = change_set.incarnation_changed_within(product_id, change_set.grace_seconds)
    if is_near or not is_next or change_set.override(product_id) is not None:
        _refetch_for_order(change_set, product_id)
    if change_set.override(product_id) is None and (is_next or not (version or is_near)):
        change_set.delete(product_id, offset=event.offset, version=version)
    else:
        # The row may be of the next incarnation, whose creation is still to come and would show its
        # first version once more if the row were deleted. It stays until the refetch.
        change_set.note_incarnation(product_id)


def _drop_reached_override(change_set: ChangeSet, event: Event) -> None:
    override = change_set.override(event.product_id)
    if override is not None and event.version >= override.version:
        change_set.drop_override(event.product_id)


def _refetch_for_order(change_set: ChangeSet, product_id: str) -> None:
    """Request a refetch for when events that are out of order have arrived."""
    change_set.request_refetch(
        product_id, RefetchReason.ORDER, after_seconds=change_set.grace_seconds
    )


# -- answers to writes -------------------------------------------------------------------------


def apply_answer(change_set: ChangeSet, answer: StockAnswer) -> bool:
    """Show an applied write (W6). Return False if the product has to be refetched for that.

    A write that may have been applied long ago may be of an incarnation that has ended since, also
    if the row is by chance at the version that was sent. How long ago is not known of a key that
    another node has used, or that the store has lost with its disk: Central gives its first answer.
    If another generation has begun since the write was sent, a restore may have undone it.
    """
    row = change_set.row(answer.product_id)
    if row is None or _may_have_crossed(change_set, answer):
        return False
    version, is_old = version_of(row), answer.age_seconds > CROSSING_SECONDS
    is_old = is_old or is_later(row, answer.last_updated)
    if version == answer.sent_version < answer.new_version and not is_old:
        _set_stock(change_set, row, answer)
        return True
    return version >= answer.new_version


def _may_have_crossed(change_set: ChangeSet, answer: StockAnswer) -> bool:
    """Return whether an incarnation or a generation may have begun or ended after the write."""
    generation = change_set.generation
    is_known = generation is not None and answer.generation is not None
    return (is_known and answer.generation != generation) or change_set.incarnation_changed_within(
        answer.product_id, CROSSING_SECONDS
    )


def apply_answer_figures(change_set: ChangeSet, answer: StockAnswer) -> None:
    """Show quantity and version of an applied write whose product could not be refetched (W6).

    The write's own event completes the row. No product is created. Figures that may be older than
    the row's incarnation are not shown.
    """
    row = change_set.row(answer.product_id)
    is_shown = row is None or version_of(row) >= answer.new_version
    if row is not None and not is_shown and not _may_be_of_earlier(change_set, row, answer):
        _set_stock(change_set, row, answer)
    change_set.request_refetch(answer.product_id, RefetchReason.CROSSED)


def _may_be_of_earlier(change_set: ChangeSet, row: bytes, answer: StockAnswer) -> bool:
    """Return whether a write that may have been applied at an earlier sending may be of an earlier
    incarnation than the row. What is known of incarnations reaches back for `TOMBSTONE_SECONDS`."""
    if is_later(row, answer.last_updated):
        return True
    seconds = answer.age_seconds
    if seconds == 0.0:
        return False
    product_id = answer.product_id
    return seconds > TOMBSTONE_SECONDS or change_set.incarnation_changed_within(product_id, seconds)


def apply_answers(change_set: ChangeSet, answers: Sequence[StockAnswer]) -> None:
    """Show applied writes, in order, in a catalogue that may be older than they are (F4)."""
    for answer in answers:
        if not apply_answer(change_set, answer):
            apply_answer_figures(change_set, answer)


def _set_stock(change_set: ChangeSet, row: bytes, answer: StockAnswer) -> None:
    new = with_stock(
        row,
        available=answer.new_quantity,
        version=answer.new_version,
        last_updated=answer.last_updated,
    )
    change_set.set_row(answer.product_id, new.body)
    change_set.add_override(answer.product_id, answer.new_version)


# -- refetches ---------------------------------------------------------------------------------


def apply_refetch(
    change_set: ChangeSet,
    product_id: str,
    row: Row | None,
    *,
    known: KnownState,
    reason: RefetchReason,
) -> bool:
    """Apply what Central says of one product. `row` None: Central has no such product.

    Return False, changing nothing, if the product has changed since it was `known`: the answer may
    be from before that, so the refetch has to be repeated.
    """
    held, tombstone = change_set.row(product_id), change_set.tombstone(product_id)
    if KnownState(held, tombstone, change_set.pending_refetch(product_id)) != known:
        return False
    change_set.complete_refetch(product_id)
    if held == (None if row is None else row.body):
        # After any other reason, events before the override may still be to come.
        if reason is RefetchReason.AHEAD:
            change_set.drop_override(product_id)
    elif row is None:
        # As any refetch, an absence overrides the feed and is refetched once more: a Central that
        # was restored from before the deletion never tells of it on the feed.
        change_set.delete(product_id, offset=0, version=0)
        change_set.add_override(product_id, ABSENT_VERSION)
    elif not reason.wins and held is not None and row.version < version_of(held):
        # An old answer, or a Central that was restored.
        change_set.request_refetch(product_id, RefetchReason.CONFLICT)
    else:
        is_ahead = not _was_brought(change_set, product_id, row.body)
        change_set.set_row(product_id, row.body)
        if is_ahead:
            change_set.add_override(product_id, row.version)
        else:
            change_set.drop_override(product_id)
    return True


def _was_brought(change_set: ChangeSet, product_id: str, row: bytes) -> bool:
    """Return whether the feed has brought a refetched state already, as the held row or as the last
    event that an override kept from being applied. An override would wait for it in vain, and keep
    all later events from being applied."""
    override = change_set.override(product_id)
    brought = change_set.row(product_id) if override is None else override.passed
    return brought is not None and is_same_write(brought, row)


# -- repairs -----------------------------------------------------------------------------------


def apply_repair(change_set: ChangeSet, product_id: str, row: Row | None) -> bool:
    """Set a product to what Central holds; `row` None: Central has no such product.

    Return whether its version goes back. The feed is not overridden: it was followed to its end
    since Central was asked, and brought nothing.
    """
    held = change_set.row(product_id)
    if row is None:
        change_set.delete(product_id, offset=0, version=0)
        return False
    change_set.set_row(product_id, row.body)
    change_set.drop_override(product_id)
    return held is not None and row.version < version_of(held)
