"""What is switched off takes no part: it has no object, no observer, no task and no route."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from typing import Any

from store_cache.app.serve import api_of
from tests.harness.processes import ROOT
from tests.harness.store import a_store, settings_of

ON: dict[str, Any] = {
    "verify_interval_minutes": 15,
    "console": True,
    "api_docs": True,
    "fleet_report": True,
}
OFF: dict[str, Any] = {
    "stream_readers": 0,
    "search": False,
    "history_limit": 0,
    "metrics": False,
    "verify_interval_minutes": 0,
    "console": False,
    "api_docs": False,
    "fast_reads": False,
    "fleet_report": False,
}
PACKAGES = (
    "store_cache.api.fast.reads",
    "store_cache.api.metrics",
    "store_cache.api.search",
    "store_cache.api.stream",
    "store_cache.catalogue.digest",
    "store_cache.catalogue.history",
    "store_cache.catalogue.search",
    "store_cache.fleet",
    "store_cache.sync.verification",
)
ROUTES = (
    "/",
    "/console/{name}",
    "/docs",
    "/docs/{name}",
    "/metrics",
    "/openapi.json",
    "/v1/store/inventory/stream",
    "/v1/store/inventory/{productId}/history",
    "/v1/store/metrics/history",
    "/v1/store/sync/verify",
)

Living = dict[str, list[str]]


def living_with(settings: dict[str, Any]) -> Living:
    """Run a store in a process of its own, where no other test has left anything."""
    code = f"from {__name__} import print_living; print_living({json.dumps(settings)!r})"
    said = subprocess.run(
        (sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not said.returncode, said.stderr
    found: Living = json.loads(said.stdout)
    return found


def print_living(settings: str) -> None:
    sys.stdout.write(json.dumps(asyncio.run(_living(json.loads(settings)))))


async def _living(settings: dict[str, Any]) -> Living:
    constants = _classes()  # those of modules that were only imported
    async with a_store(**settings) as store:
        await store.until("live")
        app = api_of(store.parts, settings_of(**settings))
        gc.collect()
        return {
            "classes": sorted(_classes() - constants),
            "observers": [repr(each) for each in store.parts.writer.announcer.observers],
            "tasks": [repr(task.get_coro()) for task in asyncio.all_tasks()],
            "routes": [r.resource.canonical for r in app.router.routes() if r.resource],
        }


def _classes() -> set[str]:
    kinds = {type(each) for each in gc.get_objects()}
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}


def test_nothing_lives_of_what_is_switched_off() -> None:
    """With everything off, no object of these packages exists, nobody follows the catalogue, and
    besides the test only the event sync, refetches and the circuit breaker have tasks."""
    on, off = living_with(ON), living_with(OFF)

    assert [p for p in PACKAGES if any(name.startswith(p) for name in on["classes"])] == [*PACKAGES]
    assert [n for n in off["classes"] if n.startswith(PACKAGES)] == []
    assert on["observers"]
    assert off["observers"] == []
    assert set(ROUTES) == set(on["routes"]) - set(off["routes"])
    assert len(on["tasks"]) - len(off["tasks"]) == 4  # verification, search index, metrics, fleet
