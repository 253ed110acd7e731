"""One life of the store: the real parts on a real folder, from the start until it is killed.

Knows: what a life does (tills sell, full syncs are asked for, journals are folded early), and when
to tell: everything that a reader or a till could have seen, in the same step of the loop.
Refuses to know: when it is killed, and whether what it tells is right.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from pydantic import SecretStr

from store_cache.api.parts import StoreParts
from store_cache.app import build
from store_cache.app.settings import Settings
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.replica import Installation, Verdict
from store_cache.model.event import AnyEvent
from store_cache.model.position import Position
from store_cache.storage import directory as files
from store_cache.storage.directory import LocalDirectory
from store_cache.storage.files import CacheFiles
from store_cache.writer import CacheWriter
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.write import Adjustment, Write, WriteError
from tests.crash.records import Activity, Reporter
from tests.harness.store import ExecutorFileThread

STORE_ID = "store-crash"
TILLS = 3
EARLY_COMPACTION_BYTES = 2_500
SYNC_PAUSE_SECONDS = 0.06
AGAIN_SECONDS = 0.02
REPEATS = 3
"""An attempt that another shop's change overtook stays unknown where the feed does not tell (W3):
it is asked again in each life, and never settled."""

Asked = dict[str, Any]
"""A till's write: `key`, `product`, `delta`, and `version`, or None for an adjustment."""


@dataclass(frozen=True)
class Plan:
    """What a life does. `repeats`: writes of earlier lives whose answers nobody got; they come
    first. `writes`: how many each till makes after them. `syncs`: how many full syncs are asked
    for. `one_thread`: all of the disk's calls are made by one thread, so that they can be
    counted."""

    data_dir: Path
    central_url: str
    name: str
    repeats: Sequence[Asked] = ()
    writes: int = 1_000_000
    syncs: int = 1_000_000
    one_thread: bool = False


# -- the parts, which tell what they are at ----------------------------------------------------


class WatchedFiles(CacheFiles):
    """Compacts the journal far earlier than usual."""

    def __init__(
        self, folder: LocalDirectory, *, now: Callable[[], float], reporter: Reporter
    ) -> None:
        super().__init__(folder, now=now)
        self._reporter = reporter
        self._is_compacting = False

    @property
    def compaction_due(self) -> bool:
        return not self._is_compacting and self.journal_bytes > EARLY_COMPACTION_BYTES

    async def compact(self, catalogue: Catalogue, writes: Callable[[], Iterable[bytes]]) -> None:
        self._is_compacting = True
        try:
            with self._reporter.doing(Activity.COMPACTION):
                await super().compact(catalogue, writes)
        finally:
            self._is_compacting = False


class WatchedWriter(CacheWriter):
    def watch(self, reporter: Reporter) -> None:
        self._reporter = reporter

    async def apply_events(self, events: Sequence[AnyEvent], position: Position) -> None:
        with self._reporter.doing(Activity.EVENTS):
            await super().apply_events(events, position)

    async def install(self, installation: Installation, *, least_percent: int) -> Verdict:
        with self._reporter.doing(Activity.INSTALL):
            return await super().install(installation, least_percent=least_percent)


class Visible:
    """Tells what readers see, whenever it has changed."""

    def __init__(self, writer: CacheWriter, reporter: Reporter) -> None:
        self._writer = writer
        self._reporter = reporter
        self._rows: dict[str, bytes] = {}
        self._sequence = -1

    def look(self) -> None:
        catalogue = self._writer.catalogue
        if catalogue is None or catalogue.sequence == self._sequence:
            return
        rows = dict(catalogue.rows)
        changed = {i: orjson.loads(b) for i, b in rows.items() if self._rows.get(i) is not b}
        gone = dict.fromkeys(self._rows.keys() - rows.keys())
        self._rows, self._sequence = rows, catalogue.sequence
        self._reporter.tell("seen", **_place(catalogue), rows=changed | gone)


class WatchedLoop(asyncio.SelectorEventLoop):
    """Looks after every step: nobody can have seen what is not told."""

    look: Callable[[], None] | None = None

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        if self.look is not None:
            self.look()


def _place(catalogue: Catalogue) -> dict[str, Any]:
    position = catalogue.position
    assert position is not None
    return {
        "sequence": catalogue.sequence,
        "generation": position.generation,
        "offset": position.offset,
    }


# -- a life ------------------------------------------------------------------------------------


def live(plan: Plan, reporter: Reporter) -> None:
    """Live until killed."""
    with asyncio.Runner(loop_factory=WatchedLoop) as runner:
        runner.run(Life(plan, reporter).run())


