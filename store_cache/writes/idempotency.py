"""The key table: what each caller's idempotency key was used for, and what came of it (W1).

Knows: a key's payload (as a fingerprint), the attempt under it, its final answer, when a key may
be forgotten, and the JSON records in which all this lies on disk.
Refuses to know: whether an attempt is on its way just now, files, clocks. `now` is unix seconds.

A final answer is kept packed in some 100 bytes and without its product id, which whoever repeats
the write brings along: 500,000 keys must fit beside a catalogue.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import orjson

from store_cache.model.product import encode_exactly
from store_cache.model.stock import StockAnswer
from store_cache.writes.write import Adjustment, Applied, Refused, Write, WriteError

MAX_KEYS = 500_000

_FINGERPRINT_BYTES = 12
_HEAD = struct.Struct(f">{_FINGERPRINT_BYTES}sBQd")  # fingerprint, attempt, version sent, time


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sending of a write. `number` counts from 1; `version` is the one sent.

    `held_version`, `generation` and `offset` say what the store held of the product, and where
    it stood in the feed, before the attempt was first sent: what the feed may prove starts there.
    `is_unknown`: it may have reached Central.
    """

    key: str
    fingerprint: bytes
    product_id: str
    version: int
    at: float
    number: int = 1
    held_version: int | None = None
    generation: str | None = None
    offset: int | None = None
    is_unknown: bool = False

    def central_key(self, store_id: str) -> str:
        """The key under which Central gets it. Central remembers refusals too, so that each
        further attempt needs one of its own."""
        suffix = f"~{self.number}" if self.number > 1 else ""
        return f"{store_id}-{self.key}{suffix}"


@dataclass(frozen=True, slots=True)
class Final:
    """A key's final answer; `at` is when it was given."""

    fingerprint: bytes
    number: int
    version: int
    at: float
    outcome: Applied | Refused


def fingerprint(asked: Write | Adjustment) -> bytes:
    """What tells one payload from another. An update and an entry of a batch are the same call."""
    version = asked.version if isinstance(asked, Write) else None
    parts = [asked.product_id, asked.delta, version, asked.reason, asked.updated_by]
    encoded = orjson.dumps(parts)
    return hashlib.blake2b(encoded, digest_size=_FINGERPRINT_BYTES).digest()


class KeyTable:
    """One entry per key: an attempt without a final answer, or the final answer.

    A key is forgotten when its entry is older than `retention_seconds`, and for no other reason:
    a full table takes no new key.
    """

    def __init__(self, *, retention_seconds: float, capacity: int = MAX_KEYS) -> None:
        self._retention_seconds = retention_seconds
        self._capacity = capacity
        self._open: dict[str, Attempt] = {}
        self._finals: dict[bytes, bytes] = {}
        self._ages: deque[bytes] = deque()  # keys of `_finals`, oldest first

    def __len__(self) -> int:
        return len(self._open) + len(self._finals)

    def open_attempts(self) -> list[Attempt]:
        """All attempts without a final answer: under way or unknown."""
        return list(self._open.values())

    def open_attempt(self, key: str) -> Attempt | None:
        return self._open.get(key)

    def find(self, key: str, fingerprint: bytes, product_id: str) -> Attempt | Final | None:
        """What is known of a key. Raises WriteError `idempotency_key_reused` where it was used
        for another payload; the error shows nothing of that one."""
        found = self._open.get(key) or self._final(key, product_id)
        if found is not None and found.fingerprint != fingerprint:
            raise WriteError(
                "idempotency_key_reused",
                "This idempotency key was used for another write; give each write its own key",
                details={"idempotencyKey": key},
            )
        return found

    def reserve(self, count: int) -> None:
        """Raises WriteError `storage_unavailable` where that many new keys have no room."""
        if len(self) + count > self._capacity:
            raise WriteError(
                "storage_unavailable",
                f"The store remembers {len(self)} idempotency keys and has no room for more; "
                "the oldest are forgotten after KEY_RETENTION_HOURS. Nothing was sent.",
            )

    def put(self, attempt: Attempt) -> None:
        """The key's entry is this attempt from now on, in the place of any other entry."""
        self._finals.pop(attempt.key.encode(), None)
        self._open.pop(attempt.key, None)  # so that `_open` stays in order of age
        self._open[attempt.key] = attempt

    def drop(self, key: str) -> None:
        """Forget an attempt that certainly never reached Central."""
        self._open.pop(key, None)

    def finish(self, key: str, final: Final) -> None:
        """The key's entry is this final answer until it is old."""
        self._open.pop(key, None)
        encoded = key.encode()
        self._finals.pop(encoded, None)
        self._finals[encoded] = _pack(final)
        self._ages.append(encoded)

    def expire(self, now: float) -> list[Attempt]:
        """Forget what is older than the retention; answers the attempts among it."""
        oldest = now - self._retention_seconds
        while self._ages and not self._is_kept(self._ages[0], oldest):
            self._ages.popleft()
        expired = list(takewhile(lambda attempt: attempt.at < oldest, self._open.values()))
        for attempt in expired:
            del self._open[attempt.key]
        return expired

    def encoded(self) -> Iterator[bytes]:
        """A record of each entry, for a snapshot. The table may change between two of them: an
        entry comes as it is when its turn comes, and new ones are in the journal."""
        keys, finals = tuple(self._open), tuple(self._finals)
        for key in chain(keys, map(bytes.decode, finals)):
            if (attempt := self._open.get(key)) is not None:
                yield encode_attempt(attempt)
            elif (final := self._final(key, "")) is not None:
                yield encode_final(key, final)

    def take(self, records: Iterable[dict[str, Any]]) -> int:
        """Take records from disk in their order, all or a part of them; the last one of a key
        counts. Attempts without a final answer are unknown. Returns how many were no records, and
        left out (D4). The table is of use after `settle`."""
        bad_records = 0
        for record in records:
            try:
                self._load_one(record)
            except (KeyError, TypeError, ValueError, AttributeError, struct.error):
                bad_records += 1
        return bad_records

    def settle(self, now: float) -> None:
        """Forget what is too old, after the last part."""
        self._ages = deque(self._finals)  # a key may have been forgotten and used again
        self.expire(now)

    def _load_one(self, record: dict[str, Any]) -> None:
        if "applied" in record or "refused" in record:
            self.finish(record["key"], _decode_final(record))
        else:
            self.put(_decode_attempt(record))

    def _final(self, key: str, product_id: str) -> Final | None:
        packed = self._finals.get(key.encode())
        return None if packed is None else _unpack(packed, product_id)

    def _is_kept(self, key: bytes, oldest: float) -> bool:
        packed = self._finals.get(key)
        if packed is None:
            return False
        if _HEAD.unpack_from(packed)[3] >= oldest:
            return True
        del self._finals[key]
        return False


