"""Streams of live changes over HTTP, of a store that runs in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from store_cache.api.auth import AUTHENTICATOR, KeyRing
from store_cache.api.server import serve
from store_cache.api.stream.reader import Reader
from store_cache.app.serve import api_of
from store_cache.model.product import version_of
from store_cache.writes.write import Adjustment
from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock
from tests.harness.store import RunningStore, a_store, settings_of
from tests.harness.streams import Event, StreamClient
from tests.harness.virtual_time import in_virtual_time


class Shop:
    """A store that is served, and the streams that a test has opened."""

    def __init__(self, store: RunningStore, app: web.Application, port: int) -> None:
        self.store = store
        self.app = app
        self.port = port
        self.clients: list[StreamClient] = []

    async def open(self, query: str = "", **headers: str) -> StreamClient:
        self.clients.append(await StreamClient.open(self.port, query, **headers))
        return self.clients[-1]

    async def ready(self, query: str = "?from=start", **headers: str) -> StreamClient:
        client = await self.open(query, **headers)
        await client.until_named("ready")
        return client

    @property
    def rows(self) -> dict[str, bytes]:
        catalogue = self.store.parts.writer.catalogue
        assert catalogue is not None
        return catalogue.rows

    @property
    def open_streams(self) -> int:
        assert self.store.parts.streams is not None
        return len(self.store.parts.streams)


@asynccontextmanager
async def a_shop(*product_ids: str, **settings: Any) -> AsyncIterator[Shop]:
    central = LedgerTransport(Clock(), *(product_ids or ("P-1", "P-2", "P-3")))
    async with a_store(central=central, **settings) as store:
        await store.until("live")
        app = api_of(store.parts, settings_of(**settings))
        server = await serve(app, host="127.0.0.1", port=0)
        shop = Shop(store, app, server.port)
        try:
            yield shop
        finally:
            for client in shop.clients:
                client.close()
            await server.stop(1.0)


def is_version(product_id: str, version: int) -> Any:
    def is_it(event: Event) -> bool:
        return event.name == "product" and (
            (event.value["productId"], event.value["version"]) == (product_id, version)
        )

    return is_it


# -- what comes --------------------------------------------------------------------------------


@in_virtual_time
async def test_a_reader_from_the_start_gets_every_product_and_then_changes() -> None:
    """[L1, L2] After `ready` it holds the catalogue, and each change comes that a read shows."""
    async with a_shop() as shop:
        client = await shop.ready()
        assert client.head.status == 200
        assert client.head.headers["Content-Type"] == "text/event-stream"
        assert client.head.headers["Cache-Control"] == "no-store"
        assert [event.name for event in client.events] == ["state", *["product"] * 3, "ready"]
        assert client.shelf.rows == shop.rows
        shop.store.central.sell("P-2")
        await client.until(is_version("P-2", 2))
        assert client.shelf.rows == shop.rows


@in_virtual_time
async def test_the_events_have_the_shapes_that_are_documented() -> None:
    """State, ready and position; nothing of an outbox that does not exist."""
    async with a_shop() as shop:
        client = await shop.ready()
        state, ready = client.events[0].value, client.events[-1].value
        assert {"state", "since", "age", "stale", "generation", "offset"} == state.keys()
        assert (state["state"], state["stale"], state["generation"]) == ("live", False, "g-1")
        assert {"products": 3, "generation": "g-1", "offset": 3} == ready
        position = await client.until_named("position")
        assert {"generation", "offset", "age"} == position.value.keys()
        assert position.id is not None
        assert 2000 <= (client.parser.retry or 0) <= 3000


@in_virtual_time
async def test_the_state_says_what_waits_in_the_outbox() -> None:
    """[O10] How many entries are in each state, and anew when that changes."""
    async with a_shop(offline_writes="queue") as shop:
        client = await shop.ready()
        nothing = {"queued": 0, "sending": 0, "inDoubt": 0, "parked": 0}
        assert nothing == client.events[0].value["outbox"]
        outbox = shop.store.parts.outbox
        assert outbox is not None
        shop.store.central.cut()
        await outbox.queue([(Adjustment("P-1", -1, "sale"), 1)], "away")
        told = await client.until(lambda event: event.name == "state")
        assert nothing | {"queued": 1} == told.value["outbox"]


@in_virtual_time
async def test_a_reader_from_now_on_gets_only_changes() -> None:
    """Without `from` no product comes that did not change."""
    async with a_shop() as shop:
        client = await shop.open()
        await client.until_named("state")
        shop.store.central.sell("P-3")
        await client.until(is_version("P-3", 2))
        assert [event.name for event in client.events] == ["state", "product"]


@in_virtual_time
async def test_a_deletion_is_told() -> None:
    """The product's id comes in an event of its own."""
    async with a_shop() as shop:
        client = await shop.ready()
        shop.store.central.ledger.delete("P-2", shop.store.clock.now())
        shop.store.central.wake()
        event = await client.until_named("deleted")
        assert event.value == {"productId": "P-2"}
        assert client.shelf.rows == shop.rows


