"""A change of the catalogue while it is being planned.

Rules (`apply.py`, `replica.py`) read and write a `ChangeSet`. The catalogue stays as it is until
the finished `Change` has been written to disk and passed to `Catalogue.apply`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from operator import lt, sub

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.event import AnyEvent, Event, Kind
from store_cache.model.position import Position
from store_cache.model.product import version_of


@dataclass(frozen=True, slots=True)
class KnownState:
    """What is known of one product.

    It is taken when a refetch is sent, and compared when the answer arrives: the answer counts only
    if nothing changed in between (V2). A refetch requested meanwhile is a change as well, since an
    older answer cannot settle it.
    """

    row: bytes | None
    tombstone: Tombstone | None
    pending_refetch: PendingRefetch | None

    @classmethod
    def of(cls, catalogue: Catalogue, product_id: str) -> KnownState:
        return cls(
            catalogue.get(product_id),
            catalogue.tombstones.get(product_id),
            catalogue.pending_refetches.get(product_id),
        )


class ChangeSet:
    """Collect the changes to a catalogue. Reads see the planned state first, then the catalogue.

    `now`: unix seconds. `grace_seconds`: how far apart Central may publish two events of one
    product and still publish them out of order (`HOLE_GRACE_SECONDS`). `is_partial`: the catalogue
    is a replica whose pages are still being read. `existing`: ids of products that exist although
    the catalogue has no row of them yet; their first row begins no incarnation.
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
        self.is_partial = is_partial
        self.rows_set = 0
        """How often a row was set or deleted."""
        self._base = base
        self._existing = existing
        self._rows: dict[str, bytes | None] = {}
        self._tombstones: dict[str, Tombstone | None] = {}
        self._overrides: dict[str, Override | None] = {}
        self._pending_refetches: dict[str, PendingRefetch | None] = {}
        self._incarnations: dict[str, float] = {}
        self._follow_up_reason = ""

    # -- reads -----------------------------------------------------------------------------

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
        """Return whether an incarnation of the product began or ended in the last `seconds`."""
        at = self._incarnations.get(product_id, self._base.incarnations.get(product_id))
        return at is not None and abs(self.now - at) <= seconds

    @property
    def generation(self) -> str | None:
        """The label of the feed that the catalogue follows; None if that is not known."""
        return None if self._base.position is None else self._base.position.generation

    # -- changes ---------------------------------------------------------------------------

    def apply_plain_updates(self, events: Sequence[AnyEvent]) -> bool:
        """Fast path: apply updates, one per product, to rows that have no other state.

        Nearly all events are of this kind. They are checked column by column, each check running
        in C over the whole batch, which takes a fraction of the time of one call per event.

        Return False, changing nothing, if any event needs the full rules.
        """
        if set(map(type, events)) != {Event}:
            return False
        _, kinds, ids, versions, bodies, _ = zip(*events, strict=True)
        if kinds.count(Kind.UPDATED) < len(kinds):
            return False
        new_rows = dict(zip(ids, bodies, strict=True))
        base = self._base
        other_state = (
            base.incarnations,
            base.tombstones,
            base.overrides,
            self._incarnations,
            self._tombstones,
            self._overrides,
        )
        ids_once = new_rows.keys()
        if len(new_rows) < len(ids) or not all(s.keys().isdisjoint(ids_once) for s in other_state):
            return False
        rows = list(map(self.row if self._rows else base.rows.get, ids))
        if not all(rows):
            return False
        held_versions = list(map(version_of, filter(None, rows)))
        if any(map(lt, versions, held_versions)):
            return False
        if self.is_partial and max(map(sub, versions, held_versions)) > 1:
            return False
        self._rows.update(new_rows)
        self.rows_set += len(new_rows)
        return True

    def set_row(self, product_id: str, row: bytes, *, keep_tombstone: bool = False) -> None:
        """Set the product's row. If it had none, an incarnation begins.

        A tombstone kept beside the row still identifies late events of the incarnation before.
        """
        if self.row(product_id) is None and product_id not in self._existing:
            self.note_incarnation(product_id)
        self._rows[product_id] = row
        self.rows_set += 1
        if not keep_tombstone and self.tombstone(product_id) is not None:
            self._tombstones[product_id] = None

    def delete(self, product_id: str, *, offset: int, version: int) -> None:
        """End the product's incarnation and leave a tombstone. `version` 0: not known."""
        if self.row(product_id) is not None:
            self._rows[product_id] = None
            self.rows_set += 1
        self._tombstones[product_id] = Tombstone(offset, version, self.now)
        self.note_incarnation(product_id)
        self.drop_override(product_id)

    def note_incarnation(self, product_id: str) -> None:
        """Remember that an incarnation of the product began or ended now."""
        self._incarnations[product_id] = self.now

    def add_override(self, product_id: str, version: int) -> None:
        self._overrides[product_id] = Override(version, self.now)

    def pass_over(self, product_id: str, body: bytes) -> None:
        """Remember the row of an event that is not applied because of the product's override."""
        if (override := self.override(product_id)) is not None:
            self._overrides[product_id] = replace(override, passed=body)

    def drop_override(self, product_id: str) -> None:
        if self.override(product_id) is not None:
            self._overrides[product_id] = None

    def request_refetch(
        self, product_id: str, reason: RefetchReason, *, after_seconds: float = 0.0
    ) -> None:
        """Request that the product is read again by itself, `after_seconds` from now.

        A pending refetch that wins over the row is never replaced by a mere refresh.
        """
        pending = self.pending_refetch(product_id)
        if pending is None or reason.wins or not pending.reason.wins:
            due = self.now + after_seconds
            self._pending_refetches[product_id] = PendingRefetch(reason, due, self.now)

    def renew_refetch(self, product_id: str) -> None:
        """Let no answer count that is under way to the product's pending refetch: it may be older
        than an event that now changes nothing, or is of another incarnation than the row."""
        if (pending := self.pending_refetch(product_id)) is not None:
            self._pending_refetches[product_id] = replace(pending, since=self.now)

    def complete_refetch(self, product_id: str) -> None:
        """Drop the product's pending refetch, since it was read, unless that is not due yet.

        A refetch for later waits for a late event, which may come after this answer. One that is
        due later than the grace, or was postponed, waits for no event.
        """
        pending = self.pending_refetch(product_id)
        if pending is None:
            return
        waits = not pending.attempts and 0 < pending.due - self.now <= self.grace_seconds
        if not waits:
            self._pending_refetches[product_id] = None

    def request_full_sync(self, reason: str) -> None:
        """Request a full sync to follow, since no refetch of a product can replace it."""
        self._follow_up_reason = reason

    def to_change(self, cause: str, *, position: Position | None = None) -> Change:
        return Change(
            cause=cause,
            position=position,
            rows=self._rows,
            tombstones=self._tombstones,
            overrides=self._overrides,
            pending_refetches=self._pending_refetches,
            incarnations=self._incarnations,
            follow_up_reason=self._follow_up_reason,
        )