def encode_attempt(attempt: Attempt) -> bytes:
    """The record of an attempt that is about to be sent: one JSON object."""
    record = {
        "key": attempt.key,
        "payload": attempt.fingerprint.hex(),
        "attempt": attempt.number,
        "productId": attempt.product_id,
        "version": attempt.version,
        "heldVersion": attempt.held_version,
        "generation": attempt.generation,
        "offset": attempt.offset,
        "at": attempt.at,
    }
    return encode_exactly(record)


def encode_final(key: str, final: Final) -> bytes:
    """The record of a final answer: one JSON object, with `applied` or `refused`."""
    kind = "applied" if isinstance(final.outcome, Applied) else "refused"
    record = {
        "key": key,
        "payload": final.fingerprint.hex(),
        "attempt": final.number,
        "version": final.version,
        "at": final.at,
        kind: _flat(final.outcome),
    }
    return encode_exactly(record)


def _decode_attempt(record: dict[str, Any]) -> Attempt:
    return Attempt(
        key=record["key"],
        fingerprint=bytes.fromhex(record["payload"]),
        product_id=record["productId"],
        version=record["version"],
        at=record["at"],
        number=record["attempt"],
        held_version=record["heldVersion"],
        generation=record["generation"],
        offset=record["offset"],
        is_unknown=True,
    )


def _decode_final(record: dict[str, Any]) -> Final:
    flat = record["applied"] if "applied" in record else record["refused"]
    return Final(
        bytes.fromhex(record["payload"]),
        record["attempt"],
        record["version"],
        record["at"],
        _outcome(flat, "", record["version"]),
    )


def _pack(final: Final) -> bytes:
    head = _HEAD.pack(final.fingerprint, final.number, final.version, final.at)
    return head + orjson.dumps(_flat(final.outcome))


def _unpack(packed: bytes, product_id: str) -> Final:
    fingerprint, number, version, at = _HEAD.unpack_from(packed)
    outcome = _outcome(orjson.loads(packed[_HEAD.size :]), product_id, version)
    return Final(fingerprint, number, version, at, outcome)


def _flat(outcome: Applied | Refused) -> dict[str, Any]:
    """Without what the head of the entry and the repeated write know already."""
    if isinstance(outcome, Applied):
        stock = outcome.stock
        return {"newQuantity": stock.new_quantity, "lastUpdated": stock.last_updated}
    return {
        "errorType": outcome.error_type,
        "errorMessage": outcome.message,
        "newQuantity": outcome.new_quantity,
        "newVersion": outcome.new_version,
    }


def _outcome(flat: dict[str, Any], product_id: str, version: int) -> Applied | Refused:
    quantity = flat["newQuantity"]
    if "lastUpdated" in flat:
        stock = StockAnswer(product_id, version, version + 1, quantity, flat["lastUpdated"])
        return Applied(stock)
    return Refused(flat["errorType"], flat["errorMessage"], quantity, flat["newVersion"])
