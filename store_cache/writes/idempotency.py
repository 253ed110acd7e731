"""The key table: what each idempotency key was used for, and its final answer (W1).

An entry is an attempt or a final answer, with a fingerprint of the payload. On disk each is a JSON
record. `now` is unix seconds.

500,000 keys must fit beside a catalogue and load in a second or two. So a final answer is one bytes
object, without the product id, which a repeat names:

    fingerprint (12 bytes), attempt (1), time (8), client's number (2), minutes (2), then one of
    [version, newQuantity, lastUpdated]
    [version, errorType, errorMessage, newQuantity, newVersion]
    [version, isApplied, by, reason, newQuantity, newVersion]       settled by a person
"""

from __future__ import annotations

import hashlib
import struct
from binascii import hexlify, unhexlify
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from itertools import chain, islice, takewhile
from math import inf
from operator import itemgetter
from typing import Any

import orjson

from store_cache.model.product import encode_exactly
from store_cache.model.stock import StockAnswer
from store_cache.writes.write import (
    Applied,
    FinalOutcome,
    Refused,
    SettledByPerson,
    Write,
    WriteError,
    WriteRequest,
)

MAX_KEYS = 500_000

REFUSAL_SECONDS = 600.0
"""How long a refusal is remembered, at least. It changed nothing, so a later repeat may be judged
anew; until then tills that repeat without an answer get the same one."""

SWEEP_SECONDS = 10.0
"""How much longer it may be remembered."""

CROWDED = 4 / 5
"""From this part of the capacity on, the oldest refusals are forgotten early, and a client that has
more than an equal share gets no further key, so that none can take all of the room."""

FORGOTTEN_AT_ONCE = 1 / 100
"""The part of the capacity that is made free together."""

LONGEST_RETRY_SECONDS = 3600.0

