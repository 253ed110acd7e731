"""One process of the store that is going to be killed: the real parts on a real directory.

Tills sell, full syncs are requested, and journals are compacted early. The victim reports
everything that a reader or a till could have seen, in the same step of the loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson

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
from tests.crash.reports import Activity, Reporter
from tests.harness.store import ExecutorFileThread, settings_of

STORE_ID = "store-crash"
TILLS = 3
EARLY_COMPACTION_BYTES = 2_500
SYNC_PAUSE_SECONDS = 0.06
AGAIN_SECONDS = 0.02
REPEATS = 3
"""An attempt that another shop's change overtook may stay unknown where the feed does not name
writes (W3): each victim repeats it, and it is never settled."""

Asked = dict[str, Any]
"""A till's write: `key`, `product`, `delta`, and `version`, or None for an adjustment."""


@dataclass(frozen=True)
class Errand:
    """What a victim does. `repeats`: writes of earlier victims that were not answered; they come
    first. `writes`: how many each till makes after them. `syncs`: how many full syncs are
    requested. `one_thread`: one thread makes all system calls of the disk, so that they can be
    counted."""

    data_dir: Path
    central_url: str
    name: str
    repeats: Sequence[Asked] = ()
    writes: int = 1_000_000
    syncs: int = 1_000_000
    one_thread: bool = False


# -- parts that report their activities --------------------------------------------------------


class ReportingFiles(CacheFiles):
    """Compacts the journal far earlier than usual."""

    def __init__(self, *args: Any, reporter: Reporter, **named: Any) -> None:
        super().__init__(*args, **named)
        self._reporter = reporter
        self._is_compacting = False

    @property
    def compaction_due(self) -> bool:
        return not self._is_compacting and self.journal_bytes > EARLY_COMPACTION_BYTES

    async def compact(self, writes: Callable[[], Iterable[bytes]]) -> None:
        self._is_compacting = True
        try:
            with self._reporter.doing(Activity.COMPACTION):
                await super().compact(writes)
        finally:
            self._is_compacting = False


class ReportingWriter(CacheWriter):
    """`keys_found`: the keys of writes that were on disk at the start."""

    def __init__(
        self, files: CacheFiles, keys: KeyTable, *, reporter: Reporter, **named: Any
    ) -> None:
        super().__init__(files, keys, **named)
        self.keys_found: set[str] = set()
        self._reporter = reporter
        self._key_table = keys

    async def open(self) -> bool:
        damaged = await super().open()
        records = [orjson.loads(record) for record in self._key_table.encoded()]
        self.keys_found = {record["key"] for record in records}
        rows = {} if self.catalogue is None else self.catalogue.rows
        self._reporter.tell(
            "started",
            **({"sequence": 0} if self.catalogue is None else _place_of(self.catalogue)),
            rows={product_id: orjson.loads(body) for product_id, body in rows.items()},
            keys={record["key"]: record for record in records},
            findings=self.findings,
            damaged=damaged,
            problem=self.disk.problem,
        )
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ReportingLoop)
        loop.after_step = VisibleRows(self, self._reporter).report
        return damaged

    async def apply_events(self, events: Sequence[AnyEvent], position: Position) -> int:
        with self._reporter.doing(Activity.EVENTS):
            return await super().apply_events(events, position)

    async def install(self, installation: Installation, *, least_percent: int) -> Verdict:
        with self._reporter.doing(Activity.INSTALL):
            return await super().install(installation, least_percent=least_percent)


class VisibleRows:
    """Reports what readers see, whenever it has changed."""

    def __init__(self, writer: CacheWriter, reporter: Reporter) -> None:
        self._writer = writer
        self._reporter = reporter
        self._rows: dict[str, bytes] = {}
        self._sequence = -1

    def report(self) -> None:
        catalogue = self._writer.catalogue
        if catalogue is None or catalogue.sequence == self._sequence:
            return
        rows = dict(catalogue.rows)
        changed = {i: orjson.loads(b) for i, b in rows.items() if self._rows.get(i) is not b}
        gone = dict.fromkeys(self._rows.keys() - rows.keys())
        self._rows, self._sequence = rows, catalogue.sequence
        self._reporter.tell("seen", **_place_of(catalogue), rows=changed | gone)


