"""Writes `tests/golden/data_dir` and `data_dir_torn`: what a DATA_DIR of the store holds.

`python -m tests.golden.make_data_dir` writes them anew. The store itself writes the files, told by
a Central and by tills; time is virtual and chance is fixed, so that every run writes the same
bytes. Run it only where the format of the files is meant to change.

Of each state that the files know there is one in the snapshot, which a fold wrote, and one in the
journal after it: products with odd ids and attributes, marks of deletions by the feed and by a
reading, products ahead of the feed, readings owed for every doubt, and keys whose attempt is
unknown or under way, or which were answered, in each way that there is.
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.golden.central import Central, Json, Said, refusal
from tests.golden.store import Call, Store, a_store, adjustment, batch, get, path_of, sale
from tests.harness.virtual_time import run

FOLDER = Path(__file__).parent / "data_dir"
TORN_FOLDER = Path(__file__).parent / "data_dir_torn"
TORN_BYTES = 40
"""What the last record of the torn journal lacks."""

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
"""What becomes of a plain product; there is one for the snapshot and one for the journal."""

PAUSE_SECONDS = 0.013
"""Between two steps, so that no two things happen at the same instant: their order would be that of
the loop's turns, which is nobody's promise."""

BIG = "BIG-1"
BIG_TEXT = "x" * 206_500
BIG_CHANGES = 20
"""Nearly as much as a journal holds before it is folded; small changes bring the rest."""

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


class Lived(NamedTuple):
    """What a life of the store left: its files, the Central that it followed, and what tills
    asked, by key."""

    files: dict[str, bytes]
    central: Central
    calls: dict[str, Call]


def product(product_id: str, number: int) -> Json:
    """As Central sends it, which need not be in the order that the store keeps."""
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
def lived() -> Lived:
    """A store's life until it is killed, once for each process."""
    return run(_live())


async def _live() -> Lived:
    central = Central(*catalogue())
    calls: dict[str, Call] = {}
    async with a_store(central) as store:
        await asyncio.sleep(100.0)  # the first lives are long ago
        await Part("snapshot", store, central, calls).goes_by()
        await _fold(store, central)
        part = Part("journal", store, central, calls)
        await part.goes_by()
        return await _killed_in_a_write(part)


async def _fold(store: Store, central: Central) -> None:
    """Let the journal grow until it is folded, with little in the new snapshot for it."""
    before = store.folder.contents().keys()
    for _ in range(BIG_CHANGES):
        central.set(BIG, text=BIG_TEXT)
        await asyncio.sleep(0.001)
    while before == store.folder.contents().keys():
        central.set(BIG, text="small again" * 10)
        await asyncio.sleep(0.001)
    central.set(BIG, text="small")
    await asyncio.sleep(0.001)


async def _killed_in_a_write(part: Part) -> Lived:
    call = part.sale("busy", -1, key="under-way")
    asking = asyncio.ensure_future(part.asks("under-way", call, None))
    await asyncio.sleep(1.0)
    files = part.store.folder.contents()
    part.central.answers.clear()
    asking.cancel()
    return Lived(files, part.central, part.calls)


