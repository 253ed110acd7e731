"""The situations in which answers of the store are recorded, each a script in virtual time.

A file of `answers/` has the answer to each call, by the name that this module gives to the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

from store_cache.api.search.indexer import Indexer
from store_cache.writes.idempotency import KeyTable
from tests.golden.central import (
    EVENTS,
    FAILS,
    NO_CATALOGUE,
    PAGES,
    REFUSES_KEY,
    UPDATES,
    CentralAnswer,
    Json,
    ScriptedCentral,
    refusal,
)
from tests.golden.opened import DOCUMENTS
from tests.golden.store import (
    STATS,
    STATUS,
    Call,
    Store,
    a_store,
    adjustment,
    batch,
    decision,
    force,
    get,
    post,
    sale,
    settlement,
)
from tests.harness.clients import INVENTORY, STORE_ADMIN_KEY, path_of
from tests.harness.streams import STREAM
from tests.harness.virtual_time import run
from tests.unit.api.bad_requests import BAD_REQUESTS, OUTBOX, WRITES

PROBLEM = "application/problem+json"
LAMP = "PROD-002"
WRONG_KEYS = 21
"""One more than an address may send in a minute."""

READS = {
    "product": get(path_of(LAMP)),
    "page": get(f"{INVENTORY}?limit=2"),
    "lookup": post(f"{INVENTORY}/lookup", {"productIds": [LAMP, "PROD-999"]}),
}
SEARCHES = {
    "search": get(f"{INVENTORY}?search=lamp&inStock=true"),
    "search, by id": get(f"{INVENTORY}?search=lamp&sort=productId&after="),
    "barcode": get(f"{INVENTORY}?barcode=4006381333931"),
    "lookup of barcodes": post(
        f"{INVENTORY}/lookup", {"productIds": [LAMP], "barcodes": ["4006381333931", "96385074"]}
    ),
}
EVERYTHING = DOCUMENTS | READS


def central_of_three() -> ScriptedCentral:
    return ScriptedCentral(
        *(
            {
                "productId": f"PROD-00{number}",
                "name": name,
                "available": 10 * number,
                "version": 5 + number,
                "lastUpdated": "2026-03-01T08:00:00Z",
                "price": 9.5,
            }
            for number, name in enumerate(("Headphones", "Desk Lamp", "Tea"), start=1)
        )
    )


def as_problem(call: Call) -> Call:
    return call._replace(headers=[*call.headers, ("Accept", PROBLEM)])


# -- situations, each with all documents and reads ---------------------------------------------


async def _no_catalogue(central: ScriptedCentral) -> Json:
    central.is_away = True
    async with a_store(central) as store:
        await asyncio.sleep(1.0)
        return await store.answers(EVERYTHING | {"sale": sale(LAMP, -1, 7, "early")})


async def _live(central: ScriptedCentral) -> Json:
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        await store.call(sale(LAMP, -1, 7, "sold"))
        central.set("PROD-003", available=4)
        await asyncio.sleep(2.5)
        said = await store.answers(EVERYTHING | SEARCHES)
        tag = said["product"]["headers"]["etag"]
        unchanged = get(path_of(LAMP), If_None_Match=tag)
        return said | await store.answers({"product, unchanged": unchanged})


async def _fallback(central: ScriptedCentral) -> Json:
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        central.go_away()
        await asyncio.sleep(100.0)
        return await store.answers(EVERYTHING | {"sale": sale(LAMP, -1, 7, "away")})


async def _disk_fails(central: ScriptedCentral) -> Json:
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        store.directory.room = 0
        central.set(LAMP, available=1)
        await asyncio.sleep(1.0)
        said = await store.answers(EVERYTHING | {"sale": sale(LAMP, -1, 8, "in-memory")})
        store.directory.room = None
        await asyncio.sleep(60.0)
        return said | {"after it works again": await store.answers(DOCUMENTS)}


async def _full_sync_under_way(central: ScriptedCentral) -> Json:
    async with a_store(central) as store:
        await asyncio.sleep(10.0)
        central.pages_wait.clear()
        forcing = asyncio.ensure_future(store.answers({"forced": force()}))
        await asyncio.sleep(2.0)
        said = await store.answers(EVERYTHING)
        central.pages_wait.set()
        return said | await forcing


async def _stale(central: ScriptedCentral) -> Json:
    async with a_store(central, stale_after_seconds=1) as store:
        await asyncio.sleep(1.0)
        central.go_away()
        await asyncio.sleep(1.5)
        return await store.answers(EVERYTHING)


async def _write_breaker_open(central: ScriptedCentral) -> Json:
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        central.loses_writes = True
        said = await store.answers({"first sale": sale(LAMP, -1, 7, "first")})
        await asyncio.sleep(0.125)
        return said | await store.answers(EVERYTHING | {"next sale": sale(LAMP, -1, 7, "next")})


async def _something_set_aside(central: ScriptedCentral) -> Json:
    central.fail_to_read(LAMP)
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        central.publish("shelf_moved", central.rows[LAMP])
        await asyncio.sleep(1.0)
        return await store.answers(EVERYTHING)


async def _key_refused(central: ScriptedCentral) -> Json:
    """Central refuses the key at a first start: a full sync waits."""
    for path in (PAGES, EVENTS, UPDATES):
        central.instead[path] = REFUSES_KEY
    async with a_store(central) as store:
        await asyncio.sleep(1.0)
        return await store.answers(DOCUMENTS)


async def _writes_of_unknown_outcome(central: ScriptedCentral) -> Json:
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        central.answers.append(None)
        asking = asyncio.ensure_future(store.answers({"sale": sale(LAMP, -1, 7, "unknown")}))
        await asyncio.sleep(2.0)
        said = {"under way": await store.answers({"sync/status": get(STATUS)})}
        said |= await asking
        return said | {"unknown": await store.answers({"sync/status": get(STATUS)})}


# -- writes that Central refuses, or does not settle -------------------------------------------


async def _refused_writes(central: ScriptedCentral) -> Json:
    """Each refusal, for each of the three calls."""
    async with a_store(central) as store:
        await asyncio.sleep(70.0)
        row = central.rows[LAMP]
        kinds = ("invalid_request", "missing_product_id")
        answers: dict[str, CentralAnswer | None] = {
            "applied": None,
            "version_conflict": CentralAnswer(409, refusal(LAMP, "version_conflict", row)),
            "insufficient_inventory": CentralAnswer(
                409, refusal(LAMP, "insufficient_inventory", row)
            ),
            "product_not_found": CentralAnswer(404, refusal(LAMP, "product_not_found")),
            **{kind: CentralAnswer(400, refusal(LAMP, kind)) for kind in kinds},
            "general error": CentralAnswer(
                422, {"code": "no", "message": "Not like this", "details": []}
            ),
        }
        said: Json = {}
        for name, answer in answers.items():
            said |= await _each_write(store, central, name, answer)
        nowhere = adjustment("PROD-999", -1, "nowhere")
        return said | await store.answers({"adjustment, product not held": nowhere})


async def _each_write(
    store: Store, central: ScriptedCentral, name: str, answer: CentralAnswer | None
) -> Json:
    """Make each call once. `answer`: Central's; None: the true one."""
    key = name.replace(" ", "-")
    said: Json = {}
    for what in ("sale", "sale, as problem", "adjustment", "batch"):
        version = central.rows[LAMP]["version"]
        if answer is not None:
            is_of_one = what == "batch" and "productId" in answer.body
            result = CentralAnswer(200, {"results": [answer.body] * 2}) if is_of_one else answer
            central.answers.extend([result] * (5 if what == "adjustment" else 1))
        said |= await store.answers(
            {f"{what}: {name}": _write(what, version, f"{key}-{what[-3:]}")}
        )
        central.answers.clear()
    return said


