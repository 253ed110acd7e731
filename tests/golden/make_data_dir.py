"""Write `tests/golden/data_dir` and `data_dir_torn`: the DATA_DIR of a store.

`python -m tests.golden.make_data_dir` writes them again. The store itself writes the files, as
Central and tills tell it; time is virtual and chance is fixed, so that every run writes the same
bytes. Run it only if the format of the files is meant to change.

Each state that the files can hold is in the snapshot, which a compaction wrote, and in the journal
after it: products with odd ids and attributes, tombstones from the feed and from refetches,
overrides, pending refetches for every reason, and keys whose attempt is unknown or in flight, or
which were answered, in every way there is.
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.golden.central import CentralAnswer, Json, ScriptedCentral, refusal
from tests.golden.store import Call, Store, a_store, adjustment, batch, get, sale
from tests.harness.clients import path_of
from tests.harness.virtual_time import run

FOLDER = Path(__file__).parent / "data_dir"
TORN_FOLDER = Path(__file__).parent / "data_dir_torn"
TORN_BYTES = 40
"""So many bytes the last record of the torn journal lacks."""

ODD_IDS = (
    "A/1",
    "a/1",
    "A 1",
    " blank before",
    "blank behind ",
    "tea/green 50%",
    "100%",
    "%2F",
    "q?x=1&y=2",
    "#7",
    "a+b",
    "a~b",
    "..hidden",
    "it's",
    '"quoted"',
    "back\\slash",
    "line\nbreak",
    "<b>",
    "caf\u00e9",
    "cafe\u0301",
    "\u00df",
    "SS",
    "\u0130",
    "\u65e5\u672c\u8336",
    "\U0001fad6",
    "x" * 200,
)
ROLES = (
    "sold",
    "changed",
    "deleted",
    "absent",
    "ahead",
    "read-ahead",
    "timeless",
    "order",
    "unreadable",
    "conflict",
    "refresh",
    "left-behind",
    "busy",
)
"""What happens to a plain product; there is one for the snapshot and one for the journal."""

PAUSE_SECONDS = 0.013
"""Between two steps, so that no two things happen at the same instant: their order would depend on
the loop."""

BIG = "BIG-1"
BIG_TEXT = "x" * 60_700
BIG_CHANGES = 68
"""Nearly as much as a journal holds before it is compacted; small changes bring the rest."""

ATTRIBUTES: tuple[Json, ...] = (
    {},
    {"price": 18.9, "category": "coffee"},
    {"name": "", "price": 0},
    {"price": 1e-7, "barcodes": ["4006381333931", "0012345678905"], "tags": []},
    {"supplier": {"name": "Müller & Söhne", "address": {"city": "Zürich", "zip": None}}},
    {"note": 'says ,"version":99 and {"version":98}', "isActive": True, "isNew": False},
    {"meta": {"version": 3, "productId": "another"}, "Available": 5, "available_": -1},
    {"largest": 9_007_199_254_740_991, "below": -12.5, "nothing": None},
    {"name": 'tab\there, quote ", back \\, \u2028 and \U0001f375'},
)


class Left(NamedTuple):
    """What a process of the store left: its files, the Central that it followed, and the calls of
    tills, by key."""

    files: dict[str, bytes]
    central: ScriptedCentral
    calls: dict[str, Call]


def product(product_id: str, number: int) -> Json:
    """Return a product as Central sends it, in another order of fields than the store's."""
    usual = {
        "lastUpdated": "2026-03-01T08:00:00Z",
        "name": f"Product {number}",
        "version": 2 + number % 5,
        "productId": product_id,
        "available": 10 + number,
    }
    return usual | ATTRIBUTES[number % len(ATTRIBUTES)]


def catalogue() -> list[Json]:
    plain = [f"{role}-{part}" for part in ("snapshot", "journal") for role in ROLES]
    return [product(each, number) for number, each in enumerate((*ODD_IDS, *plain, BIG))]


# -- the script --------------------------------------------------------------------------------