@in_virtual_time
async def test_a_full_sync_is_told_as_the_products_that_differ() -> None:
    """[L2] Products that a full sync finds changed come as changes, without a reset."""
    async with a_shop() as shop:
        client = await shop.ready()
        shop.store.central.cut()
        await shop.store.until("fallback")
        for _ in range(3):
            shop.store.central.sell("P-1")
        shop.store.central.ledger.forget_log()
        shop.store.central.is_cut = False
        await shop.store.until("live")
        await client.until(is_version("P-1", 4))
        names = [event.name for event in client.events]
        assert "reset" not in names
        assert names.count("product") == 4
        assert client.shelf.rows == shop.rows


@in_virtual_time
async def test_a_replaced_central_resets_its_readers() -> None:
    """[L3] Versions begin anew: the reader gets everything again, by itself."""
    async with a_shop() as shop:
        client = await shop.ready()
        shop.store.central.ledger.begin_generation("g-2")
        shop.store.central.wake()
        reset = await client.until_named("reset")
        assert reset.value == {"reason": "replaced"}
        ready = await client.until_named("ready")
        assert ready.value["generation"] == "g-2"
        assert client.shelf.rows == shop.rows


@in_virtual_time
async def test_a_change_of_the_state_is_told() -> None:
    """A till can show that the store lost Central."""
    async with a_shop() as shop:
        client = await shop.ready()
        shop.store.central.cut()
        event = await client.until(lambda event: event.value.get("state") not in (None, "live"))
        assert event.name == "state"


@in_virtual_time
async def test_only_wanted_products_are_told() -> None:
    """An id may hold anything; products that do not exist are not told, and are once they do."""
    async with a_shop("P-1", "a,b", "50% off") as shop:
        client = await shop.ready("?from=start&productIds=a%2Cb,50%25%20off,P-9")
        assert client.shelf.rows.keys() == {"a,b", "50% off"}
        assert client.events[-1].value["products"] == 2
        shop.store.central.sell("P-1")
        shop.store.central.create("P-9")
        await client.until(is_version("P-9", 1))
        assert [event.name for event in client.events[-2:]] == ["ready", "product"]


@in_virtual_time
async def test_a_list_that_was_encoded_as_a_whole_is_understood() -> None:
    """Many clients encode the commas too."""
    async with a_shop() as shop:
        client = await shop.ready("?from=start&productIds=P-1%2CP-3")
        assert client.shelf.rows.keys() == {"P-1", "P-3"}


# -- going on ----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_reader_goes_on_after_its_last_event() -> None:
    """[L3] What changed meanwhile comes, each product once, and nothing else."""
    async with a_shop() as shop:
        client = await shop.ready()
        last_id = client.last_id
        client.close()
        for _ in range(3):
            shop.store.central.sell("P-1")
            await asyncio.sleep(1.0)
        again = await shop.open("?from=start", last_event_id=last_id)
        await again.until(is_version("P-1", 4))
        assert [event.name for event in again.events] == ["state", "product"]


@in_virtual_time
async def test_a_reader_from_now_on_can_go_on_from_the_first_event() -> None:
    """The state has the id of the last change before it."""
    async with a_shop() as shop:
        client = await shop.open()
        await client.until_named("state")
        client.close()
        shop.store.central.sell("P-1")
        again = await shop.open(last_event_id=client.last_id)
        await again.until(is_version("P-1", 2))


@in_virtual_time
async def test_a_reader_that_lost_its_connection_before_it_was_ready_begins_again() -> None:
    """[L3] Products before `ready` have no id that could be gone on from."""
    async with a_shop() as shop:
        client = await shop.open("?from=start")
        await client.until(lambda event: event.name == "product")
        assert client.events[0].id is None
        assert client.events[1].id is None


