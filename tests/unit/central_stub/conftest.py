"""Fixtures of the tests of the stub."""

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from central_stub.server import Running, running
from central_stub.settings import Settings
from central_stub.switches import Switches
from tests.harness.postgres import Postgres
from tests.unit.central_stub.asker import Asker, AskerOf


@pytest.fixture(params=["memory", "postgres"])
def asker_of(request: pytest.FixtureRequest) -> AskerOf:
    """Makes a Central with these switches, on each of the two ledgers."""
    if request.param == "memory":
        return Asker
    started: Postgres = request.getfixturevalue("postgres")
    return lambda switches: Asker(switches, started)


@pytest.fixture
def asker(asker_of: AskerOf) -> Asker:
    """A Central without products."""
    return asker_of(Switches())


@pytest.fixture
def settings() -> Settings:
    """On any free port, in memory."""
    return Settings(_env_file=None, port=0)


@pytest.fixture(params=["memory", "postgres"])
def either(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """On any free port, on each of the two ledgers."""
    if request.param == "memory":
        return settings
    started: Postgres = request.getfixturevalue("postgres")
    url = started.new_database()
    return Settings(_env_file=None, port=0, database=SecretStr(url))


@pytest.fixture
async def central(either: Settings) -> AsyncIterator[Running]:
    """A Central that serves over loopback."""
    async with running(either) as served:
        yield served


@pytest.fixture
async def client(central: Running) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator's connection to `central`."""
    headers = {"X-API-Key": "admin-demo"}
    async with httpx.AsyncClient(
        base_url=central.url, headers=headers, timeout=10, trust_env=False
    ) as opened:
        yield opened