@cache
def left() -> Left:
    """Run a store until it is killed, once for each run of the tests."""
    return run(_run())


async def _run() -> Left:
    central = ScriptedCentral(*catalogue())
    calls: dict[str, Call] = {}
    async with a_store(central) as store:
        await asyncio.sleep(100.0)  # the first incarnations are old
        await Part("snapshot", store, central, calls).play()
        await _compact(store, central)
        part = Part("journal", store, central, calls)
        await part.play()
        return await _killed_in_a_write(part)


async def _compact(store: Store, central: ScriptedCentral) -> None:
    """Let the journal grow until it is compacted, to a snapshot that is small."""
    before = store.directory.contents().keys()
    for _ in range(BIG_CHANGES):
        central.set(BIG, text=BIG_TEXT)
        await asyncio.sleep(0.001)
    while before == store.directory.contents().keys():
        central.set(BIG, text="small again" * 10)
        await asyncio.sleep(0.001)
    central.set(BIG, text="small")
    await asyncio.sleep(0.001)


async def _killed_in_a_write(part: Part) -> Left:
    call = part.sale("busy", -1, key="under-way")
    asking = asyncio.ensure_future(part.asks("under-way", call, None))
    await asyncio.sleep(1.0)
    files = part.store.directory.contents()
    part.central.answers.clear()
    asking.cancel()
    return Left(files, part.central, part.calls)


