"""The examples of the API's description: calls to a store in virtual time, and its answers."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

import store_cache
from tests.golden import situations
from tests.golden.central import CentralAnswer, Json, ScriptedCentral, refusal
from tests.golden.opened import DOCUMENTS
from tests.golden.situations import LAMP, READS, SEARCHES, central_of_three
from tests.golden.store import (
    Call,
    Store,
    a_store,
    adjustment,
    batch,
    decision,
    force,
    get,
    normalise_document,
    sale,
    settlement,
)
from tests.harness.api_document import EVERY_FEATURE
from tests.harness.clients import STORE_ADMIN_KEY, path_of
from tests.harness.http import Reply
from tests.harness.virtual_time import run

FILE = Path(store_cache.__file__).parent / "api" / "openapi" / "examples.json"

ERRORS = (
    *("each_error", "rate_limited", "no_room_for_keys", "no_catalogue", "too_many_streams"),
    *("index_not_ready", "writes_in_doubt", "outbox", "wrong_tenant"),
)
"""The recordings that have an error of each code between them."""

VERIFY = "/v1/store/sync/verify"
OUTBOX = "/v1/store/outbox"

Named = dict[str, dict[str, Call]]
"""Calls by the operation that they are of, and by the name of the example."""

READING: Named = {
    "readHealth": {"healthy": DOCUMENTS["health"]},
    "readReadiness": {"ready": DOCUMENTS["ready"]},
    "listProducts": {"page": READS["page"], "search": SEARCHES["search"]},
    "lookUpProducts": {"basket": READS["lookup"], "barcodes": SEARCHES["lookup of barcodes"]},
    "readProduct": {"product": READS["product"]},
    "readSyncStatus": {"live": DOCUMENTS["sync/status"]},
    "readCacheStats": {"stats": DOCUMENTS["cache/stats"]},
    "forceSync": {"done": force()},
    "verify": {"equal": Call("POST", VERIFY, b'{"repair":false}', force().headers)},
    "readMetricsHistory": {"minute": get("/v1/store/metrics/history?minutes=1")},
}
WRITING: Named = {
    "updateInventory": {
        "sale": sale(LAMP, -2, 7, "order-12345"),
        "version_conflict": sale(LAMP, -1, 7, "order-12346"),
        "insufficient_inventory": sale(LAMP, -99, 8, "order-12347"),
        "product_not_found": sale("PROD-999", -1, 1, "order-12348"),
    },
    "updateInventoryInBatch": {
        "sales": batch((LAMP, -1, 8, "order-12349-1"), ("PROD-003", -99, 8, "order-12349-2"))
    },
    "adjustInventory": {
        "sale": adjustment(LAMP, -5, "order-12350"),
        "insufficient_inventory": adjustment(LAMP, -99, "order-12351"),
    },
}
AFTERWARDS: Named = {"readHistory": {"sales": get(f"{path_of(LAMP)}/history", key=STORE_ADMIN_KEY)}}
QUEUED: Named = {
    "adjustInventory": {"queued": adjustment(LAMP, -2, "order-12360")},
    "updateInventory": {"queued": sale("PROD-001", -1, 6, "order-12361")},
}
IN_DOUBT: Named = {
    "listWritesInDoubt": {"one": get("/v1/store/writes?state=in_doubt")},
    "settleWrite": {"not_applied": settlement("order-12353")},
}
REFUSED_BY_CENTRAL = {"invalid_request": sale(LAMP, -1, 9, "order-12352")}


def examples() -> Json:
    """Return the examples as they are published."""
    return {"errors": _errors(), "operations": run(_operations())}


def record() -> None:
    FILE.write_text(json.dumps(examples(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def comparable(value: Json) -> Json:
    """Return the examples without what varies from run to run."""
    made = copy.deepcopy(value)
    for body in made["errors"].values():
        normalise_document(body)
    for operation in made["operations"].values():
        for shown in operation["answers"].values():
            for body in shown.values():
                normalise_document(body)
    return made


async def _operations() -> Json:
    central = central_of_three()
    found: Json = {}
    async with a_store(central, **EVERY_FEATURE) as store:
        await asyncio.sleep(12.0)
        await _take(store, READING | WRITING | AFTERWARDS, found)
        central.answers.append(CentralAnswer(400, refusal(LAMP, "invalid_request")))
        await _take(store, {"updateInventory": REFUSED_BY_CENTRAL}, found)
        await _take_outbox(central, store, found)
    central.is_away = False
    async with a_store(central) as store:
        await asyncio.sleep(12.0)
        central.answers.append(None)
        await store.call(sale(LAMP, -1, 9, "order-12353"))
        await _take(store, IN_DOUBT, found)
    return found


async def _take_outbox(central: ScriptedCentral, store: Store, found: Json) -> None:
    """Sell while Central is away; when it is back, sales are refused and one is in doubt."""
    central.go_away()
    await asyncio.sleep(1.0)
    await _take(store, QUEUED, found)
    for number in (1, 2):
        await store.call(adjustment("PROD-003", -number, f"order-1237{number}"))
    refused = CentralAnswer(409, refusal(LAMP, "insufficient_inventory"))
    together = [refusal(each, "insufficient_inventory") for each in ("PROD-001", "PROD-003")]
    central.answers.extend([refused, CentralAnswer(200, {"results": together}), None])
    central.is_away = False
    await asyncio.sleep(3.5)
    central.go_away()
    await asyncio.sleep(10.0)
    listed = (await store.call(get(OUTBOX))).json["entries"]
    parked = [entry["outboxId"] for entry in listed if entry["state"] == "parked"]
    [doubtful] = [entry["outboxId"] for entry in listed if entry["state"] == "in_doubt"]
    settled = {"reason": "not in Central's list", "outcome": "not_applied"}
    is_idle = False
    while not is_idle:  # it is repeated now and then
        await asyncio.sleep(0.1)
        asked = await store.call(decision(f"{doubtful}/retry", reason="is it on its way?"))
        is_idle = asked.json["error"]["code"] != "write_under_way"
    decided: Named = {
        "settleOutboxEntry": {"in_doubt": decision(f"{doubtful}/settle", **settled)},
        "listOutbox": {"waiting": get(OUTBOX)},
        "readOutboxEntry": {"parked": get(f"{OUTBOX}/{parked[0]}")},
        "retryOutboxEntry": {"parked": decision(f"{parked[0]}/retry", reason="booked in")},
        "discardOutboxEntry": {"parked": decision(parked[1], "DELETE", reason="entered twice")},
    }
    await _take(store, decided, found)


async def _take(store: Store, calls: Named, found: Json) -> None:
    for operation, named in calls.items():
        shown = found.setdefault(operation, {"requests": {}, "answers": {}})
        for name, call in named.items():
            reply = await store.call(call)
            if call.body:
                shown["requests"][name] = orjson.loads(call.body)
            shown["answers"].setdefault(str(reply.status), {})[name] = reply.json


def _errors() -> dict[str, Any]:
    """Return the first error of each code in the recorded situations, by code."""
    found: dict[str, Any] = {}
    send = Store.call

    async def noting(store: Store, call: Call) -> Reply:
        reply = await send(store, call)
        if reply.status >= 400 and reply.headers["Content-Type"] == "application/json":
            body = reply.json
            if "error" in body:
                found.setdefault(body["error"]["code"], body)
        return reply

    with patch.object(Store, "call", noting):
        for name in ERRORS:
            situations.RECORDINGS[f"answers/{name}.json"]()
    return dict(sorted(found.items()))