def _write(what: str, version: int, key: str) -> Call:
    if what == "adjustment":
        return adjustment(LAMP, -1, key)
    if what == "batch":
        return batch((LAMP, -1, version, f"{key}-1"), (LAMP, -1, version + 1, f"{key}-2"))
    call = sale(LAMP, -1, version, key)
    return as_problem(call) if "problem" in what else call


async def _unsettled_writes(central: ScriptedCentral) -> Json:
    """Central gives another answer or none, or cannot be reached: no answer is final."""
    async with a_store(central) as store:
        await asyncio.sleep(70.0)
        said: Json = {}
        central.instead[UPDATES] = REFUSES_KEY
        said["key refused"] = await _sale_and_batch(store, "denied")
        central.instead[UPDATES] = CentralAnswer(
            404, {"code": "no_route", "message": "?", "details": []}
        )
        said["no such call"] = await _sale_and_batch(store, "no-call")
        central.instead[UPDATES] = CentralAnswer(429, {}, {"Retry-After": "30"})
        said["limited"] = await _sale_and_batch(store, "limited")
        await asyncio.sleep(60.0)
        for name, answer in (
            ("not JSON's shape", CentralAnswer(200, [])),
            ("server error", FAILS),
            (
                "another version",
                CentralAnswer(200, {"productId": LAMP, "applied": True, "newVersion": 99}),
            ),
        ):
            central.instead[UPDATES] = answer
            said[name] = await _sale_and_batch(store, name.replace(" ", "-").replace("'", ""))
            await asyncio.sleep(60.0)
        del central.instead[UPDATES]
        central.answers.append(None)
        said["silence"] = await store.answers({"sale": as_problem(sale(LAMP, -1, 7, "silence"))})
        await asyncio.sleep(60.0)
        central.loses_writes = True
        said["nobody there"] = await _sale_and_batch(store, "away")
        return said


