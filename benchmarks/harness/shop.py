"""Who is asked for reads: a store with and without its fast path, and its peers, all running.

Knows: how to start each, and that each does the work that it is measured by. Refuses to know: what
they are asked for, and how fast they are.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.harness.measuring import Candidate, Effort
from benchmarks.harness.processes import Server, client, free_port, serving, store
from benchmarks.harness.rows import product_id
from benchmarks.harness.wrk import Requests, load_of, write_requests
from benchmarks.peers import nginx

STORE, PLAIN, NGINX = "store", "store, fast path off", "nginx"
HELLO, FASTAPI = "aiohttp hello", "FastAPI"
TURN_SECONDS = 1.0
"""The shortest that wrk can measure."""


@dataclass
class Shop:
    """Everything that can be asked, and the requests to ask it."""

    effort: Effort
    products: int
    servers: dict[str, Server] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)

    def asked(self, name: str, requests: Requests) -> dict[str, Candidate]:
        """The candidate by its name; none where it does not run."""
        if name not in self.servers:
            return {}
        return {name: load_of(self.servers[name], requests, TURN_SECONDS)}

    def requests(self, name: str, lines: Iterator[str], **post: str) -> Requests:
        return write_requests(self.effort.folder / name, lines, **post)


async def start_stores(shop: Shop, source: Server, running: AsyncExitStack) -> None:
    kinds: dict[str, dict[str, str]] = {STORE: {}, PLAIN: {"FAST_READS": "false"}}
    for number, (name, settings) in enumerate(kinds.items()):
        opened = store(shop.effort.folder, source.url, name=f"store-{number}", settings=settings)
        shop.servers[name] = await running.enter_async_context(opened)


async def start_peers(shop: Shop, running: AsyncExitStack) -> None:
    if nginx.is_installed():
        shop.servers[NGINX] = await running.enter_async_context(nginx.nginx(shop.products))
    else:
        shop.without.append(nginx.MISSING)
    for name, module, path in (
        (HELLO, "hello", "/hello"),
        (FASTAPI, "fastapi_store", f"/v1/store/inventory/{product_id(0)}"),
    ):
        opened = peer(shop, module, path)
        shop.servers[name] = await running.enter_async_context(opened)


@asynccontextmanager
async def peer(shop: Shop, module: str, path: str) -> AsyncIterator[Server]:
    port = free_port()
    async with serving(
        (sys.executable, "-m", f"benchmarks.peers.{module}"),
        port=port,
        path=path,
        log=shop.effort.folder / f"{module}.log",
        environment={"PORT": str(port), "PRODUCTS": str(shop.products)},
    ) as server:
        yield server


class WrongAnswer(Exception):
    """A candidate does not do the work that it would be measured by."""


async def check_answers(shop: Shop) -> None:
    """Each gives the product to who has the key, and to nobody else. Raises WrongAnswer."""
    wanted = product_id(shop.products // 2)
    path = f"/v1/store/inventory/{wanted}"
    for name, server in shop.servers.items():
        if name == HELLO:
            continue
        async with client(server.url) as asking, client(server.url, "another key") as stranger:
            given, refused = await asking.get(path), await stranger.get(path)
        if given.json().get("productId") != wanted or refused.status_code != 401:
            raise WrongAnswer(f"{name}: {given.text[:200]}, and {refused.status_code} to strangers")