class ReportingLoop(asyncio.SelectorEventLoop):
    """Calls `after_step` after every step, so that nobody can have seen what is not reported."""

    after_step: Callable[[], None] | None = None

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        if self.after_step is not None:
            self.after_step()


def _place_of(catalogue: Catalogue) -> dict[str, Any]:
    position = catalogue.position
    assert position is not None
    return {
        "sequence": catalogue.sequence,
        "generation": position.generation,
        "offset": position.offset,
    }


# -- the process -------------------------------------------------------------------------------


def run(errand: Errand, reporter: Reporter) -> None:
    """Run until killed."""
    with asyncio.Runner(loop_factory=ReportingLoop) as runner:
        runner.run(Victim(errand, reporter).run())


@dataclass
class Victim:
    errand: Errand
    reporter: Reporter
    asked: int = 0
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.errand.name)

    async def run(self) -> None:
        if self.errand.one_thread:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            files.FileThread = ExecutorFileThread  # type: ignore[misc]
        vars(build)["CacheFiles"] = partial(ReportingFiles, reporter=self.reporter)
        vars(build)["CacheWriter"] = partial(ReportingWriter, reporter=self.reporter)
        world = build.Environment(
            directory=LocalDirectory(self.errand.data_dir),
            transport=httpx.AsyncHTTPTransport(trust_env=False, verify=False),
        )
        async with AsyncExitStack() as stack:
            with self.reporter.doing(Activity.START):
                started = build.running(_settings(self.errand), world)
                store = await stack.enter_async_context(started)
            async with asyncio.TaskGroup() as group:
                tills = [group.create_task(self._till(store, number)) for number in range(TILLS)]
                syncing = group.create_task(self._request_syncs(store))
                await asyncio.wait([*tills, syncing])
                self.reporter.tell("settled")
                await asyncio.Event().wait()

    # -- tills -----------------------------------------------------------------------------

    async def _till(self, store: StoreParts, number: int) -> None:
        """Repeat writes, then make new ones. Keys that the start did not find were never sent, as
        the judge checks: tills do not repeat those."""
        assert isinstance(store.writer, ReportingWriter)
        found = store.writer.keys_found
        for asked in [a for a in self.errand.repeats if a["key"] in found][number::TILLS]:
            for _ in range(REPEATS):
                if await self._ask(store, asked):
                    break
                await asyncio.sleep(AGAIN_SECONDS)
        while store.writer.catalogue is None:
            await store.runner.changed.wait()
        for _ in range(self.errand.writes):
            await self._ask(store, self._new_write(store.writer))

    def _new_write(self, writer: CacheWriter) -> Asked:
        product_id = f"P-{self.chance.randrange(40):03}"
        version = writer.held_version(product_id) if self.chance.random() < 0.5 else None
        self.asked += 1
        return {
            "key": f"{self.errand.name}-{self.asked}",
            "product": product_id,
            "delta": self.chance.choice((-2, -1, 1)),
            "version": version,
        }

    async def _ask(self, store: StoreParts, asked: Asked) -> bool:
        """Make one write; return whether its answer is final."""
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

    async def _request_syncs(self, store: StoreParts) -> None:
        for _ in range(self.errand.syncs):
            await asyncio.sleep(self.chance.random() * SYNC_PAUSE_SECONDS)
            await store.runner.force_full_sync(accept=False)


async def _sent(store: StoreParts, asked: Asked) -> dict[str, Any]:
    product_id, delta, key = asked["product"], asked["delta"], asked["key"]
    if asked["version"] is None:
        return (await store.forwarder.adjust(Adjustment(product_id, delta, key))).body
    write = Write(product_id, delta, asked["version"], key)
    return (await store.forwarder.update_batch((write,))).results[0]


def _settings(errand: Errand) -> Settings:
    return settings_of(
        store_id=STORE_ID,
        central_api_url=errand.central_url,
        data_dir=errand.data_dir,
        event_wait_timeout_seconds=1,
        sync_interval_seconds=1,
        write_timeout_seconds=5,
    )
