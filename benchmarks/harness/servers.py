"""The servers that are asked for reads: a store with and without its fast path, and its peers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.harness.measuring import Candidate, Effort
from benchmarks.harness.processes import client, serving, store
from benchmarks.harness.rows import product_id
from benchmarks.harness.wrk import Requests, load_of, write_requests
from benchmarks.peers import nginx
from tests.harness.processes import Program, free_port

STORE, PLAIN, NGINX = "store", "store, fast path off", "nginx"
HELLO, FASTAPI = "aiohttp hello", "FastAPI"
TURN_SECONDS = 1.0
"""The shortest that wrk can measure."""


@dataclass
class Servers:
    """Those that run, by name, and the requests for them. `without`: what is missing, and why."""

    effort: Effort
    products: int
    running: dict[str, Program] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)

    def asked(self, name: str, requests: Requests) -> dict[str, Candidate]:
        """The candidate by its name; empty if that server does not run."""
        if name not in self.running:
            return {}
        return {name: load_of(self.running[name], requests, TURN_SECONDS)}

    def requests(self, name: str, lines: Iterator[str], **post: str) -> Requests:
        return write_requests(self.effort.folder / name, lines, **post)


async def start_stores(servers: Servers, source: Program, running: AsyncExitStack) -> None:
    kinds: dict[str, dict[str, str]] = {STORE: {}, PLAIN: {"FAST_READS": "false"}}
    for number, (name, settings) in enumerate(kinds.items()):
        opened = store(servers.effort.folder, source.url, name=f"store-{number}", settings=settings)
        servers.running[name] = await running.enter_async_context(opened)


async def start_peers(servers: Servers, running: AsyncExitStack) -> None:
    if nginx.is_installed():
        servers.running[NGINX] = await running.enter_async_context(nginx.nginx(servers.products))
    else:
        servers.without.append(nginx.MISSING)
    for name, module, path in (
        (HELLO, "hello", "/hello"),
        (FASTAPI, "fastapi_store", f"/v1/store/inventory/{product_id(0)}"),
    ):
        opened = peer(servers, module, path)
        servers.running[name] = await running.enter_async_context(opened)


@asynccontextmanager
async def peer(servers: Servers, module: str, path: str) -> AsyncIterator[Program]:
    port = free_port()
    async with serving(
        (sys.executable, "-m", f"benchmarks.peers.{module}"),
        port=port,
        path=path,
        log=servers.effort.folder / f"{module}.log",
        environment={"PORT": str(port), "PRODUCTS": str(servers.products)},
    ) as server:
        yield server


class WrongAnswer(Exception):
    """A candidate does not do the work that is measured."""


async def check_answers(servers: Servers) -> None:
    """Check that each gives the product to a client with the key, and to no other. Raises
    WrongAnswer."""
    wanted = product_id(servers.products // 2)
    path = f"/v1/store/inventory/{wanted}"
    for name, server in servers.running.items():
        if name == HELLO:
            continue
        async with client(server.url) as asking, client(server.url, "another key") as stranger:
            given, refused = await asking.get(path), await stranger.get(path)
        if given.json().get("productId") != wanted or refused.status_code != 401:
            raise WrongAnswer(f"{name}: {given.text[:200]}, and {refused.status_code} to strangers")
