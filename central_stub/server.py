"""Central on a socket: aiohttp in front of `central`, and a backend behind it.

The server holds polls, and performs delays and broken connections. It sends an answer only after
every change that the answer can reflect is durable. `central` decides what an answer says.
"""

import asyncio
import logging
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from central_stub.backend import Backend, NotInMemory, NotOffered, OutcomeUnknown, Unavailable
from central_stub.central import LARGEST_ADMIN_BODY, Api, Held
from central_stub.faults import Cut, Delay, Drop, Fault, Faults, Moment, Status
from central_stub.feed import draw_lateness
from central_stub.fleet.fleet import Fleet
from central_stub.fleet.routes import fleet_routes
from central_stub.ledger import Ledger
from central_stub.local import LocalBackend
from central_stub.prepared import response_of
from central_stub.settings import Settings
from central_stub.storage import FolderStorage, MemoryStorage, Storage, StorageError
from central_stub.switches import Switches
from central_stub.tenants import HEADER as TENANT_HEADER
from central_stub.tenants import UNNAMED, AccessKeys, tenant_of
from central_stub.waiting import Waiters
from central_stub.wire import Refused, Reply, Request, Route, error_reply, json_reply, route_of

if TYPE_CHECKING:
    from central_stub.postgres.database import Database

STOP_SECONDS = 5.0
BACKLOG = 4096

logger = logging.getLogger("central_stub")


def new_name() -> str:
    """Return a unique name for a generation."""
    return f"g-{uuid.uuid4().hex[:12]}"