class Part:
    """What happens to the products of one part, `snapshot` or `journal`. `calls`: those of tills,
    by a name."""

    def __init__(
        self, name: str, store: Store, central: ScriptedCentral, calls: dict[str, Call]
    ) -> None:
        self.store = store
        self.central = central
        self.calls = calls
        self._name = name

    async def play(self) -> None:
        await self._make_refetches_pending()
        await asyncio.sleep(90.0)  # overrides are refetched after a minute
        await self._create_and_delete()
        await self._make_overrides()
        await self._refuse_writes()
        await self._leave_writes_unknown()

    # -- words of the script ---------------------------------------------------------------

    def id(self, role: str) -> str:
        return f"{role}-{self._name}"

    def sale(self, role: str, delta: int, *, key: str = "", **more: str) -> Call:
        row = self.central.rows[self.id(role)]
        return sale(row["productId"], delta, row["version"], self.id(key or role), **more)

    async def asks(self, name: str, call: Call, *answers: CentralAnswer | None) -> None:
        """Make a till's call; Central gives these answers, then true ones."""
        self.calls[self.id(name)] = call
        self.central.answers.extend(answers)
        await asyncio.sleep(PAUSE_SECONDS)
        await self.store.call(call)

    async def reads_anew(self, role: str) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        await self.store.call(get(path_of(self.id(role)), Cache_Control="no-cache"))

    def conflict(self, role: str, difference: int) -> CentralAnswer:
        """Return Central's refusal with a version that differs so much from its own."""
        row = self.central.rows[self.id(role)]
        told = row | {"version": row["version"] + difference}
        return CentralAnswer(409, refusal(row["productId"], "version_conflict", told))

    # -- what happens ----------------------------------------------------------------------

    async def _make_refetches_pending(self) -> None:
        """Make refetches fail, so that one is pending for each reason."""
        doubted = ("order", "unreadable", "conflict", "refresh", "left-behind", "crossed")
        self.central.fail_to_read(*map(self.id, doubted))
        other = self.central.rows[self.id("order")] | {"name": "Another life"}
        self.central.publish("product_created", other)
        await asyncio.sleep(PAUSE_SECONDS)
        self.central.publish("shelf_moved", self.central.rows[self.id("unreadable")])
        await self.asks("conflict", self.sale("conflict", -1), self.conflict("conflict", -1))
        await self.asks("refresh", self.sale("refresh", -1), self.conflict("refresh", 3))
        self.central.publishes = False
        await self.asks("left-behind", self.sale("left-behind", -1))

    async def _create_and_delete(self) -> None:
        added = {"deep": [1, {"er": 2.5}]}
        self.central.set(self.id("changed"), available=3, name="Changed", added=added)
        self.central.delete(self.id("deleted"))
        self.central.create(product(self.id("created"), 4))
        self.central.create(product(self.id("crossed"), 5))
        await asyncio.sleep(1.0)

    async def _make_overrides(self) -> None:
        """Make overrides, by answers to writes and by refetches whose events do not come."""
        self.central.publishes = False
        await self.asks("applied", self.sale("sold", -1, reason="sold", updatedBy="Zoë"))
        row = self.central.rows[self.id("timeless")]
        said = {"productId": row["productId"], "newQuantity": 5, "newVersion": row["version"] + 1}
        answer = CentralAnswer(200, said | {"applied": True})
        await self.asks("timeless", self.sale("timeless", -1), answer)
        await self.asks("crossed", self.sale("crossed", -1))
        adjusted = adjustment(self.id("ahead"), -2, self.id("adjusted"))
        await self.asks("adjusted", adjusted, self.conflict("ahead", 0))
        version = self.central.rows[self.id("ahead")]["version"]
        updates = [
            (self.id("ahead"), -1, version, self.id("batch-1")),
            (self.id("busy"), -9999, 1, self.id("batch-2")),
            ("NEVER-1", -1, 1, self.id("batch-3")),
        ]
        await self.asks("batch", batch(*updates))
        del self.central.rows[self.id("absent")]
        await self.reads_anew("absent")
        row = self.central.rows[self.id("read-ahead")]
        row |= {"available": 77, "version": row["version"] + 1}
        await self.reads_anew("read-ahead")
        self.central.publishes = True

    async def _refuse_writes(self) -> None:
        await self.asks("stock", self.sale("busy", -9999, key="stock"))
        await self.asks("nowhere", sale("NEVER-1", -1, 1, self.id("nowhere")))
        await self.asks("late", self.sale("busy", -1, key="late"), self.conflict("busy", 0))
        for name in ("invalid_request", "missing_product_id"):
            said = CentralAnswer(400, refusal(self.id("busy"), name))
            await self.asks(name, self.sale("busy", -1, key=name), said)
        general = CentralAnswer(422, {"code": "validation_failed", "message": "No.", "details": []})
        await self.asks("general", self.sale("busy", -1, key="general"), general)
        in_vain = adjustment(self.id("busy"), -1, self.id("in-vain"))
        await self.asks("in-vain", in_vain, *[self.conflict("busy", 0)] * 5)

    async def _leave_writes_unknown(self) -> None:
        await self.asks("unknown", self.sale("busy", -1, key="unknown"), None)
        second = adjustment(self.id("busy"), -1, self.id("unknown-second"))
        await self.asks("unknown-second", second, self.conflict("busy", 0), None)
        self.central.loses_writes = True
        await self.asks("unsent", self.sale("busy", -1, key="unsent"))
        self.central.loses_writes = False
        await asyncio.sleep(21.0)  # the next poll shows that Central is there


# -- the folders -------------------------------------------------------------------------------


@cache
def torn() -> dict[str, bytes]:
    """Return the files of a store after a power cut within its last record."""
    return run(_torn())


async def _torn() -> dict[str, bytes]:
    central = ScriptedCentral(*catalogue()[:3])
    async with a_store(central) as store:
        await asyncio.sleep(1.0)
        for available in (3, 2, 1):
            central.set(ODD_IDS[0], available=available)
            await asyncio.sleep(1.0)
        files = store.directory.contents()
    journal = max(name for name in files if name.startswith("journal"))
    return files | {journal: files[journal][:-TORN_BYTES]}


def folders() -> dict[Path, dict[str, bytes]]:
    """Return the files of each folder, as the present version writes them."""
    return {FOLDER: left().files, TORN_FOLDER: torn()}


def write() -> None:
    for folder, files in folders().items():
        folder.mkdir(exist_ok=True)
        for left in folder.iterdir():
            left.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    write()