@pytest.mark.parametrize("last_id", ["0badcafe:1", "nonsense", "", "0badcafe:" + "9" * 30])
@in_virtual_time
async def test_an_unknown_id_is_answered_with_a_reset(last_id: str) -> None:
    """[L3] The store goes on by itself, as from the start."""
    async with a_shop() as shop:
        client = await shop.ready("", last_event_id=last_id)
        names = [event.name for event in client.events]
        assert names == ["state", "reset", *["product"] * 3, "ready"]
        assert client.events[1].value == {"reason": "restarted"}


@in_virtual_time
async def test_an_id_that_was_not_given_yet_is_answered_with_a_reset() -> None:
    """A number beyond the last change tells nothing."""
    async with a_shop() as shop:
        client = await shop.ready()
        epoch, _, number = client.last_id.partition(":")
        other = await shop.ready(last_event_id=f"{epoch}:{int(number) + 1}")
        assert other.events[1].value == {"reason": "restarted"}


@in_virtual_time
async def test_an_id_older_than_the_history_is_answered_with_a_reset() -> None:
    """[L3] With a history of 100 changes, the change before them has expired."""
    async with a_shop(stream_history=100) as shop:
        client = await shop.ready()
        last_id = client.last_id
        client.close()
        for number in range(101):
            shop.store.central.create(f"N-{number}")
        await asyncio.sleep(5.0)
        again = await shop.ready("", last_event_id=last_id)
        assert again.events[1].value == {"reason": "expired"}
        assert again.shelf.rows == shop.rows
        assert len(shop.rows) == 104


@in_virtual_time
async def test_an_id_of_the_central_before_is_answered_with_a_reset() -> None:
    """[L3] The store remembers what its own earlier epochs were."""
    async with a_shop() as shop:
        client = await shop.ready()
        last_id = client.last_id
        client.close()
        shop.store.central.ledger.begin_generation("g-2")
        shop.store.central.wake()
        await asyncio.sleep(30.0)
        again = await shop.ready("", last_event_id=last_id)
        assert again.events[1].value == {"reason": "replaced"}


@in_virtual_time
async def test_a_defect_of_the_stream_resets_its_readers() -> None:
    """[L5] What was told may have a gap, so everything is told again."""
    async with a_shop() as shop:
        client = await shop.ready()
        assert shop.store.parts.streams is not None
        shop.store.parts.streams.feed.reset()
        reset = await client.until_named("reset")
        assert reset.value == {"reason": "restarted"}
        await client.until_named("ready")
        assert client.shelf.rows == shop.rows


# -- when it comes -----------------------------------------------------------------------------


@in_virtual_time
async def test_changes_within_20_ms_go_out_together() -> None:
    """A change after a silence goes out at once; those that follow wait for the end of 20 ms, and
    each product comes once."""
    async with a_shop() as shop:
        client = await shop.open()
        await client.until_named("state")
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        arrived: list[tuple[float, int]] = []

        async def read() -> None:
            while not arrived or arrived[-1][1] < 5:
                came = await client.read()
                at = round(loop.time() - began_at, 3)
                arrived.extend((at, event.value["version"]) for event in came)

        reading = asyncio.ensure_future(read())
        for _ in range(4):
            shop.store.central.sell("P-1")
            await asyncio.sleep(0.004)
        await reading
        assert arrived == [(0.0, 2), (pytest.approx(0.02, abs=0.002), 5)]


class Sink(asyncio.Transport):
    """A client that takes everything at once. `taken`: bytes since it was last looked at."""

    writing_paused = False
    taken = 0

    def begin_long_reply(self, reply: object) -> None:
        """It never goes."""

    def write(self, data: Any) -> None:
        self.taken += len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It has no buffer."""

    def is_closing(self) -> bool:
        return False


@in_virtual_time
async def test_streams_from_the_start_leave_others_their_turn() -> None:
    """However many begin at once: no more than a millisecond's work is done in one turn."""
    readers, large = 20, "a" * 30_000
    async with a_shop(*(f"P-{number:02}" for number in range(12))) as shop:
        ledger, now = shop.store.central.ledger, shop.store.clock.now()
        for product_id in shop.rows:
            ledger.set({"productId": product_id, "name": large}, now)
        client = await shop.open()
        await client.until(is_version("P-11", 2))
        streams, sink = shop.store.parts.streams, Sink()
        assert streams is not None
        for _ in range(readers):
            reader = Reader(streams.feed, streams.state)
            streams.open(
                reader,
                sink,
                sink,
                is_allowed=lambda: True,
                is_chunked=False,
                begins=reader.begin(last_event_id=None, from_start=True),
            )
        turns: list[int] = []
        while sum(turns) < readers * 12 * len(large):
            sink.taken = 0
            await asyncio.sleep(0)
            turns.append(sink.taken)
        assert max(turns) < 350_000