class Service:
    """Answers the requests to one ledger."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.time) -> None:
        self.api = api
        self.backend: Backend = api.backend
        self._clock = clock
        self._waiters = Waiters()
        self._under_way: dict[int, web.Request] = {}  # of stores; by id(), as they have no hash
        self._away_until = -math.inf  # by the clock of the loop
        api.administration.on_crash = self._crash
        self.backend.changed = self._waiters.wake
        self._stopping = False

    @property
    def held_polls(self) -> int:
        """How many polls are held."""
        return len(self._waiters)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request; `central` routes it."""
        asked = Request(
            method=request.method,
            target=request.raw_path,
            api_key=request.headers.get("X-API-Key", ""),
            body=await request.read(),
            address=request.remote or "",
        )
        if route_of(asked.raw_path) is Route.ADMIN:
            return response_of(request, await self.reply(asked))
        self._under_way[id(request)] = request
        try:
            if asyncio.get_running_loop().time() < self._away_until:
                self._break(request)
                return web.Response(status=503)
            faults = await self._struck(asked)
            if not faults:
                return response_of(request, await self.reply(asked))
            return await self._faulty(request, asked, faults)
        finally:
            del self._under_way[id(request)]

    async def reply(self, request: Request) -> Reply:
        """Return the reply to one request, which no fault strikes; a poll may be held first."""
        if request.raw_path.endswith("/digest"):
            await self.backend.prepare_digest()
        reply = await self.api.reply(request, self._clock())
        if isinstance(reply, Held):
            reply = await self._wait(reply)
        return await self._when_durable(reply)

    def stop(self) -> None:
        """Answer every held poll, and hold no more."""
        self._stopping = True
        self.backend.settle_no_more()
        self._waiters.wake()

    def _crash(self, seconds: float) -> None:
        """Break every connection on which a store waits for an answer, or asks for something in the
        next `seconds`, as the end of the process does."""
        self._away_until = asyncio.get_running_loop().time() + seconds
        for request in self._under_way.values():
            self._break(request)

    @staticmethod
    def _break(request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()

    # One request

    async def _when_durable(self, reply: Reply) -> Reply:
        """Return the reply once all changes are durable, which wakes held polls."""
        try:
            await self.backend.synced()
        except StorageError as error:
            body = {"code": "internal_error", "message": str(error), "details": []}
            return json_reply(body, status=500)
        return reply

    async def _wait(self, held: Held) -> Reply:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + held.wait_seconds
        while not self._stopping:
            remaining = deadline - loop.time()
            if remaining <= 0:
                break
            await self._waiters.wait(remaining)
            try:
                reply = self.api.poll(held, self._clock())
            except NotInMemory:
                return await self.api.ask(held, self._clock())
            if reply is not None:
                return reply
        return await self.api.end(held, self._clock())

    # Faults

    async def _struck(self, request: Request) -> list[Fault]:
        try:
            return await self.backend.strike(self.api.route(request))
        except (Refused, Unavailable, OutcomeUnknown):
            return []

    async def _faulty(
        self, request: web.Request, asked: Request, faults: list[Fault]
    ) -> web.StreamResponse:
        reply = await self._early(request, faults)
        if reply is None:
            reply = await self.reply(asked)
        await self._disturb(request, faults, "after")
        for fault in faults:
            if not isinstance(fault, Status) or fault.moment == "after":
                reply = fault.spoil(reply)
        cut = next((fault for fault in faults if isinstance(fault, Cut)), None)
        if cut is not None:
            return await _send_cut(request, reply, cut)
        return response_of(request, reply)

    async def _early(self, request: web.Request, faults: list[Fault]) -> Reply | None:
        """Return the answer of a fault that strikes before the request takes effect, or None."""
        dropped = await self._disturb(request, faults, "before")
        for fault in faults:
            if isinstance(fault, Status) and fault.moment == "before":
                return fault.spoil(Reply(fault.status, b""))
        return Reply(503, b"") if dropped else None

    async def _disturb(self, request: web.Request, faults: list[Fault], moment: Moment) -> bool:
        """Delay and drop; return whether the connection was dropped."""
        dropped = False
        for fault in faults:
            if fault.moment != moment:
                continue
            if isinstance(fault, Delay):
                await asyncio.sleep(fault.seconds)
            if isinstance(fault, Drop) and request.transport is not None:
                request.transport.abort()
                dropped = True
        return dropped


async def _send_cut(request: web.Request, reply: Reply, cut: Cut) -> web.StreamResponse:
    kept = len(reply.body) // 2 if cut.keep_bytes is None else cut.keep_bytes
    headers = {"Content-Type": reply.content_type, "Content-Length": str(len(reply.body))}
    response = web.StreamResponse(status=reply.status, headers=headers | dict(reply.headers))
    await response.prepare(request)
    await response.write(reply.body[: min(kept, len(reply.body) - 1)])
    if request.transport is not None:
        request.transport.close()
    return response


class Tenants:
    """Has each request answered by the service of its tenant."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services
        self._keys = {tenant: service.api.keys for tenant, service in services.items()}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        key, named = request.headers.get("X-API-Key", ""), request.headers.get(TENANT_HEADER)
        try:
            tenant = tenant_of(key, named, self._keys)
        except Refused as refused:
            switches = self._services[UNNAMED].backend.switches
            return response_of(request, error_reply(refused, switches))
        return await self._services[tenant].handle(request)

    async def stop(self, _: web.Application) -> None:
        """Answer every held poll, and hold no more."""
        for service in self._services.values():
            service.stop()


def build_app(services: Mapping[str, Service], clock: Callable[[], float]) -> web.Application:
    """Build the application that serves each tenant by its service; one is that of `UNNAMED`."""
    tenants = Tenants(services)
    app = web.Application(client_max_size=LARGEST_ADMIN_BODY)
    fleets = [service.api.fleet for service in services.values()]
    app.router.add_routes(fleet_routes(fleets, clock))
    app.router.add_route("*", "/{path:.*}", tenants.handle)
    app.on_shutdown.append(tenants.stop)
    return app


def open_ledger(
    folder: Path | None, switches: Switches, source: random.Random
) -> tuple[Ledger, Storage]:
    """Open the ledger in `folder`; None: in memory. StorageError."""
    ledger = Ledger(
        generation=new_name(), switches=switches, lateness=lambda: draw_lateness(source)
    )
    if folder is None:
        return ledger, MemoryStorage()
    storage = FolderStorage(folder)
    try:
        ledger.replay(storage.load())
        storage.begin(ledger.backup)
    except BaseException:
        storage.abandon()
        raise
    ledger.record = storage.record
    return ledger, storage


def _database_at(url: str) -> "Database":
    try:
        from central_stub.postgres.database import Database  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "a database needs the extra postgres: pip install 'store-cache[postgres]'"
        raise StorageError(message) from error
    return Database(url)


class Running:
    """A serving Central. It keeps its address when it is stopped or killed, and started again.

    `clock` returns unix seconds; timers are those of the running loop.
    """

    def __init__(
        self,
        settings: Settings,
        switches: Switches | None = None,
        seed: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._switches = switches or settings.switches
        self._source = random.Random(seed)
        self._clock = clock
        self._port = settings.port
        self._runner: web.AppRunner | None = None
        self._sharing: list[asyncio.Task[None]] = []
        self._services: dict[str, Service] = {}
        self._database: Database | None = None

    @property
    def url(self) -> str:
        return f"http://{self._settings.host}:{self._port}"

    @property
    def ledger(self) -> Ledger:
        """The ledger of the unnamed tenant. RuntimeError before `start`."""
        return self.ledger_of(UNNAMED)

    def ledger_of(self, tenant: str) -> Ledger:
        """Return the ledger of a tenant. RuntimeError before `start`, KeyError if there is none,
        TypeError if it is in a database."""
        if not self._services:
            raise RuntimeError("not started yet: call start() first")
        backend = self._services[tenant].backend
        if not isinstance(backend, LocalBackend):
            raise TypeError("the ledger is in a database, not in this process")
        return backend.ledger

    @property
    def held_polls(self) -> int:
        """How many polls are held, of all tenants; 0 while it is not running."""
        if self._runner is None:
            return 0
        return sum(service.held_polls for service in self._services.values())

    async def reply(self, request: Request, *, tenant: str = UNNAMED) -> Reply:
        """Return the reply to one request without the network and its faults. RuntimeError while it
        is not running."""
        if self._runner is None:
            raise RuntimeError("it is not running: call start() first")
        return await self._services[tenant].reply(request)

    async def products(self) -> int:
        """Return how many products the unnamed tenant has. RuntimeError before `start`."""
        if not self._services:
            raise RuntimeError("not started yet: call start() first")
        return (await self._services[UNNAMED].backend.moment()).products

    async def start(self) -> None:
        """Read the folders, or connect to the database, and listen. StorageError, OSError."""
        keys_of = {UNNAMED: self._settings.store_keys, **self._settings.keys_of_tenants}
        self._services = {}
        try:
            if self._settings.database_url is not None:
                self._database = _database_at(self._settings.database_url)
                await self._database.open()
            for tenant, keys in keys_of.items():
                backend = self._open(tenant)
                bound = self._settings.store_ids_of_keys
                access = AccessKeys(keys, self._settings.admin_keys, bound)
                api = Api(backend, keys=access, new_name=new_name, tenant=tenant)
                self._services[tenant] = Service(api, self._clock)
                await backend.start()
                self._share(tenant, api.fleet)
            app = build_app(self._services, self._clock)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
            await self._listen(self._runner)
        except BaseException as problem:
            await self.stop()
            for service in self._services.values():
                service.backend.abandon()
            await self._close_database()
            if isinstance(problem, Unavailable | NotOffered):
                raise StorageError(str(problem)) from problem
            raise

    async def stop(self) -> None:
        """Answer all requests, also held polls, and close. Do nothing if it is not running."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            for service in self._services.values():
                await service.backend.close()
            await self._close_database()

    async def kill(self) -> None:
        """Break every connection and lose what is not on disk, as `kill -9` does."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for connection in runner.server.connections if runner.server is not None else []:
            if connection.transport is not None:
                connection.transport.abort()
        for service in self._services.values():
            service.backend.abandon()
        await runner.cleanup()
        await self._close_database()

    def _open(self, tenant: str) -> Backend:
        """Open the ledger of a tenant; one with a name has a folder below that of the others."""
        if self._database is not None:
            return self._in_database(self._database, tenant)
        folder = self._settings.data_dir
        if folder is not None and tenant != UNNAMED:
            folder /= f"tenant-{tenant}"
        ledger, storage = open_ledger(folder, self._switches, self._source)
        return LocalBackend(ledger, Faults(self._source.random), storage, self._clock)

    def _in_database(self, database: "Database", tenant: str) -> Backend:
        from central_stub.postgres.backend import PostgresBackend  # noqa: PLC0415 - an extra

        return PostgresBackend(
            database,
            tenant,
            switches=self._switches,
            explicit=frozenset(self._switches.model_fields_set),
            new_name=new_name,
            draw=self._source.random,
            clock=self._clock,
        )

    def _share(self, tenant: str, fleet: Fleet) -> None:
        """Share the reports of stores with the other processes on the same database, if any."""
        if self._database is not None:
            from central_stub.postgres.reports import SharedReports  # noqa: PLC0415 - an extra

            shared = SharedReports(self._database, tenant, fleet.reports, self._clock)
            self._sharing.append(asyncio.create_task(shared.run()))

    async def _close_database(self) -> None:
        sharing, self._sharing = self._sharing, []
        for task in sharing:
            task.cancel()
        await asyncio.gather(*sharing, return_exceptions=True)
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        site = web.TCPSite(runner, self._settings.host, self._port, backlog=BACKLOG)
        await site.start()
        self._port = runner.addresses[0][1]


@asynccontextmanager
async def running(
    settings: Settings, switches: Switches | None = None, seed: int | None = None
) -> AsyncIterator[Running]:
    """Serve until the block ends; port 0 is any free port."""
    central = Running(settings, switches, seed)
    await central.start()
    try:
        yield central
    finally:
        await central.stop()