class Part:
    """What happens to the products of one part, `snapshot` or `journal`. `calls` has what tills
    ask for, by a name."""

    def __init__(self, name: str, store: Store, central: Central, calls: dict[str, Call]) -> None:
        self.store = store
        self.central = central
        self.calls = calls
        self._name = name

    async def goes_by(self) -> None:
        await self._doubts_arise()
        await asyncio.sleep(90.0)  # what is ahead of the feed for a minute is to be read again
        await self._lives_begin_and_end()
        await self._products_go_ahead()
        await self._writes_are_refused()
        await self._writes_stay_unknown()

    # -- words of the script ---------------------------------------------------------------

    def id(self, role: str) -> str:
        return f"{role}-{self._name}"

    def sale(self, role: str, delta: int, *, key: str = "", **more: str) -> Call:
        row = self.central.rows[self.id(role)]
        return sale(row["productId"], delta, row["version"], self.id(key or role), **more)

    async def asks(self, name: str, call: Call, *answers: Said | None) -> None:
        """A till calls; Central gives these answers, else true ones."""
        self.calls[self.id(name)] = call
        self.central.answers.extend(answers)
        await asyncio.sleep(PAUSE_SECONDS)
        await self.store.call(call)

    async def reads_anew(self, role: str) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        await self.store.call(get(path_of(self.id(role)), Cache_Control="no-cache"))

    def conflict(self, role: str, difference: int) -> Said:
        """Central names a version that differs so much from its own."""
        row = self.central.rows[self.id(role)]
        told = row | {"version": row["version"] + difference}
        return Said(409, refusal(row["productId"], "version_conflict", told))

    # -- what happens ----------------------------------------------------------------------

    async def _doubts_arise(self) -> None:
        """Readings that fail are owed, each for a doubt of its own."""
        doubted = ("order", "unreadable", "conflict", "refresh", "left-behind", "crossed")
        self.central.fails_to_read(*map(self.id, doubted))
        other = self.central.rows[self.id("order")] | {"name": "Another life"}
        self.central.tell("product_created", other)
        await asyncio.sleep(PAUSE_SECONDS)
        self.central.tell("shelf_moved", self.central.rows[self.id("unreadable")])
        await self.asks("conflict", self.sale("conflict", -1), self.conflict("conflict", -1))
        await self.asks("refresh", self.sale("refresh", -1), self.conflict("refresh", 3))
        self.central.publishes = False
        await self.asks("left-behind", self.sale("left-behind", -1))

    async def _lives_begin_and_end(self) -> None:
        added = {"deep": [1, {"er": 2.5}]}
        self.central.set(self.id("changed"), available=3, name="Changed", added=added)
        self.central.delete(self.id("deleted"))
        self.central.create(product(self.id("created"), 4))
        self.central.create(product(self.id("crossed"), 5))
        await asyncio.sleep(1.0)

    async def _products_go_ahead(self) -> None:
        """By answers to writes and by readings, of events that do not come."""
        self.central.publishes = False
        await self.asks("applied", self.sale("sold", -1, reason="sold", updatedBy="Zoë"))
        row = self.central.rows[self.id("timeless")]
        said = {"productId": row["productId"], "newQuantity": 5, "newVersion": row["version"] + 1}
        answer = Said(200, said | {"applied": True})
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

    async def _writes_are_refused(self) -> None:
        await self.asks("stock", self.sale("busy", -9999, key="stock"))
        await self.asks("nowhere", sale("NEVER-1", -1, 1, self.id("nowhere")))
        await self.asks("late", self.sale("busy", -1, key="late"), self.conflict("busy", 0))
        for name in ("invalid_request", "missing_product_id"):
            said = Said(400, refusal(self.id("busy"), name))
            await self.asks(name, self.sale("busy", -1, key=name), said)
        general = Said(422, {"code": "validation_failed", "message": "No.", "details": []})
        await self.asks("general", self.sale("busy", -1, key="general"), general)
        in_vain = adjustment(self.id("busy"), -1, self.id("in-vain"))
        await self.asks("in-vain", in_vain, *[self.conflict("busy", 0)] * 5)

    async def _writes_stay_unknown(self) -> None:
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
    """The files of a store whose power went while it wrote its last record."""
    return run(_torn())


async def _torn() -> dict[str, bytes]:
    central = Central(*catalogue()[:3])
    async with a_store(central) as store:
        await asyncio.sleep(1.0)
        for available in (3, 2, 1):
            central.set(ODD_IDS[0], available=available)
            await asyncio.sleep(1.0)
        files = store.folder.contents()
    journal = max(name for name in files if name.startswith("journal"))
    return files | {journal: files[journal][:-TORN_BYTES]}


def folders() -> dict[Path, dict[str, bytes]]:
    """What lies in each folder, as the present version writes it."""
    return {FOLDER: lived().files, TORN_FOLDER: torn()}


def write() -> None:
    for folder, files in folders().items():
        folder.mkdir(exist_ok=True)
        for left in folder.iterdir():
            left.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    write()
