"""`store-cache verify`: what it prints, and its exit status."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from store_cache.cli.main import main
from tests.harness.central import LedgerTransport
from tests.harness.clients import STORE_ADMIN_KEY
from tests.harness.clock import Clock
from tests.harness.store import a_store

EQUAL, DIFFERENT, NOT_COMPARED = 0, 1, 2


async def test_what_was_only_told_is_printed_again_when_it_is_repaired(
    capsys: pytest.CaptureFixture[str],
) -> None:
    central = LedgerTransport(Clock())
    quick: dict[str, Any] = {"verify_interval_minutes": 1440, "hole_grace_seconds": 0.1}
    async with a_store(central=central, **quick) as store, store.served() as url:
        await store.until("live")

        async def verify(*options: str) -> tuple[int, str]:
            arguments = ("verify", "--url", url, "--key", STORE_ADMIN_KEY, *options)
            status = await asyncio.to_thread(main, arguments)
            return status, capsys.readouterr().out

        status, said = await verify()
        assert (EQUAL, True) == (status, "equal, compared by digest" in said)
        central.ledger.lie("P-2", {"available": 7})
        for options, state in ((("--no-repair",), "differs"), ((), "repaired")):
            status, said = await verify(*options)
            assert (DIFFERENT, True) == (status, state in said)
            assert "P-2\n    available: 10 here, 7 at Central" in said
        status, said = await verify("--json")
        assert (EQUAL, "equal") == (status, orjson.loads(said)["state"])
        central.cut()
        status, said = await verify()
        assert NOT_COMPARED == status