async def _sale_and_batch(store: Store, key: str) -> Json:
    calls = {
        "sale": sale(LAMP, -1, 7, key),
        "batch": batch((LAMP, -1, 7, f"{key}-1"), ("PROD-001", -1, 6, f"{key}-2")),
    }
    return await store.answers(calls | {f"{name}, repeated": call for name, call in calls.items()})


async def _writes_in_doubt(central: ScriptedCentral) -> Json:
    """Central never answers a sale: the list, and each answer to a person who settles it."""
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        lost = sale(LAMP, -1, 7, "lost")
        central.answers.append(None)
        asking = asyncio.ensure_future(store.answers({"sale": lost}))
        await asyncio.sleep(1.0)
        said = await _in_both_shapes(store, {"write_under_way": settlement("lost")})
        said |= await asking
        said |= await store.answers(
            {"list": get(f"{WRITES}?state=in_doubt"), "settled": settlement("lost")}
        )
        settled = {
            "write_not_found": settlement("nothing"),
            "write_not_in_doubt": settlement("lost"),
            "sale, repeated": lost,
        }
        return said | await _in_both_shapes(store, settled)


async def _outbox(central: ScriptedCentral) -> Json:
    """Central is away, and one write may be queued: what tills and people are told."""
    async with a_store(central, offline_writes="queue", outbox_limit=2) as store:
        await asyncio.sleep(3.0)
        central.go_away()
        await asyncio.sleep(1.0)
        said = await store.answers(
            {
                "queued": adjustment(LAMP, -2, "first"),
                "repeated": adjustment(LAMP, -2, "first"),
                "a batch, for which there is no room": batch(
                    (LAMP, -1, 7, "second"), ("PROD-001", -1, 6, "third")
                ),
                "queued, below zero": adjustment(LAMP, -20, "fourth"),
            }
        )
        listed = (await store.call(get(OUTBOX))).json["entries"]
        refused = {
            "outbox_full": adjustment(LAMP, -1, "fifth"),
            "outbox_entry_not_found": get(f"{OUTBOX}/01JDQ8Z4M2V0X6T3R9Y1K7B5CD"),
            "outbox_entry_in_other_state": decision(
                f"{listed[-1]['outboxId']}/retry", reason="why not"
            ),
        }
        said |= await _in_both_shapes(store, refused)
        said |= await store.answers(EVERYTHING | {"ready": get("/ready"), "outbox": get(OUTBOX)})
        discarded = decision(listed[-1]["outboxId"], "DELETE", reason="entered twice")
        return said | await store.answers(
            {"discarded": discarded, "discarded, repeated": adjustment(LAMP, -20, "fourth")}
        )


# -- errors of the store's own -----------------------------------------------------------------


async def _wrong_requests(central: ScriptedCentral) -> Json:
    """The table of bad requests in docs/api.md."""
    async with a_store(central, offline_writes="queue") as store:
        await asyncio.sleep(3.0)
        calls = {
            f"{case.what}: {case.method} {case.target}": Call(
                case.method, case.target, case.sent_body, case.sent_headers
            )
            for case in BAD_REQUESTS
        }
        return await store.answers(calls)


