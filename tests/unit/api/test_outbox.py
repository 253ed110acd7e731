"""The routes of the outbox, and what reads and streams show of it (O10)."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from store_cache.api.content.status import outbox_problem
from store_cache.writes.idempotency import Attempt
from store_cache.writes.outbox import transitions
from store_cache.writes.outbox.entry import Entry, Result
from store_cache.writes.write import Adjustment, Unknown
from tests.harness.fake_store import MOMENT_SECONDS, FakeStore, product
from tests.harness.http import Reply
from tests.harness.streams import StreamClient
from tests.unit.api.conftest import Opened, Store

OUTBOX = "/v1/store/outbox"
OFFICE = {"X-API-Key": "office-secret"}


async def queued(store: Store, key: str = "sale", delta: int = -2) -> Entry:
    """Have the store queue a sale of PROD-001."""
    outbox = store.fake.outbox
    await outbox.queue([(Adjustment("PROD-001", delta, key, client="till-3"), 1)], "away")
    return entry_of(store, key)


async def parked(store: Store) -> Entry:
    entry = transitions.parked(
        await queued(store), "insufficient_inventory", "only 1 left", MOMENT_SECONDS
    )
    await store.fake.outbox.record(entry)
    return entry


async def in_doubt(store: Store) -> Entry:
    entry = await queued(store)
    attempt = Attempt("sale", entry.fingerprint, "PROD-001", 6, MOMENT_SECONDS)
    sent = transitions.sending(entry, attempt, MOMENT_SECONDS)
    doubtful = transitions.concluded(sent, Unknown("silence"), MOMENT_SECONDS)
    await store.fake.outbox.record(doubtful)
    return doubtful


def entry_of(store: Store, key: str) -> Entry:
    entry = store.fake.outbox.get(key)
    assert entry is not None
    return entry


async def decide(store: Store, method: str, path: str, **body: str) -> Reply:
    return await store.post(f"{OUTBOX}/{path}", body, headers=OFFICE, method=method)


async def test_entries_are_listed(store: Store) -> None:
    """[O10] Those without an outcome, in the order of their ids, and how many there are."""
    entries = [await queued(store, f"sale-{number}") for number in range(3)]
    listed = (await store.get(OUTBOX)).json
    first = listed["entries"][0]

    ids = sorted(entry.id for entry in entries)
    assert ids == [one["outboxId"] for one in listed["entries"]]
    assert {"queued": 3, "sending": 0, "inDoubt": 0, "parked": 0} == listed["counts"]
    assert ("queued", "PROD-001", -2, "till-3", None) == (
        first["state"],
        first["productId"],
        first["delta"],
        first["client"],
        first["version"],
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=2", 2),
        ("state=parked", 0),
        ("state=queued", 3),
        ("state=discarded", 0),
        ("idempotencyKey=sale-1", 1),
        ("idempotencyKey=sale-1&state=parked", 0),
        ("idempotencyKey=nothing", 0),
        ("after=7ZZZZZZZZZZZZZZZZZZZZZZZZZ", 0),
    ],
)
async def test_a_part_of_the_list(store: Store, query: str, expected: int) -> None:
    """[O10] By state, by key, or a page of it."""
    for number in range(3):
        await queued(store, f"sale-{number}")
    listed = (await store.get(f"{OUTBOX}?{query}")).json

    assert expected == len(listed["entries"])


async def test_one_entry(store: Store) -> None:
    """[O10] By its id, as `Location` names it."""
    entry = await queued(store)
    shown = (await store.get(f"{OUTBOX}/{entry.id}")).json

    assert (entry.id, "sale") == (shown["outboxId"], shown["idempotencyKey"])


@pytest.mark.parametrize("by", ["id", "key"])
async def test_an_entry_that_is_being_settled_is_shown_once_it_is_durable(
    by: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[O10] [D2] [W6] A till that reads here that its sale is applied finds the stock that it made,
    and both after a crash."""
    entry = await queued(store)
    may_settle, settle_write = asyncio.Event(), store.fake.settle_write

    async def slowly(*args: Any, **options: Any) -> None:
        await may_settle.wait()
        await settle_write(*args, **options)

    monkeypatch.setattr(store.fake, "settle_write", slowly)
    applied = transitions.applied(entry, Result(3, 7), MOMENT_SECONDS)
    settling = asyncio.create_task(store.fake.outbox.settle(applied, None))
    path = f"{OUTBOX}/{entry.id}" if by == "id" else f"{OUTBOX}?idempotencyKey=sale"
    asking = asyncio.create_task(store.get(path))
    done, _ = await asyncio.wait([asking], timeout=0.1)
    assert not done
    may_settle.set()
    await settling
    shown = (await asking).json

    assert "applied" == (shown if by == "id" else shown["entries"][0])["state"]