@dataclass
class Life:
    plan: Plan
    reporter: Reporter
    asked: int = 0
    known: set[str] = field(default_factory=set)
    """Keys that were on disk at the start. Others were never sent, and must show it: tills do not
    repeat them."""
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.name)

    async def run(self) -> None:
        if self.plan.one_thread:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            files.FileThread = ExecutorFileThread  # type: ignore[misc]
        with self.reporter.doing(Activity.START):
            life = self._started()
            store = await life.__aenter__()
        async with asyncio.TaskGroup() as group:
            tills = [group.create_task(self._till(store, number)) for number in range(TILLS)]
            syncing = group.create_task(self._ask_for_syncs(store))
            await asyncio.wait([*tills, syncing])
            self.reporter.tell("settled")
            await asyncio.Event().wait()

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[StoreParts]:
        plan, reporter = self.plan, self.reporter
        settings = _settings(plan)
        world = build.Environment(
            directory=(folder := LocalDirectory(plan.data_dir)),
            transport=httpx.AsyncHTTPTransport(trust_env=False, verify=False),
        )
        central = build.build_central(settings, world)
        keys = KeyTable(retention_seconds=86_400.0)
        writer = WatchedWriter(
            WatchedFiles(folder, now=time.time, reporter=reporter),
            keys,
            now=time.time,
            steady=time.time,
            grace_seconds=settings.hole_grace_seconds,
            fetch_product=central.product,
        )
        writer.watch(reporter)
        damaged = await writer.open()
        self._tell_start(writer, keys, damaged=damaged)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, WatchedLoop)
        loop.look = Visible(writer, reporter).look
        async with build.following(settings, world, time.time, central, writer, keys) as store:
            yield store

    def _tell_start(self, writer: CacheWriter, keys: KeyTable, *, damaged: bool) -> None:
        catalogue = writer.catalogue
        rows = {} if catalogue is None else catalogue.rows
        records = [orjson.loads(record) for record in keys.encoded()]
        self.known = {record["key"] for record in records}
        self.reporter.tell(
            "started",
            **({"sequence": 0} if catalogue is None else _place(catalogue)),
            rows={product_id: orjson.loads(body) for product_id, body in rows.items()},
            keys={record["key"]: record for record in records},
            findings=writer.findings,
            damaged=damaged,
            problem=writer.disk.problem,
        )

    # -- tills -----------------------------------------------------------------------------

    async def _till(self, store: StoreParts, number: int) -> None:
        for asked in [a for a in self.plan.repeats if a["key"] in self.known][number::TILLS]:
            for _ in range(REPEATS):
                if await self._ask(store, asked):
                    break
                await asyncio.sleep(AGAIN_SECONDS)
        while store.writer.catalogue is None:
            await store.runner.changed.wait()
        for _ in range(self.plan.writes):
            await self._ask(store, self._thought_of(store.writer))

    def _thought_of(self, writer: CacheWriter) -> Asked:
        product_id = f"P-{self.chance.randrange(40):03}"
        version = writer.held_version(product_id) if self.chance.random() < 0.5 else None
        self.asked += 1
        return {
            "key": f"{self.plan.name}-{self.asked}",
            "product": product_id,
            "delta": self.chance.choice((-2, -1, 1)),
            "version": version,
        }

    async def _ask(self, store: StoreParts, asked: Asked) -> bool:
        """Ask for one write; whether its answer is final."""
        self.reporter.tell("asks", asked=asked)
        with self.reporter.doing(Activity.WRITES):
            try:
                answer = await _sent(store, asked)
            except WriteError as problem:
                self.reporter.tell("failed", key=asked["key"], code=problem.code)
                return False
        shown = store.writer.held_version(asked["product"])
        self.reporter.tell("answered", key=asked["key"], body=answer, shown=shown)
        return True

    async def _ask_for_syncs(self, store: StoreParts) -> None:
        for _ in range(self.plan.syncs):
            await asyncio.sleep(self.chance.random() * SYNC_PAUSE_SECONDS)
            await store.runner.force_full_sync(accept=False)


async def _sent(store: StoreParts, asked: Asked) -> dict[str, Any]:
    product_id, delta, key = asked["product"], asked["delta"], asked["key"]
    if asked["version"] is None:
        return (await store.forwarder.adjust(Adjustment(product_id, delta, key))).body
    write = Write(product_id, delta, asked["version"], key)
    return (await store.forwarder.update_batch((write,))).results[0]


def _settings(plan: Plan) -> Settings:
    return Settings(
        _env_file=None,
        environment="development",
        api_keys=(SecretStr("till-secret"),),
        store_id=STORE_ID,
        central_api_url=plan.central_url,
        central_api_key=SecretStr("demo"),
        data_dir=plan.data_dir,
        event_wait_timeout_seconds=1,
        sync_interval_seconds=1,
        write_timeout_seconds=5,
    )
