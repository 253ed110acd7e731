"""Central on a socket: held polls, broken connections, stops and restarts."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from central_stub.server import Running, running
from central_stub.settings import Settings
from central_stub.switches import Feature, Switches
from tests.harness.postgres import Postgres

CREATE = "/v1/admin/products/create"
POLL = "/v1/inventory/events?offset=1&wait=30"


async def create(client: httpx.AsyncClient, *product_ids: str) -> None:
    products = [{"productId": product_id, "available": 10} for product_id in product_ids]
    answer = await client.post(CREATE, json={"products": products})
    assert 200 == answer.status_code


async def sell(client: httpx.AsyncClient, version: int, key: str) -> httpx.Response:
    update = {"productId": "P1", "delta": -1, "version": version, "idempotencyKey": key}
    return await client.post("/v1/inventory/updates", json=update)


async def fault(client: httpx.AsyncClient, **order: Any) -> None:
    assert 200 == (await client.post("/v1/admin/faults", json=order)).status_code


async def test_a_held_poll_is_answered_when_something_happens(
    central: Running, client: httpx.AsyncClient
) -> None:
    """Long before its thirty seconds have passed."""
    began = time.monotonic()
    poll = asyncio.create_task(client.get(POLL))
    await until_held(central)
    await create(client, "P1")

    events = (await poll).json()["events"]

    assert [1] == [event["offset"] for event in events]
    assert time.monotonic() - began < 5


async def test_a_held_poll_ends_empty_when_its_time_is_up(client: httpx.AsyncClient) -> None:
    """An empty list, after the requested seconds and not before."""
    began = time.monotonic()

    body = (await client.get("/v1/inventory/events?offset=1&wait=1")).json()

    assert ([], 1) == (body["events"], body["nextOffset"])
    assert time.monotonic() - began >= 1


async def test_all_who_wait_are_woken(central: Running) -> None:
    """A hundred polls at once, one event, a hundred answers."""
    limits = httpx.Limits(max_connections=150)
    async with httpx.AsyncClient(
        base_url=central.url, headers={"X-API-Key": "admin-demo"}, limits=limits, timeout=30
    ) as client:
        polls = [asyncio.create_task(client.get(POLL)) for _ in range(100)]
        await until_held(central, 100)
        await create(client, "P1")
        answers = await asyncio.gather(*polls)

    assert {1} == {answer.json()["count"] for answer in answers}


async def test_a_stop_releases_held_polls(central: Running, client: httpx.AsyncClient) -> None:
    """At once, with an empty answer."""
    await create(client, "P1")
    began = time.monotonic()
    poll = asyncio.create_task(client.get("/v1/inventory/events?offset=2&wait=30"))
    await until_held(central)

    await central.stop()

    assert [] == (await poll).json()["events"]
    assert time.monotonic() - began < 5


async def until_held(central: Running, polls: int = 1) -> None:
    """Return when so many polls are held."""
    async with asyncio.timeout(20):
        while central.held_polls < polls:  # noqa: ASYNC110 (the server runs in this loop)
            await asyncio.sleep(0)


async def test_the_common_answer_is_complete_http(central: Running) -> None:
    """Head, length and date are right for HTTP/1.1, 1.0 and a connection that closes."""
    for version, header in (("1.1", ""), ("1.1", "Connection: close\r\n"), ("1.0", "")):
        asked = f"GET /health HTTP/{version}\r\nHost: c\r\n{header}\r\n"
        head, body = await raw_exchange(central.url, asked.encode())
        assert str(len(body)) == head["content-length"]
        assert "application/json" == head["content-type"].partition(";")[0]
        assert head["date"].endswith(" GMT")


async def raw_exchange(url: str, asked: bytes) -> tuple[Mapping[str, str], bytes]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(asked)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
    head = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(head["content-length"]))
    writer.close()
    await writer.wait_closed()
    return head, body


async def test_a_dropped_write_took_effect_or_not(client: httpx.AsyncClient) -> None:
    """before: it has no effect; after: it is applied, as the same key shows."""
    await create(client, "P1")

    for moment, version in (("before", 1), ("after", 2)):
        await fault(client, kind="drop", when=moment, routes=["updates"], times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            await sell(client, 1, "k1")
        assert version == (await client.get("/v1/inventory/P1")).json()["version"]

    assert {"applied": True, "newVersion": 2}.items() <= (
        await sell(client, 1, "k1")
    ).json().items()


async def test_a_cut_body_is_shorter_than_announced(client: httpx.AsyncClient) -> None:
    """The client notices."""
    await create(client, "P1")
    await fault(client, kind="cut", keepBytes=10, times=1)

    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        await client.get("/v1/inventory")

    assert 200 == (await client.get("/v1/inventory")).status_code


@pytest.mark.parametrize(
    ("order", "status", "version"),
    [
        ({"kind": "status", "status": 503, "retryAfter": 3}, 503, 1),
        ({"kind": "status", "status": 500, "when": "after", "body": "empty"}, 500, 2),
        ({"kind": "html"}, 502, 2),
        ({"kind": "html", "status": 200}, 200, 2),
    ],
)
async def test_another_answer_is_given_before_or_after_the_effect(
    client: httpx.AsyncClient, order: dict[str, Any], status: int, version: int
) -> None:
    """What the client sees, and whether the write was applied."""
    await create(client, "P1")
    await fault(client, **order, times=1)

    answer = await sell(client, 1, "k1")

    assert status == answer.status_code
    assert version == (await client.get("/v1/inventory/P1")).json()["version"]


@pytest.mark.parametrize("loses", ["events", "stock"])
async def test_a_crash_breaks_what_is_under_way_and_stays_crashed(
    tmp_path: Path, loses: str
) -> None:
    """A held poll is not answered from a ledger that lost something; the caller of the fault is.
    What was lost stays lost after a restart."""
    settings = Settings(_env_file=None, port=0, data_dir=tmp_path)
    async with running(settings) as central:
        headers = {"X-API-Key": "admin-demo"}
        async with httpx.AsyncClient(base_url=central.url, headers=headers) as client:
            await create(client, "P1")
            await sell(client, 1, "k1")
            poll = asyncio.create_task(client.get("/v1/inventory/events?offset=3&wait=30"))
            await until_held(central)

            await fault(client, kind="crash", loses=loses, count=1)

            with pytest.raises(httpx.RemoteProtocolError):
                await poll
            expected = {"events": (2, 9), "stock": (3, 10)}[loses]
            for _ in range(2):
                row = central.ledger.read("P1") or {}
                assert expected == (central.ledger.next_offset, row["available"])
                await central.kill()
                await central.start()


async def test_a_delay_delays(client: httpx.AsyncClient) -> None:
    """At least its seconds."""
    await fault(client, kind="delay", seconds=0.05, routes=["pages"], times=1)
    began = time.monotonic()

    await client.get("/v1/inventory")

    assert time.monotonic() - began >= 0.05


async def test_a_killed_central_comes_back_from_its_folder(tmp_path: Path) -> None:
    """Same address, generation, offsets and keys; every answered write is there."""
    settings = Settings(_env_file=None, port=0, data_dir=tmp_path)
    async with running(settings) as central:
        url, generation = central.url, central.ledger.generation
        async with httpx.AsyncClient(
            base_url=url, headers={"X-API-Key": "admin-demo"}, timeout=10
        ) as client:
            await create(client, "P1")
            sold = (await sell(client, 1, "k1")).json()
            poll = asyncio.create_task(client.get("/v1/inventory/events?offset=3&wait=30"))
            await until_held(central)
            await central.kill()
            with pytest.raises(httpx.TransportError):
                await poll
            await central.start()

            assert url == central.url
            assert (generation, 2) == (central.ledger.generation, central.ledger.head)
            assert sold == (await sell(client, 1, "k1")).json()


async def test_in_memory_every_start_is_a_new_generation(settings: Settings) -> None:
    """And an empty one."""
    async with running(settings) as central:
        before = central.ledger.generation
        await central.stop()
        await central.start()

        assert before != central.ledger.generation


async def test_in_a_database_every_start_goes_on(postgres: Postgres) -> None:
    """Same address, generation, offsets and keys."""
    settings = Settings(_env_file=None, port=0, database=SecretStr(postgres.empty_database()))
    headers = {"X-API-Key": "admin-demo"}
    async with (
        running(settings) as central,
        httpx.AsyncClient(base_url=central.url, headers=headers, timeout=10) as client,
    ):
        await create(client, "P1")
        sold = (await sell(client, 1, "k1")).json()
        before = await client.get("/v1/inventory")
        await central.kill()
        await central.start()
        after = await client.get("/v1/inventory")

        assert (before.json(), before.headers["X-Feed-Generation"]) == (
            after.json(),
            after.headers["X-Feed-Generation"],
        )
        assert sold == (await sell(client, 1, "k1")).json()


async def test_a_failed_disk_is_answered_with_500_and_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even reads, which could show what a crash loses."""
    settings = Settings(_env_file=None, port=0, data_dir=tmp_path)
    async with running(settings) as central:
        async with httpx.AsyncClient(
            base_url=central.url, headers={"X-API-Key": "admin-demo"}, timeout=10
        ) as client:
            await create(client, "P1")
            monkeypatch.setattr("os.fdatasync", failing)
            answers = [await sell(client, 1, "k1"), await client.get("/v1/inventory/P1")]
        await central.kill()

    assert [500, 500] == [answer.status_code for answer in answers]


def failing(_: int) -> None:
    raise OSError(28, "No space left on device")


async def test_late_events_wake_held_polls(settings: Settings) -> None:
    """A Central without order publishes everything within 0.11 s."""
    switches = Switches(without=frozenset({Feature.ORDER}))
    async with (
        running(settings, switches, seed=4) as central,
        httpx.AsyncClient(
            base_url=central.url, headers={"X-API-Key": "admin-demo"}, timeout=10
        ) as client,
    ):
        await create(client, *(f"P{number}" for number in range(40)))
        seen: set[int] = set()
        while len(seen) < 40:
            missing = next(offset for offset in range(1, 41) if offset not in seen)
            target = f"/v1/inventory/events?offset={missing}&wait=10"
            events = (await client.get(target)).json()["events"]
            seen |= {event["offset"] for event in events}

    assert set(range(1, 41)) == seen