@in_virtual_time
async def test_a_silent_stream_tells_its_position_every_15_seconds() -> None:
    """So both ends see that the line is alive."""
    async with a_shop() as shop:
        client = await shop.ready()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for number in (1, 2, 3):
            await client.until_named("position")
            assert loop.time() - began_at == pytest.approx(15.0 * number, abs=1.0)


@in_virtual_time
async def test_a_stream_is_not_cut_as_idle() -> None:
    """Ten minutes without a change, and without a byte from the till."""
    async with a_shop() as shop:
        client = await shop.ready()
        async with asyncio.timeout(660.0):
            for _ in range(40):
                await client.until_named("position")
        shop.store.central.sell("P-1")
        await client.until(is_version("P-1", 2))


# -- slow and vanished readers -----------------------------------------------------------------


PADDING = "x" * 2000


def fill(central: LedgerTransport, products: int) -> None:
    for number in range(products):
        row = {"productId": f"N-{number:03}", "name": PADDING, "available": 10}
        central.ledger.create(row, central.clock.now())
    central.wake()


@in_virtual_time
async def test_a_reader_that_falls_behind_gets_the_newest_state_once() -> None:
    """[L2, L4] What is superseded before it was sent is skipped."""
    async with a_shop() as shop:
        central = shop.store.central
        fill(central, 300)
        await asyncio.sleep(10.0)
        client = await shop.ready()
        for _ in range(20):
            for number in range(150):
                central.sell(f"N-{number:03}", 1)
            await asyncio.sleep(1.0)
        sent = sum(len(row) for row in shop.rows.values())
        await client.until(lambda _: client.shelf.rows == shop.rows)
        told = [event for event in client.events if event.name == "product"]
        assert sum(len(event.data) for event in told) < 3 * sent
        versions: dict[str, int] = {}
        for event in told:
            product_id, version = event.value["productId"], version_of(event.data)
            assert versions.get(product_id, 0) <= version
            versions[product_id] = version


@in_virtual_time
async def test_a_reader_that_takes_nothing_is_ended_after_a_minute() -> None:
    """[L4] Its place is free again; until then it costs no memory beyond what was on its way."""
    async with a_shop() as shop:
        central = shop.store.central
        fill(central, 400)
        await asyncio.sleep(10.0)
        client = await shop.open("?from=start")
        await asyncio.sleep(59.0)
        assert shop.open_streams == 1
        assert client.bytes_kept < 64 * 1024
        assert not client.is_cut
        await asyncio.sleep(3.0)
        assert shop.open_streams == 0


@in_virtual_time
async def test_a_slow_reader_that_takes_something_is_kept() -> None:
    """A part now and then is progress."""
    async with a_shop() as shop:
        fill(shop.store.central, 400)
        await asyncio.sleep(10.0)
        client = await shop.open("?from=start")
        while not (client.shelf.is_ready or client.has_ended):
            await client.read()
            await asyncio.sleep(25.0)
        assert client.shelf.rows == shop.rows


@in_virtual_time
async def test_a_reader_that_expires_while_it_is_slow_begins_again() -> None:
    """[L3] More changed than the history keeps: a reset, and everything anew."""
    async with a_shop(stream_history=100) as shop:
        central = shop.store.central
        fill(central, 300)
        await asyncio.sleep(10.0)
        client = await shop.open("?from=start")
        await asyncio.sleep(5.0)
        for number in range(300):
            central.sell(f"N-{number:03}")
        await asyncio.sleep(10.0)
        reset = await client.until_named("reset")
        assert reset.value == {"reason": "expired"}
        await client.until_named("ready")
        assert client.shelf.rows == shop.rows


@in_virtual_time
async def test_the_place_of_a_reader_that_left_is_free_at_once() -> None:
    """[L4] A closed connection is noticed without a write."""
    async with a_shop() as shop:
        client = await shop.ready()
        assert shop.open_streams == 1
        client.close()
        await asyncio.sleep(0.01)
        assert shop.open_streams == 0


# -- limits ------------------------------------------------------------------------------------


@in_virtual_time
async def test_there_are_at_most_as_many_streams_as_set() -> None:
    """[L4] One more is told to come back later; a place that is freed is given away."""
    async with a_shop(stream_readers=2) as shop:
        first = await shop.ready()
        await shop.ready()
        refused = await shop.open()
        assert (refused.head.status, refused.head.code) == (503, "too_many_streams")
        assert 5 <= int(refused.head.headers["Retry-After"]) <= 15
        first.close()
        await asyncio.sleep(0.01)
        await shop.ready()


