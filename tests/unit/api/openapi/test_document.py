"""The document of the API: it has every route, and what the routes accept and answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from store_cache.api.problems import STATUS
from store_cache.api.server import serve
from store_cache.app.serve import api_of
from tests.harness.api_document import EVERY_FEATURE, Contract, published_document
from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY
from tests.harness.http import Connection, Reply
from tests.harness.store import a_store, settings_of

CATCH_ALL = {"/v1{rest}", "/{rest}"}
CHANGING = {"/metrics", "/v1/store/inventory/stream"}
"""What two calls answer differently."""


@dataclass
class Store:
    """The API of a real store with every feature."""

    app: web.Application
    port: int

    async def send(self, method: str, target: str, **headers: str) -> Reply:
        """Send one request; `if_none_match=…` becomes the header If-None-Match."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        line = await Connection.open(self.port)
        reply = await line.send(method, target, headers=named)
        line.close()
        return reply


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with a_store(**EVERY_FEATURE) as running:
        await running.until("live")
        app = api_of(running.parts, settings_of(**EVERY_FEATURE))
        server = await serve(app, host="127.0.0.1", port=0)
        yield Store(app, server.port)
        await server.stop(grace_seconds=1.0)


async def document_of(store: Store) -> dict[str, Any]:
    return dict((await store.send("GET", "/openapi.json")).json)


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_it_is_valid() -> None:
    """It is an OpenAPI 3.1 document by the specification's own schema."""
    document = published_document()

    validate(document, cls=OpenAPIV31SpecValidator)
    assert document["openapi"].startswith("3.1.")


async def test_every_route_is_in_it(store: Store) -> None:
    """The routes of the router are those of the document, but for HEAD and what matches the
    rest."""
    routed = {
        (route.method, route.resource.canonical)
        for route in store.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    found = operations(await document_of(store))

    assert {*found} == {(method, path) for method, path in routed if path not in CATCH_ALL}


async def test_each_call_needs_the_key_that_it_says(store: Store) -> None:
    """Without a key 401, with a till's 403 for what is an admin's; T20 tests all roles."""
    for (method, path), operation in operations(await document_of(store)).items():
        if path.endswith("/stream"):
            continue  # it has no end
        target = path.format(
            productId="PROD-001", name="main.js", idempotencyKey="k", outboxId="01"
        )
        without = await store.send(method, target)
        as_till = await store.send(method, target, x_api_key=TILL_KEY)
        roles = [role for one in operation["security"] for role in one["ApiKey"]]

        assert (401 == without.status) == bool(roles)
        assert (403 == as_till.status) == (roles == ["admin"])


async def test_every_operation_has_its_own_name(store: Store) -> None:
    """Generated clients make functions of the names."""
    names = Counter(
        operation["operationId"] for operation in operations(await document_of(store)).values()
    )

    assert {1} == set(names.values())


async def test_every_error_code_is_in_it(store: Store) -> None:
    """Each code of the API, with its status; all but that of another method."""
    found: dict[str, set[int]] = {}
    for operation in operations(await document_of(store)).values():
        for status, answer in operation["responses"].items():
            for code in answer.get("x-error-codes", ()):
                found.setdefault(code, set()).add(int(status))

    assert found.pop("sync_failed") == {502, 503}
    alone = {"method_not_allowed", "sync_failed"}
    assert found == {code: {status} for code, status in STATUS.items() if code not in alone}


async def test_each_query_parameter_is_in_it(store: Store) -> None:
    """The parameters of each route are those that it names in its errors."""
    wrong = []
    for (method, path), operation in operations(await document_of(store)).items():
        target = path.format(
            productId="PROD-001", name="main.js", idempotencyKey="sale-1", outboxId="01"
        )
        reply = await store.send(method, f"{target}?guess=1", x_api_key=STORE_ADMIN_KEY)
        if reply.status == 200:  # a probe may send what it likes
            continue
        if operation["tags"] == ["Pages"] and path != "/openapi.json":
            continue  # a query of a page is its scripts' business
        said = reply.fields["guess"].partition("known here: ")[2]
        known = set(re.findall(r"[\w-]+", said))
        published = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
        if known != published:
            wrong.append((method, path, known, published))

    assert not wrong


async def test_a_head_has_the_headers_of_a_get(store: Store) -> None:
    """Every GET of the document answers HEAD: with the same headers, and no body."""
    document = await document_of(store)
    contract = Contract(document)
    differing = []
    for method, path in operations(document):
        if method != "GET" or path in CHANGING:
            continue
        target = path.format(productId="P-1", name="start.js", outboxId="01")
        get = await store.send("GET", target, x_api_key=STORE_ADMIN_KEY, x_request_id="same")
        head = await store.send("HEAD", target, x_api_key=STORE_ADMIN_KEY, x_request_id="same")
        for reply in (get, head):
            reply.headers.pop("Date", None)
            reply.headers.pop("Transfer-Encoding", None)  # a HEAD needs none (RFC 9110, 9.3.2)
        wrong = contract.problems("HEAD", target, head.status, head.headers, head.body)
        if (head.status, head.headers) != (get.status, get.headers) or wrong:
            differing.append((target, get, head, wrong))

    assert not differing


async def test_unchanged_it_is_not_sent_again(store: Store) -> None:
    """It has a tag, which stays the same; a HEAD has the same headers."""
    first = await store.send("GET", "/openapi.json")
    again = await store.send("GET", "/openapi.json", if_none_match=first.headers["ETag"])
    head = await store.send("HEAD", "/openapi.json")

    assert 304 == again.status
    assert b"" == again.body
    assert first.headers["ETag"] == again.headers["ETag"] == head.headers["ETag"]
    assert first.headers["Content-Length"] == head.headers["Content-Length"]