async def _each_error(central: ScriptedCentral) -> Json:
    """One request for each code, in both shapes."""
    async with a_store(central) as store:
        await asyncio.sleep(10.0)
        await store.call(sale(LAMP, -1, 7, "used"))
        calls = {
            "invalid_request": get(f"{INVENTORY}?limit=0&colour=red"),
            "invalid_json": post(f"{INVENTORY}/updates", {})._replace(body=b"{"),
            "unauthorized": get(INVENTORY, key="guess"),
            "forbidden": get(INVENTORY)._replace(method="POST", target="/v1/store/sync/force"),
            "not_found": get("/v1/store/stock"),
            "product_not_found": get(path_of("PROD-999")),
            "method_not_allowed": get(path_of(LAMP))._replace(method="DELETE"),
            "payload_too_large": post(f"{INVENTORY}/updates", "x" * 262_145),
            "unsupported_media_type": post(f"{INVENTORY}/updates", {}, ("Content-Encoding", "br")),
            "idempotency_key_reused": sale(LAMP, -2, 8, "used"),
        }
        said = await _in_both_shapes(store, calls)
        store.clock.is_broken = True
        said |= await _in_both_shapes(store, {"internal_error": get("/health")})
        store.clock.is_broken = False
        central.instead[PAGES] = NO_CATALOGUE
        said |= await _in_both_shapes(store, {"sync_failed, unreadable": force()})
        central.instead[PAGES] = REFUSES_KEY
        said |= await _in_both_shapes(store, {"sync_failed, refused": force()})
        await asyncio.sleep(60.0)
        central.instead[UPDATES] = REFUSES_KEY
        said |= await _in_both_shapes(store, {"central_error": sale(LAMP, -1, 8, "denied")})
        central.go_away()
        await asyncio.sleep(1.0)
        away = {"sync_failed, away": force(), "central_unavailable": sale(LAMP, -1, 8, "away")}
        return said | await _in_both_shapes(store, away)


async def _in_both_shapes(store: Store, calls: dict[str, Call]) -> Json:
    said = await store.answers(calls)
    problems = {f"{name}, as problem": as_problem(call) for name, call in calls.items()}
    return said | await store.answers(problems)


async def _wrong_tenant(central: ScriptedCentral) -> Json:
    async with a_store(central, tenant_id="acme") as store:
        await asyncio.sleep(3.0)
        other = (*get(INVENTORY).headers, ("X-Tenant-ID", "globex"))
        return await _in_both_shapes(
            store, {"wrong_tenant": get(INVENTORY)._replace(headers=other)}
        )


async def _rate_limited(central: ScriptedCentral) -> Json:
    async with a_store(central) as store:
        await asyncio.sleep(3.0)
        await store.call(get(STATS))
        for _ in range(WRONG_KEYS):
            await store.call(get(INVENTORY, key="guess"))
        calls = {
            "rate_limited": get(INVENTORY, key="guess"),
            "a key that was not used before": get(STATS, key=STORE_ADMIN_KEY),
        }
        said = await _in_both_shapes(store, calls)
        return said | await store.answers({"a key that served before": get(STATS)})


async def _no_room_for_keys(central: ScriptedCentral) -> Json:
    """The table of keys is full."""
    with patch.dict(KeyTable.__init__.__kwdefaults__, capacity=3):
        async with a_store(central) as store:
            await asyncio.sleep(3.0)
            await store.call(sale(LAMP, -1, 7, "first"))
            calls = {
                "storage_unavailable": batch((LAMP, -1, 8, "second"), (LAMP, -1, 9, "third")),
                "central_timeout": sale(LAMP, -1, 8, "fourth"),
            }
            central.answers.extend([None, None])
            return await _in_both_shapes(store, calls)


async def _index_not_ready(central: ScriptedCentral) -> Json:
    """The search index is never built."""
    with patch.object(Indexer, "run", lambda _indexer: asyncio.Event().wait()):
        async with a_store(central) as store:
            await asyncio.sleep(3.0)
            calls = {"index_not_ready": get(f"{INVENTORY}?search=lamp"), "page": READS["page"]}
            return await _in_both_shapes(store, calls)


def _recording(script: Callable[[ScriptedCentral], Awaitable[Any]]) -> Callable[[], Json]:
    async def recorded() -> Json:
        return dict(await script(central_of_three()))

    return lambda: run(recorded())


async def _too_many_streams(central: ScriptedCentral) -> Json:
    async with a_store(central, stream_readers=1) as store:
        await asyncio.sleep(3.0)
        async with store.open(get(STREAM)):
            return await _in_both_shapes(store, {"too_many_streams": get(STREAM)})


RECORDINGS = {
    f"answers/{script.__name__.removeprefix('_')}.json": _recording(script)
    for script in (
        _no_catalogue,
        _live,
        _fallback,
        _disk_fails,
        _full_sync_under_way,
        _stale,
        _write_breaker_open,
        _something_set_aside,
        _key_refused,
        _writes_of_unknown_outcome,
        _refused_writes,
        _unsettled_writes,
        _writes_in_doubt,
        _outbox,
        _wrong_requests,
        _each_error,
        _wrong_tenant,
        _rate_limited,
        _no_room_for_keys,
        _too_many_streams,
        _index_not_ready,
    )
}