async def test_a_parked_entry_is_retried(store: Store) -> None:
    """[O10] The step is shown, with the name of the key that was used."""
    entry = await parked(store)
    shown = (await decide(store, "POST", f"{entry.id}/retry", reason="booked in")).json

    assert "queued" == shown["state"]
    assert ["retried", "admin-key-1", "booked in"] == [
        shown["steps"][0][name] for name in ("action", "by", "reason")
    ]


async def test_a_parked_entry_is_discarded(store: Store) -> None:
    """[O10] Nothing of it is pending any more; settled entries can still be asked for."""
    entry = await parked(store)
    reply = await decide(store, "DELETE", entry.id, reason="entered twice")
    listed = (await store.get(f"{OUTBOX}?state=discarded")).json

    assert (200, "discarded") == (reply.status, reply.json["state"])
    assert [entry.id] == [one["outboxId"] for one in listed["entries"]]
    assert not store.fake.outbox.pending


@pytest.mark.parametrize(
    ("outcome", "state"), [("applied", "applied"), ("not_applied", "discarded")]
)
async def test_a_doubt_is_settled(store: Store, outcome: str, state: str) -> None:
    """[O4] As a person says."""
    entry = await in_doubt(store)
    shown = (await decide(store, "POST", f"{entry.id}/settle", outcome=outcome, reason="seen")).json

    assert state == shown["state"]
    assert {"newQuantity": 10, "newVersion": 6} == shown["result"]


async def test_what_is_not_in_doubt_is_not_settled(store: Store) -> None:
    """[O4] It is retried or discarded."""
    entry = await parked(store)
    reply = await decide(store, "POST", f"{entry.id}/settle", outcome="applied", reason="?")

    assert (409, "write_not_in_doubt") == (reply.status, reply.json["error"]["code"])


async def test_what_is_under_way_is_left_alone(store: Store) -> None:
    """[O4] Its own outcome comes first."""
    entry = await parked(store)
    store.fake.outbox.busy.add(entry.key)
    for method, path, body in (
        ("POST", "/retry", {}),
        ("POST", "/settle", {"outcome": "applied"}),
        ("DELETE", "", {}),
    ):
        reply = await decide(store, method, f"{entry.id}{path}", **body, reason="?")
        assert (409, "write_under_way") == (reply.status, reply.json["error"]["code"])


INVENTORY = "/v1/store/inventory"


async def read_in(store: Store, what: str) -> Reply:
    if what == "lookup":
        return await store.post(f"{INVENTORY}/lookup", {"productIds": ["PROD-001"]})
    targets = {"product": "/PROD-001", "page": "?limit=1", "search": "?search=name"}
    return await store.get(INVENTORY + targets[what])


@pytest.mark.parametrize("fast_reads", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("read", ["product", "page", "search", "lookup"])
async def test_reads_show_what_is_pending(
    open_store: Opened, read: str, *, fast_reads: bool
) -> None:
    """[O10] The tag covers it, and it is gone once the entry is settled."""
    store = await open_store(FakeStore([product("PROD-001")]), fast_reads=fast_reads)
    before = await read_in(store, read)
    entry = await queued(store, delta=-12)
    reply = await read_in(store, read)
    row = reply.json if read == "product" else reply.json["products"][0]

    assert (10, -12, -2, True) == (
        row["available"],
        row["pendingDelta"],
        row["expectedAvailable"],
        row["oversold"],
    )
    assert before.headers["ETag"] != reply.headers["ETag"]
    await store.fake.outbox.discard(entry.id, by="office", reason="?")
    assert before.json == (await read_in(store, read)).json


async def test_a_stream_tells_what_is_pending_and_each_outcome(store: Store) -> None:
    """[O10] `write` with the new state, and the product as reads show it."""
    await queued(store, "before")
    client = await StreamClient.open(store.running.port, "?from=start")
    await client.until_named("ready")
    begun = orjson.loads(client.shelf.rows["PROD-001"])
    entry = await queued(store)
    told = (await client.until_named("write")).value
    await client.until_named("product")

    assert -2 == begun["pendingDelta"]
    assert {
        "outboxId": entry.id,
        "idempotencyKey": "sale",
        "state": "queued",
        "productId": "PROD-001",
    } == told
    client.close()


async def test_each_problem_of_the_outbox_is_named(store: Store) -> None:
    """[O9] What is parked does not hide that entries may be missing."""
    await parked(store)
    store.fake.outbox.may_lack = "files were damaged"
    problem = outbox_problem(store.fake.outbox.status())

    assert "1 queued writes are parked" in problem
    assert "files were damaged" in problem
