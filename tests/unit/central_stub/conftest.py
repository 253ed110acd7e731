"""Fixtures of the tests of the stub."""

from collections.abc import AsyncIterator

import httpx
import pytest

from central_stub.server import Running, running
from central_stub.settings import Settings
from central_stub.switches import Switches
from tests.unit.central_stub.asker import Asker, AskerOf


@pytest.fixture
def asker() -> Asker:
    """A Central without products."""
    return Asker(Switches())


@pytest.fixture
def asker_of() -> AskerOf:
    return Asker


@pytest.fixture
def settings() -> Settings:
    """On any free port, in memory."""
    return Settings(_env_file=None, port=0)


@pytest.fixture
async def central(settings: Settings) -> AsyncIterator[Running]:
    """A Central that serves over loopback."""
    async with running(settings) as served:
        yield served


@pytest.fixture
async def client(central: Running) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator's connection to `central`."""
    headers = {"X-API-Key": "admin-demo"}
    async with httpx.AsyncClient(
        base_url=central.url, headers=headers, timeout=10, trust_env=False
    ) as opened:
        yield opened
