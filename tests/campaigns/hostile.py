"""A store whose Central attacks it with its answers: how much memory and time does that cost?

    python -m tests.campaigns.hostile [--only NAME] [--seconds 6] [--limit-mb 64] [--limit-ms 20]

For each attack a store is started in a process of its own and follows a Central of three products.
Then Central answers one kind of request with the attack, for some seconds, while the store asks for
it again and again. Resident memory is the highest of the process above what it had before, from
Linux's /proc. A stall is the time between two ticks of the store's loop, counted as in
`tests/crash/stalls.py`: the processor time used, or the time that passed, whichever is less.
Afterwards Central answers rightly again, and the store must show its newest state.

Exits with 1 if an attack costs more than the limits, or if the store does not recover.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import uvloop

from store_cache.api.parts import StoreParts
from tests.crash.stalls import Stalls, started
from tests.harness import proc
from tests.harness.background import in_background
from tests.harness.commands import run_to_end
from tests.harness.hostile_central import ATTACKS, HostileCentral, Route
from tests.harness.store import settings_of

ROOT = Path(__file__).parents[2]
RECOVERY_SECONDS = 60.0
STEP_SECONDS = 0.05
SETTLING_SECONDS = 0.5


# -- the store, in a process of its own --------------------------------------------------------


async def be_attacked(central_url: str, data_dir: Path, route: Route, seconds: float) -> None:
    """Follow that Central; tell the parent what the attack costs, a line of JSON for each step."""
    stalls = Stalls()
    settings = settings_of(central_api_url=central_url, data_dir=data_dir)
    async with started(settings) as store, in_background(stalls.tick()):
        await _until(lambda: _state(store) == "live")
        await asyncio.sleep(SETTLING_SECONDS)
        base = proc.resident_bytes(os.getpid())
        proc.forget_highest(os.getpid())
        _tell({"ready": True})
        await asyncio.to_thread(sys.stdin.readline)
        async with stalls.during("attack"):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while True:
                        await _provoke(store, route)
        counted, passed = stalls.longest["attack"]
        status = store.status.sync_status()
        _tell(
            {
                "mb": (proc.highest_resident_bytes(os.getpid()) - base) / 1e6,
                "ms": counted * 1000,
                "passed": passed * 1000,
                "problem": status["errorMessage"],
            }
        )
        row = orjson.loads(await asyncio.to_thread(sys.stdin.readline))
        if route is Route.PAGES:
            await store.runner.force_full_sync(accept=True)
        with suppress(TimeoutError):
            await _until(lambda: _holds(store, row))
        _tell({"recovered": _holds(store, row)})


async def _provoke(store: StoreParts, route: Route) -> None:
    """Have the store ask for what the attack answers."""
    match route:
        case Route.PAGES:
            await store.runner.force_full_sync(accept=False)
        case Route.PRODUCT:
            await store.refetcher.refresh("P-1")
        case _:
            store.runner.wake_after_failure()
            await asyncio.sleep(STEP_SECONDS)


def _state(store: StoreParts) -> str:
    return str(store.status.sync_status()["state"]["name"])


def _holds(store: StoreParts, row: dict[str, Any]) -> bool:
    catalogue = store.writer.catalogue
    body = None if catalogue is None else catalogue.get(row["productId"])
    return body is not None and orjson.loads(body)["version"] == row["version"]


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(RECOVERY_SECONDS):
        while not holds():
            await asyncio.sleep(STEP_SECONDS)


def _tell(value: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()


# -- the attacker ------------------------------------------------------------------------------


async def attack(name: str, seconds: float) -> dict[str, Any]:
    """Return what an attack costs a store of that code."""
    [route] = ATTACKS[name].answers
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        async with HostileCentral().serving() as central:
            central.tell()
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.campaigns.hostile", "--child", route),
                *("--seconds", str(seconds), "--data", folder, "--central", central.url),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                return await _play(central, child, name)
            finally:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()


async def _play(
    central: HostileCentral, child: asyncio.subprocess.Process, name: str
) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    await child.stdout.readline()
    central.attack = ATTACKS[name]
    child.stdin.write(b"\n")
    if not (line := await child.stdout.readline()):
        return {"mb": float("inf"), "ms": float("inf"), "problem": "the store ended"}
    cost: dict[str, Any] = orjson.loads(line)
    cost["struck"] = central.struck
    central.attack = None
    central.tell()
    child.stdin.write(orjson.dumps(central.rows["P-1"]) + b"\n")
    cost |= orjson.loads(await child.stdout.readline() or b"{}")
    return cost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="attacks whose name has this")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--limit-mb", type=float, default=64.0)
    parser.add_argument("--limit-ms", type=float, default=20.0)
    parser.add_argument("--child", type=Route, help=argparse.SUPPRESS)
    parser.add_argument("--central", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        uvloop.run(be_attacked(options.central, options.data, options.child, options.seconds))
        return 0
    failed = 0
    for name in ATTACKS:
        if options.only not in name:
            continue
        cost = run_to_end(attack(name, options.seconds))
        is_right = cost["mb"] <= options.limit_mb and cost["ms"] <= options.limit_ms
        failed += not (is_right and cost.get("recovered"))
        print(
            f"{name:40} +{cost['mb']:7.1f} MB, longest stall {cost['ms']:7.1f} ms, "
            f"{cost.get('struck', 0):4} answers, recovered: {cost.get('recovered')}"
            f"{'' if is_right else '   TOO MUCH'}\n    {cost.get('problem', '')[:160]}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
