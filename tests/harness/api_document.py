"""The published description of the API, and whether an answer is as it says."""

from __future__ import annotations

import asyncio
import copy
import re
from typing import Any

import orjson
from jsonschema_rs import Draft202012Validator
from multidict import CIMultiDict

from tests.harness.http import Connection
from tests.harness.store import a_store

Json = dict[str, Any]

EVERY_FEATURE: Json = {"verify_interval_minutes": 60, "offline_writes": "queue"}
"""The settings of a store that switch on what is off in tests; most features are on."""

PLAIN_HEADERS = {
    *("content-type", "content-length", "date", "server", "connection", "vary"),
    *("referrer-policy", "x-content-type-options"),
}
"""What HTTP or a browser deals with."""

COMMON_STATUSES = {401, 404, 405}
"""What is answered below `/v1`, and elsewhere, where there is no such route or method."""


def published_document() -> Json:
    """Return what a store with every feature answers to `GET /openapi.json`."""
    return asyncio.run(_published_document())


async def _published_document() -> Json:
    async with a_store(**EVERY_FEATURE) as store, store.served() as url:
        connection = await Connection.open(int(url.rpartition(":")[2]))
        try:
            return dict((await connection.send("GET", "/openapi.json")).json)
        finally:
            connection.close()


def closed(document: Json) -> Json:
    """Return the document with each object closed: it then has no field that is not described.

    Readers must accept new fields, so the published schemas are open; this service must not send
    any that they do not describe.
    """
    made = copy.deepcopy(document)
    for name, schema in made["components"]["schemas"].items():
        if not name.endswith("Body"):
            _close(schema)
    return made


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)


class Contract:
    """What each route may answer."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._components = closed(document)["components"]
        self._paths = [(_matching(path), item) for path, item in document["paths"].items()]
        self._validators: dict[str, Draft202012Validator] = {}

    def operation(self, method: str, target: str) -> Json | None:
        """Return what is published of a call; None if there is no such route."""
        path = target.partition("?")[0]
        # Literal paths come before `{productId}`, which would match them too.
        found = [item for matching, item in self._paths if matching.fullmatch(path)]
        wanted = "get" if method == "HEAD" else method.lower()
        return next((item[wanted] for item in found if wanted in item), None)

    def problems(
        self, method: str, target: str, status: int, headers: CIMultiDict[str], body: bytes
    ) -> list[str]:
        """Return in what an answer differs from what is published of it."""
        operation = self.operation(method, target)
        if operation is None:
            # Not even HTTP, or no such route.
            known = status in COMMON_STATUSES or status == 400
            return [] if known else [f"{status} is not an answer where there is no route"]
        answer = operation["responses"].get(str(status))
        if answer is None:
            return [f"status {status} is not published"]
        found = self._header_problems(answer, headers)
        if method == "HEAD" or status == 304:
            return found + (["has a body"] if body else [])
        media = headers.get("Content-Type", "").partition(";")[0]
        content = answer.get("content", {})
        if media not in content:
            return [*found, f"{media!r} is not published for {status}"]
        if media.endswith("json"):
            value = orjson.loads(body)
            found += self.body_problems(content[media]["schema"], value)
            code = value.get("error", value).get("code") if isinstance(value, dict) else None
            if code is not None and code not in answer.get("x-error-codes", ()):
                found.append(f"code {code} is not published for {status}")
        return found

    def body_problems(self, schema: Json, value: Any) -> list[str]:
        """Return in what a value differs from a schema whose references are to the components."""
        key = orjson.dumps(schema).decode()
        if key not in self._validators:
            whole = {"components": self._components} | schema
            self._validators[key] = Draft202012Validator(whole)
        errors = self._validators[key].iter_errors(value)
        return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in errors]

    def _header_problems(self, answer: Json, headers: CIMultiDict[str]) -> list[str]:
        known = PLAIN_HEADERS | {name.lower() for name in answer["headers"]}
        found = [f"header {name} is not published" for name in headers if name.lower() not in known]
        for name, shown in answer["headers"].items():
            header = self.resolved(shown)
            text = headers.get(name)
            if text is None:
                if header["required"]:
                    found.append(f"header {name} is missing")
                continue
            value = int(text) if header["schema"]["type"] == "integer" else text
            found += [
                f"{name} {problem}" for problem in self.body_problems(header["schema"], value)
            ]
        return found

    def resolved(self, value: Json) -> Json:
        if "$ref" not in value:
            return value
        kind, name = value["$ref"].removeprefix("#/components/").split("/")
        return dict(self._components[kind][name])


def _matching(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))
