"""What a store shows that starts from the recorded DATA_DIR, four minutes after it was written:
refusals are still remembered.

All requests are HTTP. The store reads files of the folder on disk; what it writes stays in memory.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.golden.central import Json, ScriptedCentral
from tests.golden.make_data_dir import FOLDER, ODD_IDS, ROLES, TORN_FOLDER, Left, left
from tests.golden.store import NOON, STATS, STATUS, Call, Store, a_store, get, sale
from tests.harness.clients import INVENTORY, path_of
from tests.harness.virtual_time import run

LATER = NOON + 600.0
PAGE = 13
IDS = (
    *ODD_IDS,
    *(f"{role}-{part}" for part in ("snapshot", "journal") for role in (*ROLES, "created")),
    "BIG-1",
    "NEVER-1",
)
DOCUMENTS = {
    "sync/status": get(STATUS),
    "cache/stats": get(STATS),
    "health": get("/health"),
    "ready": get("/ready"),
}


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def shown_without_central() -> Json:
    """Record what is shown while Central cannot be reached: all of it comes from the files."""
    return run(_shown_without_central(left().calls))


async def _shown_without_central(calls: dict[str, Call]) -> Json:
    central = ScriptedCentral()
    central.is_away = True
    async with a_store(central, files_in(FOLDER), began=LATER) as store:
        await asyncio.sleep(1.0)
        return {
            "documents": await store.answers(DOCUMENTS),
            "products": await store.answers({each: get(path_of(each)) for each in IDS}),
            "page": await store.answers({"whole": get(f"{INVENTORY}?limit=200")}),
            "walk": await _walk(store),
            "repeats": await store.answers(calls),
            "reused keys": await store.answers(_reused()),
            "documents afterwards": await store.answers(DOCUMENTS),
        }


async def _walk(store: Store) -> list[list[str]]:
    """Return the ids of each page, walked by `after`."""
    pages: list[list[str]] = []
    call = get(f"{INVENTORY}?limit={PAGE}&after=")
    while True:
        page = (await store.call(call)).json
        pages.append([row["productId"] for row in page["products"]])
        if not page["pagination"]["hasMore"]:
            return pages
        after = path_of(pages[-1][-1]).removeprefix(f"{INVENTORY}/")
        call = get(f"{INVENTORY}?limit={PAGE}&after={after}")


def _reused() -> dict[str, Call]:
    """Return other writes with the same keys."""
    keys = ("sold-snapshot", "stock-journal", "unknown-snapshot", "under-way-journal")
    return {key: sale(ODD_IDS[0], -7, 1, key) for key in keys}


def asked_of_central() -> Json:
    """Record what Central is asked: where the feed goes on, and what a repeat of each key that is
    not settled sends; and the answers to the repeats."""
    return run(_asked_of_central(left()))


async def _asked_of_central(process: Left) -> Json:
    central = process.central.copy()
    async with a_store(central, files_in(FOLDER), began=LATER) as store:
        await asyncio.sleep(1.0)
        answers = await store.answers(process.calls)
    kinds = {"feed": "GET /v1/inventory/events?", "writes": "POST ", "products": "GET "}
    asked: Json = {kind: [] for kind in kinds}
    for each in central.asked:
        kind = next(kind for kind, start in kinds.items() if each.startswith(start))
        asked[kind].append(each)
    return {"asked": asked, "answers": answers}


def shown_of_torn() -> Json:
    """Record what is shown if the files end within a record."""
    return run(_shown_of_torn())


async def _shown_of_torn() -> Json:
    central = ScriptedCentral()
    central.is_away = True
    async with a_store(central, files_in(TORN_FOLDER), began=LATER) as store:
        await asyncio.sleep(1.0)
        return {
            "documents": await store.answers(DOCUMENTS),
            "product": await store.answers({ODD_IDS[0]: get(path_of(ODD_IDS[0]))}),
            "files": sorted(store.directory.contents()),
        }


RECORDINGS = {
    "data_dir.json": shown_without_central,
    "data_dir_asked.json": asked_of_central,
    "data_dir_torn.json": shown_of_torn,
}