@in_virtual_time
async def test_without_streams_the_route_is_a_products() -> None:
    """STREAM_READERS=0 leaves nothing of them, and the name is an id like any other."""
    async with a_shop("stream", stream_readers=0, history_limit=0, search=False) as shop:
        assert shop.store.parts.streams is None
        answer = await shop.open()
        assert answer.head.json["productId"] == "stream"
        assert shop.store.parts.writer.announcer.observers == ()


@in_virtual_time
async def test_a_product_of_that_name_does_not_hide_the_stream() -> None:
    """Also for a key that fast reads know already."""
    async with a_shop("stream") as shop:
        for _ in range(2):
            client = await shop.ready()
            assert client.shelf.rows == shop.rows


@in_virtual_time
async def test_a_key_that_is_revoked_ends_its_streams() -> None:
    """[L4] Those of other keys go on."""
    async with a_shop(api_keys="till-secret,other-secret") as shop:
        client, other = await shop.ready(), await shop.ready(key="other-secret")
        shop.app[AUTHENTICATOR].replace(KeyRing(keys=["other-secret"]))
        await client.rest()
        assert client.ended_cleanly
        shop.store.central.sell("P-1")
        await other.until(is_version("P-1", 2))


@in_virtual_time
async def test_a_key_that_is_revoked_ends_a_stream_that_nobody_reads() -> None:
    """[L4] At once, with its connection: what is on its way does not wait for the client."""
    async with a_shop(api_keys="till-secret,other-secret") as shop:
        fill(shop.store.central, 400)
        await asyncio.sleep(10.0)
        client = await shop.open("?from=start")
        await asyncio.sleep(5.0)
        assert client.bytes_kept
        shop.app[AUTHENTICATOR].replace(KeyRing(keys=["other-secret"]))
        await asyncio.sleep(1.0)
        assert client.is_cut
        assert shop.open_streams == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?from=now", "from"),
        ("?from=start&from=start", "from"),
        ("?productIds=", "productIds"),
        ("?productIds=,", "productIds"),
        ("?productIds=%zz", "productIds"),
        ("?productIds=" + ",".join(f"P-{n}" for n in range(201)), "productIds"),
        ("?productId=P-1", "productId"),
    ],
)
@in_virtual_time
async def test_wrong_parameters_are_refused(query: str, field: str) -> None:
    """Each is named, and no stream is opened."""
    async with a_shop() as shop:
        answer = await shop.open(query)
        assert (answer.head.status, [*answer.head.fields]) == (400, [field])
        assert shop.open_streams == 0


@in_virtual_time
async def test_without_a_key_there_is_no_stream() -> None:
    """As for every read."""
    async with a_shop() as shop:
        answer = await shop.open(key="wrong")
        assert answer.head.status == 401


# -- the end -----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_stop_ends_streams_cleanly_and_spreads_their_return() -> None:
    """Each client is told another time to wait, and the stop does not wait for them."""
    central = LedgerTransport(Clock())
    async with a_store(central=central) as store:
        await store.until("live")
        async with store.served() as url:
            port = int(url.rpartition(":")[2])
            client = await StreamClient.open(port, "?from=start")
            await client.until_named("ready")
            began_at = asyncio.get_running_loop().time()
        await client.rest()
        assert client.ended_cleanly
        assert asyncio.get_running_loop().time() - began_at < 1.0
        assert 1000 <= (client.parser.retry or 0) <= 6000
        assert client.parser.retry != 2500  # that of the beginning, see `a_store`
        client.close()


@in_virtual_time
async def test_a_stopping_store_opens_no_stream() -> None:
    """And says that this is why, not that there are too many."""
    async with a_shop() as shop:
        streams = shop.store.parts.streams
        assert streams is not None
        streams.stop()
        refused = await shop.open()

        assert 503 == refused.head.status
        assert "The store is stopping" in refused.head.json["error"]["message"]


@in_virtual_time
async def test_a_head_request_has_no_body() -> None:
    """It says what a GET would be, and opens nothing."""
    async with a_shop() as shop:
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        writer.write(
            b"HEAD /v1/store/inventory/stream HTTP/1.1\r\nHost: store\r\n"
            b"X-API-Key: till-secret\r\n\r\n"
        )
        head = await reader.read()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert head.endswith(b"\r\n\r\n")
        assert shop.open_streams == 0
        writer.close()