_FINGERPRINT_BYTES = 12
_HEAD = struct.Struct(f">{_FINGERPRINT_BYTES}sBdHH")
_CLIENT = slice(_HEAD.size - 4, _HEAD.size - 2)  # the client's number in the head
_LARGEST_NUMBER = 0xFFFF
_APPLIED = ("newQuantity", "lastUpdated")
_REFUSED = ("errorType", "errorMessage", "newQuantity", "newVersion")
_SETTLED = ("isApplied", "by", "reason", "newQuantity", "newVersion")
_KINDS = {
    len(_APPLIED): (b"applied", _APPLIED),
    len(_REFUSED): (b"refused", _REFUSED),
    len(_SETTLED): (b"settled", _SETTLED),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to have a write applied. `number` counts from 1; `version` is the one sent.

    `held_version`, `generation` and `offset` are the product's version in the cache and the
    position in the feed before the attempt was first sent: what the feed proves of it starts there.
    `is_unknown`: the attempt may have reached Central. `client` is the name of the API key that
    sent the write first; empty if that is not known.
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
    client: str = ""

    @property
    def used_at(self) -> float:
        """When the key was used first, within the deadline of a write."""
        return self.at

    def central_key(self, store_id: str) -> str:
        """Return the key for Central. Central remembers refusals too, so that each further attempt
        needs a key of its own."""
        suffix = f"~{self.number}" if self.number > 1 else ""
        return f"{store_id}-{self.key}{suffix}"


@dataclass(frozen=True, slots=True)
class Final:
    """A key's final answer; `at` is when it was given, `minutes` after its attempt. `version` is
    the one sent: an applied write made it version + 1. `client` is that of the attempt."""

    fingerprint: bytes
    number: int
    version: int
    at: float
    outcome: FinalOutcome
    client: str = ""
    minutes: int = 0

    @property
    def used_at(self) -> float:
        """When the key was used first, to the minute."""
        return self.at - 60.0 * self.minutes


def final_answer(attempt: Attempt, outcome: FinalOutcome, now: float) -> Final:
    """Return the final answer to an attempt."""
    minutes = min(max(0, round((now - attempt.at) / 60.0)), _LARGEST_NUMBER)
    return Final(
        attempt.fingerprint,
        attempt.number,
        attempt.version,
        now,
        outcome,
        client=attempt.client,
        minutes=minutes,
    )


class ClientNames:
    """Numbers for the names of clients, so that a remembered key has two bytes for its client.

    0 stands for a client that is not known, and for all beyond the 65,535th.
    """

    def __init__(self) -> None:
        self._names = [""]
        self._members = [b""]
        self._numbers = {"": 0}

    def number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            if len(self._names) > _LARGEST_NUMBER:
                return 0
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
            self._members.append(b',"client":' + orjson.dumps(name))
        return number

    def name(self, number: int) -> str:
        return self._names[number]

    def member(self, number: int) -> bytes:
        """Return the member of a record that names the client, behind others; none for 0."""
        return self._members[number]


def fingerprint(request: WriteRequest) -> bytes:
    """Return what identifies a payload. It is the same for an update alone and in a batch."""
    version = request.version if isinstance(request, Write) else None
    parts = [request.product_id, request.delta, version, request.reason, request.updated_by]
    if isinstance(request, Write) and request.rebases:
        parts.append(True)
    return hashlib.blake2b(orjson.dumps(parts), digest_size=_FINGERPRINT_BYTES).digest()


def key_reused(key: str, *, client: str, used_at: float) -> WriteError:
    """Return the error of a key that this client used for another payload before."""
    moment = datetime.fromtimestamp(used_at, UTC).isoformat(timespec="seconds")
    moment = moment.replace("+00:00", "Z")
    return WriteError(
        "idempotency_key_reused",
        f"This idempotency key was used for another write, first at {moment} by "
        f"{f'the client {client}' if client else 'a client that is not known any more'}; "
        "give each write its own key",
        details={"idempotencyKey": key, "firstUsedAt": moment, "firstUsedBy": client or None},
    )


class StoredKeys:
    """The entries on disk, while they are being loaded for `KeyTable.add_stored`; `clients` is the
    table's."""

    def __init__(self, clients: ClientNames) -> None:
        self._clients = clients
        self.open: dict[str, Attempt] = {}
        self.applied: dict[bytes, bytes] = {}  # and what a person has settled
        self.refused: dict[bytes, bytes] = {}
        self.outbox: dict[str, bytes] = {}

    def load(self, records: bytes) -> int:
        """Load records, one on each line, in their order; the last one of a key counts. Attempts
        without a final answer are unknown.

        Returns how many records could not be read; they are left out (D4).
        """
        applied, refused, unreadable = self.applied, self.refused, 0
        opened, number_of, pack, dumps = self.open, self._clients.number, _HEAD.pack, orjson.dumps
        fields: tuple[Any, ...] | None
        for record in _parse(records):
            try:
                if (outcome := record.get("applied")) is not None:  # nearly always
                    fields = record["version"], outcome["newQuantity"], outcome["lastUpdated"]
                elif "outbox" in record:
                    self.drop(record["key"])
                    self.outbox[record["key"]] = encode_exactly(record)
                    continue
                elif (fields := _other_fields(record)) is None:
                    attempt = _decode_attempt(record)
                    self.drop(attempt.key)
                    opened[attempt.key] = attempt
                    continue
                key = record["key"].encode()
                head = pack(
                    unhexlify(record["payload"]),
                    record["attempt"],
                    record["at"],
                    number_of(record.get("client", "")),
                    record.get("minutes", 0),
                )
                packed = head + dumps(fields)
                if opened:
                    opened.pop(record["key"], None)
                if self.outbox:
                    self.outbox.pop(record["key"], None)
                if refused:
                    refused.pop(key, None)
                if "refused" in record:
                    applied.pop(key, None)
                    refused[key] = packed
                    continue
                count = len(applied)
                applied[key] = packed
                if len(applied) == count:  # so that entries stay in order of age
                    applied[key] = applied.pop(key)
            except (KeyError, TypeError, ValueError, AttributeError, struct.error):
                unreadable += 1
        return unreadable

    def drop(self, key: str) -> None:
        encoded = key.encode()
        self.open.pop(key, None)
        self.outbox.pop(key, None)
        self.applied.pop(encoded, None)
        self.refused.pop(encoded, None)


class _Answers:
    """Packed final answers by key, in the order in which they were given."""

    def __init__(self, entries: dict[bytes, bytes]) -> None:
        self.entries = entries
        self._oldest_at = -inf  # no answer was given before

    @property
    def oldest_at(self) -> float | None:
        """When the oldest answer was given."""
        first = next(iter(self.entries.values()), None)
        return None if first is None else _given_at(first)

    def expire(self, before: float, *, slack_seconds: float = 0.0) -> list[bytes]:
        """Remove what was given before; return it. It may stay for `slack_seconds`: a dict passes
        over all that was removed from its beginning, so it is not removed one by one."""
        if self._oldest_at + slack_seconds >= before:
            return []
        expired = takewhile(lambda item: _given_at(item[1]) < before, self.entries.items())
        removed = self._remove([key for key, _ in expired])
        oldest_at = self.oldest_at
        self._oldest_at = before if oldest_at is None else oldest_at
        return removed

    def remove_oldest(self, count: int) -> list[bytes]:
        return self._remove([*islice(self.entries, count)])

    def _remove(self, keys: list[bytes]) -> list[bytes]:
        return [self.entries.pop(key) for key in keys]


@dataclass(frozen=True, slots=True)
class KeyRoom:
    """How full the table is: `held` entries that are not refusals, of `capacity`. `largest`: the
    client that holds most of them, `largest_held` of them."""

    held: int
    capacity: int
    is_crowded: bool
    largest: str
    largest_held: int


class KeyTable:
    """One entry per key: an attempt without a final answer, or the final answer.

    A key is forgotten when its entry is older than `retention_seconds`; a refusal after
    `REFUSAL_SECONDS`, or when the table is crowded. Nothing else is forgotten to make room: a full
    table takes no new key. `since`: when the table began, in unix seconds; None if that was before
    the retention or is not known. `outbox`: the records of the outbox by key, which decides itself
    how long they are kept.
    """

    def __init__(self, *, retention_seconds: float, capacity: int = MAX_KEYS) -> None:
        self.since: float | None = None
        self.clients = ClientNames()
        self.outbox: dict[str, bytes] = {}
        self._retention_seconds = retention_seconds
        self._refusal_seconds = min(retention_seconds, REFUSAL_SECONDS)
        self._capacity = capacity
        self._open: dict[str, Attempt] = {}
        self._applied = _Answers({})  # and what a person has settled, which lasts as long
        self._refused = _Answers({})
        self._held: Counter[int] = Counter()  # by client: attempts and applied writes

    def __len__(self) -> int:
        finals = len(self._applied.entries) + len(self._refused.entries)
        return len(self._open) + len(self.outbox) + finals

    def room(self) -> KeyRoom:
        held = len(self) - len(self._refused.entries)
        [(number, count)] = self._held.most_common(1) or [(0, 0)]
        return KeyRoom(
            held,
            self._capacity,
            is_crowded=held >= self._capacity * CROWDED,
            largest=self.clients.name(number),
            largest_held=count,
        )

    def __contains__(self, key: str) -> bool:
        return key in self._open or key in self.outbox or self._packed(key) is not None

    def open_attempts(self) -> list[Attempt]:
        """Return all attempts without a final answer: under way or unknown."""
        return list(self._open.values())

    def open_attempt(self, key: str) -> Attempt | None:
        return self._open.get(key)

    def find(self, request: WriteRequest) -> Attempt | Final | None:
        """Return the entry of a request's key.

        Raises WriteError `idempotency_key_reused` if the key was used for another payload; the
        error says who used it when, and shows nothing of that payload.
        """
        found = self._open.get(request.key) or self._final(request.key, request.product_id)
        if found is not None and found.fingerprint != fingerprint(request):
            raise key_reused(request.key, client=found.client, used_at=found.used_at)
        return found

    def reserve(self, count: int, *, client: str, waiting: int, now: float) -> None:
        """Make sure that there is room for `count` new keys of a client, beside `waiting` ones.

        If the table is crowded, the oldest refusals are forgotten. Raises WriteError
        `storage_unavailable` if that does not suffice: if the table is full, or the client holds an
        equal share already and the rest is for others.
        """
        if not count:
            return  # a repeat of what is unknown has its entry
        wanted = len(self) + waiting + count
        excess = wanted - int(self._capacity * CROWDED)
        if excess > 0 and self._refused.entries:
            excess = max(excess, int(self._capacity * FORGOTTEN_AT_ONCE))
            wanted -= len(self._refused.remove_oldest(excess))
        if wanted <= self._capacity * CROWDED:
            return
        held = self._held[self.clients.number(client)]
        share = self._capacity // (len(+self._held) + 1)
        if wanted > self._capacity:
            raise self._no_room(f"The store remembers {len(self)} idempotency keys", now)
        if held + count > share:
            reason = f"The store remembers {held} idempotency keys of {client or 'this client'}"
            raise self._no_room(reason, now)

    def _no_room(self, reason: str, now: float) -> WriteError:
        oldest_at = self._applied.oldest_at
        seconds = LONGEST_RETRY_SECONDS
        if oldest_at is not None:
            seconds = min(max(1.0, oldest_at + self._retention_seconds - now), seconds)
        return WriteError(
            "storage_unavailable",
            f"{reason} and has no room for more; the oldest are forgotten after "
            "KEY_RETENTION_HOURS. Nothing was sent.",
            retry_after_seconds=seconds,
        )

    def remembers_all(self, now: float) -> bool:
        """Return whether no key of a write that Central may have applied within the retention can
        be missing."""
        return self.since is None or self.since <= now - self._retention_seconds

    def put(self, attempt: Attempt) -> None:
        """Make this attempt the entry of its key, in place of any other."""
        self._drop_final(attempt.key)
        self.drop(attempt.key)  # so that `_open` stays in order of age
        self._open[attempt.key] = attempt
        self._held[self.clients.number(attempt.client)] += 1

    def drop(self, key: str) -> None:
        """Forget an attempt, such as one that certainly did not reach Central."""
        if (attempt := self._open.pop(key, None)) is not None:
            self._held[self.clients.number(attempt.client)] -= 1

    def put_outbox(self, key: str, record: bytes) -> None:
        """Make this record of the outbox the entry of its key, in place of any other."""
        self.drop(key)
        self._drop_final(key)
        self.outbox[key] = record

    def drop_outbox(self, key: str) -> None:
        self.outbox.pop(key, None)

    def finish(self, key: str, final: Final) -> None:
        """Make this final answer the entry of its key, in place of any other."""
        self.drop(key)
        self._drop_final(key)
        packed = _pack(final, self.clients)
        if not isinstance(final.outcome, Refused):
            self._applied.entries[key.encode()] = packed
            self._held[_client_of(packed)] += 1
        else:
            self._refused.entries[key.encode()] = packed

    def expire(self, now: float) -> list[Attempt]:
        """Forget entries older than the retention; return the attempts among them."""
        oldest = now - self._retention_seconds
        self._held.subtract(map(_client_of, self._applied.expire(oldest)))
        self._refused.expire(now - self._refusal_seconds, slack_seconds=SWEEP_SECONDS)
        expired = list(takewhile(lambda attempt: attempt.at < oldest, self._open.values()))
        for attempt in expired:
            self.drop(attempt.key)
        return expired

    def encoded(self) -> Iterator[bytes]:
        """Yield a record of each entry, for a snapshot.

        The table may change meanwhile: what was not there when the first record was asked for is
        in the journal.
        """
        open_keys = (*self._open, *self.outbox)
        finals = [(list(each), list(each.values())) for each in self._finals()]
        for key in open_keys:
            if (attempt := self._open.get(key)) is not None:
                yield encode_attempt(attempt)
            elif (record := self.outbox.get(key)) is not None:
                yield record
            elif (packed := self._packed(key)) is not None:
                yield from _encode_finals([(key.encode(), packed)], self.clients)
        for keys, entries in finals:  # not their items: half a million tuples
            yield from _encode_finals(zip(keys, entries, strict=True), self.clients)

    def _finals(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        return self._applied.entries, self._refused.entries

    def add_stored(self, stored: StoredKeys, now: float) -> None:
        """Take entries from disk for keys that have none here, and forget what is too old.

        An entry here is the newer one: a directory that appears late holds what earlier processes
        wrote. `stored` must not be used any more.
        """
        finals = chain(self._applied.entries, self._refused.entries)
        for key in chain(self._open, self.outbox, map(bytes.decode, finals)):
            stored.drop(key)
        stored.applied.update(self._applied.entries)
        stored.refused.update(self._refused.entries)
        stored.open.update(self._open)
        stored.outbox.update(self.outbox)
        self.outbox = stored.outbox
        self._open = stored.open
        self._applied, self._refused = _Answers(stored.applied), _Answers(stored.refused)
        self._held = _count_clients(stored.applied.values())
        self._held.update(self.clients.number(attempt.client) for attempt in stored.open.values())
        self.expire(now)

    def _packed(self, key: str) -> bytes | None:
        encoded = key.encode()
        return self._applied.entries.get(encoded) or self._refused.entries.get(encoded)

    def _final(self, key: str, product_id: str) -> Final | None:
        packed = self._packed(key)
        return None if packed is None else _unpack(packed, product_id, self.clients)

    def _drop_final(self, key: str) -> None:
        encoded = key.encode()
        self._refused.entries.pop(encoded, None)
        if (packed := self._applied.entries.pop(encoded, None)) is not None:
            self._held[_client_of(packed)] -= 1


def encode_attempt(attempt: Attempt) -> bytes:
    """Return the record of an attempt: one JSON object."""
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
    if attempt.client:
        record["client"] = attempt.client
    return encode_exactly(record)


def encode_final(key: str, final: Final) -> bytes:
    """Return the record of a final answer: one JSON object, with `applied`, `refused` or, if a
    person has settled the write, `settled`."""
    clients = ClientNames()
    [record] = _encode_finals([(key.encode(), _pack(final, clients))], clients)
    return record


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
        client=record.get("client", ""),
    )


def _parse(records: bytes) -> list[Any]:
    """Return the values of lines of JSON: None for one that cannot be read.

    All at once, which takes a third of the time.
    """
    try:
        return list(orjson.loads(b"[" + records.replace(b"\n", b",") + b"]"))
    except orjson.JSONDecodeError:
        return [_parse_line(line) for line in records.split(b"\n")]


def _parse_line(line: bytes) -> Any:
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(line)
    return None


def _given_at(packed: bytes) -> float:
    at: float = _HEAD.unpack_from(packed)[2]
    return at


def _client_of(packed: bytes) -> int:
    """Return the number of the client."""
    return int.from_bytes(packed[_CLIENT])


def _count_clients(entries: Iterable[bytes]) -> Counter[int]:
    counts = Counter(map(itemgetter(_CLIENT), entries))
    return Counter({int.from_bytes(number): count for number, count in counts.items()})


def _pack(final: Final, clients: ClientNames) -> bytes:
    outcome = final.outcome
    if isinstance(outcome, Applied):
        fields: tuple[Any, ...] = (outcome.stock.new_quantity, outcome.stock.last_updated)
    else:  # in the order of `_REFUSED` or `_SETTLED`
        fields = astuple(outcome)
    client = clients.number(final.client)
    head = _HEAD.pack(final.fingerprint, final.number, final.at, client, final.minutes)
    return head + orjson.dumps((final.version, *fields))


def _unpack(packed: bytes, product_id: str, clients: ClientNames) -> Final:
    fingerprint, number, at, client, minutes = _HEAD.unpack_from(packed)
    version, *fields = orjson.loads(packed[_HEAD.size :])
    outcome: FinalOutcome
    if len(fields) == len(_APPLIED):
        outcome = Applied(StockAnswer(product_id, version, version + 1, *fields))
    elif len(fields) == len(_SETTLED):
        outcome = SettledByPerson(*fields)
    else:
        outcome = Refused(*fields)
    return Final(fingerprint, number, version, at, outcome, clients.name(client), minutes)


def _encode_finals(finals: Iterable[tuple[bytes, bytes]], clients: ClientNames) -> Iterator[bytes]:
    """Yield the records of packed final answers, each with its key.

    Half a million are encoded at a start. So the fields of an applied write, which nearly all are,
    stay the JSON that they are.
    """
    size, unpack_from, dumps, member = _HEAD.size, _HEAD.unpack_from, orjson.dumps, clients.member
    for key, packed in finals:
        fingerprint, number, at, client, minutes = unpack_from(packed)
        version, _, rest = packed[size + 1 : -1].partition(b",")
        if rest[:1].isdigit():  # no other outcome has a number in this place
            outcome = b'"applied":{"newQuantity":%b,"lastUpdated":%b}' % tuple(rest.split(b",", 1))
        else:
            fields = orjson.loads(packed[size:])[1:]
            kind, names = _KINDS[len(fields)]
            outcome = b'"%b":%b' % (kind, dumps(dict(zip(names, fields, strict=True))))
        yield b'{"key":%b,"payload":"%b","attempt":%d,"version":%b,"at":%b%b%b,%b}' % (
            dumps(key.decode()),
            hexlify(fingerprint),
            number,
            version,
            dumps(at),
            member(client),
            b',"minutes":%d' % minutes if minutes else b"",
            outcome,
        )


def _other_fields(record: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return what is packed of the record of a write that Central has not applied, or a person has
    settled; None for an attempt."""
    for kind, names in (("refused", _REFUSED), ("settled", _SETTLED)):
        if (fields := record.get(kind)) is not None:
            return record["version"], *[fields[name] for name in names]
    return None
