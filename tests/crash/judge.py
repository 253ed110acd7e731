"""What must hold between the victims of one folder, by everything that they reported.

at a start      nothing is damaged, the disk has no problem; the state is the one seen last, or
                a later one; no version has gone back; each final answer is still known
while it runs   versions, position and sequence only grow; a write that was answered is visible
at the end      the visible state is Central's; each write that was answered as applied was
                applied exactly once, a refused write never, any write at most once; a write
                that is still unknown was not applied, since a repeat of it would have found
                that; what was not on disk was not sent
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.crash.busy_central import PASSING
from tests.crash.reports import Record
from tests.crash.victim import STORE_ID, Asked


class DataLost(AssertionError):
    """Something that was acknowledged is missing or different."""


class Judge:
    def __init__(self) -> None:
        self.unsettled: dict[str, Asked] = {}
        """Writes without a final answer yet."""
        self.answers: dict[str, Record] = {}
        self.never_kept: set[str] = set()
        """Keys that a start did not find: none of them may have been sent."""
        self.starts = 0
        self.states = 0
        self._rows: dict[str, Record] = {}
        self._sequence = 0
        self._generation = ""
        self._offset = 0

    @property
    def rows(self) -> dict[str, Record]:
        """What readers see, by the last report."""
        return self._rows

    def take(self, record: Record) -> None:
        match record["kind"]:
            case "started":
                self._take_start(record)
            case "seen":
                self._take_seen(record)
            case "asks":
                asked = record["asked"]
                self.unsettled[asked["key"]] = asked
            case "answered":
                self._take_answer(record)

    # -- starts ----------------------------------------------------------------------------

    def _take_start(self, record: Record) -> None:
        self.starts += 1
        _demand(not record["damaged"] and not record["problem"], "a start found damage", record)
        self._check_order(record)
        if record["sequence"] == self._sequence:
            _demand(record["rows"] == self._rows, "the state is not the one seen last", record)
        self._check_versions(record["rows"])
        self._note(record, record["rows"])
        self._check_keys(record["keys"])

    def _check_keys(self, kept: dict[str, Record]) -> None:
        for key, answer in self.answers.items():
            _demand(key in kept, f"the final answer of {key} is forgotten", answer)
            _demand(_is_same(kept[key], answer), f"{key} has another answer: {kept[key]}", answer)
        for key in [key for key in self.unsettled if key not in kept]:
            self.never_kept.add(key)
            del self.unsettled[key]

    # -- while they run --------------------------------------------------------------------

    def _take_seen(self, record: Record) -> None:
        self.states += 1
        self._check_order(record)
        changed: dict[str, Record | None] = record["rows"]
        rows = self._rows | {i: row for i, row in changed.items() if row is not None}
        rows = {i: row for i, row in rows.items() if changed.get(i, row) is not None}
        self._check_versions(rows)
        self._note(record, rows)

    def _check_order(self, record: Record) -> None:
        _demand(record["sequence"] >= self._sequence, "an older state is shown", record)
        if record.get("generation") == self._generation:
            _demand(record["offset"] >= self._offset, "the position went back", record)

    def _check_versions(self, rows: dict[str, Record]) -> None:
        for product_id, row in self._rows.items():
            if product_id not in PASSING:
                now = rows.get(product_id, {"version": 0})
                _demand(now["version"] >= row["version"], f"{row} went back to", now)

    def _note(self, record: Record, rows: dict[str, Record]) -> None:
        self._rows = rows
        self._sequence = record["sequence"]
        self._generation = record.get("generation", "")
        self._offset = record.get("offset", 0)

    def _take_answer(self, record: Record) -> None:
        key, body = record["key"], record["body"]
        if body["applied"]:
            _demand(record["shown"] >= body["newVersion"], "an answer is not shown", record)
        earlier = self.answers.setdefault(key, body)
        _demand(earlier == body, f"{key} was answered otherwise before: {earlier}", body)
        self.unsettled.pop(key, None)

    # -- the end ---------------------------------------------------------------------------

    def conclude(self, central: dict[str, Any]) -> None:
        """`central` is Central's whole state, once nothing is under way."""
        expected = {row["productId"]: row for row in central["products"]}
        _demand(expected == self._rows, "what is shown is not Central's state", self._rows)
        applied = applied_keys(central["events"], STORE_ID)
        for key, answer in self.answers.items():
            _demand(applied[key] == answer["applied"], f"{key} was applied {applied[key]}x", answer)
        for key, times in applied.items():
            _demand(times == 1, f"{key} was applied {times} times", {})
        for key in self.unsettled:
            _demand(not applied[key], f"{key} was applied, and its repeats do not say so", {})
        for key in self.never_kept:
            _demand(not applied[key], f"{key} was sent before it was on disk", {})


def applied_keys(events: list[Record], store_id: str) -> Counter[str]:
    """Return how often each key of a store's tills was applied, all attempts of a key together, by
    the events that name it."""
    return Counter(
        event["idempotencyKey"].removeprefix(f"{store_id}-").partition("~")[0]
        for event in events
        if event.get("storeId") == store_id
    )


def _is_same(kept: Record, answer: Record) -> bool:
    if answer["applied"]:
        found = kept.get("applied", {}).get("newQuantity"), kept["version"] + 1
        return found == (answer["newQuantity"], answer["newVersion"])
    return bool(kept.get("refused", {}).get("errorType") == answer["errorType"])


def _demand(holds: bool, what: str, record: Any) -> None:
    if not holds:
        raise DataLost(f"{what}: {str(record)[:2000]}")
