"""The beginning of connections: sockets that cannot be had, and connections that fail."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing
from typing import Any

import pytest
from typing_extensions import override

from store_cache.api import front
from store_cache.api.front import bind
from store_cache.api.server import CannotServe, check_servable, serve
from tests.harness.fake_store import FakeStore, product
from tests.harness.http import Connection
from tests.unit.api.conftest import TILL, api_of
from tests.unit.api.test_proxies import TARGET, header

NO_FAMILY = socket.AF_APPLETALK
"""One that no kernel has had for years, in place of IPv6."""


class OddLoop(asyncio.SelectorEventLoop):
    """Names lead to the addresses of `families`, whether the machine has these or not. Accepting
    fails with each of `failures` first."""

    def __init__(self, *families: int, failures: Iterable[OSError] = ()) -> None:
        super().__init__()
        self._families = families
        self._failures = iter(failures)

    @override
    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(family, socket.SOCK_STREAM, 0, "", (host, port)) for family in self._families]

    @override
    async def sock_accept(self, sock: socket.socket) -> Any:
        accepted = await super().sock_accept(sock)
        for failure in self._failures:
            accepted[0].close()
            raise failure
        return accepted


def run(loop: OddLoop, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with closing(loop):
        loop.run_until_complete(work())


def test_a_family_that_the_machine_lacks_is_left_out() -> None:
    """`HOST` may name addresses of both families."""

    async def work() -> None:
        await check_servable("127.0.0.1", 0)
        [one] = await bind("127.0.0.1", 0)
        with one:
            assert socket.AF_INET == one.family

    run(OddLoop(NO_FAMILY, socket.AF_INET), work)


def test_without_any_family_it_cannot_be_served() -> None:
    """The message names host and port, and what to check."""

    async def work() -> None:
        with pytest.raises(CannotServe, match=r"127\.0\.0\.1 port 80: .*; check HOST and PORT"):
            await check_servable("127.0.0.1", 80)

    run(OddLoop(NO_FAMILY), work)


def test_what_cannot_be_accepted_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is gone before does not count. Others are served once that is possible."""
    monkeypatch.setattr(front, "AFTER_FAILURE_SECONDS", 0.0)
    caplog.set_level(logging.WARNING)
    no_file = OSError(errno.EMFILE, "Too many open files")
    gone = ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")

    async def work() -> None:
        app = api_of(FakeStore([product("PROD-001")]), proxies=["proxy-v2:127.0.0.1"])
        server = await serve(app, host="127.0.0.1", port=0)
        for _ in range(4):
            refused = await Connection.open(server.port)
            await refused.ended()
            refused.close()
        line = await Connection.open(server.port)
        line.writer.write(header())
        assert 200 == (await line.send("GET", TARGET, headers=TILL)).status
        line.close()
        await server.stop(1.0)
        await asyncio.sleep(0)

    run(OddLoop(socket.AF_INET, failures=[gone, no_file, no_file, no_file]), work)

    assert [("connections could not be accepted", str(no_file))] == [
        (one.message, one.__dict__["reason"]) for one in caplog.records
    ]
