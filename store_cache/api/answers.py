"""Answers that several handlers give: JSON that no cache may keep, and answers that go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web


class LongAnswer(web.StreamResponse):
    """An answer whose body goes on while its client reads.

    The middleware calls `send` once it has added the headers that every answer has.
    """

    async def send(self, request: web.Request) -> None:
        raise NotImplementedError


def json_answer(value: Mapping[str, Any], *, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(status=status, body=orjson.dumps(value), headers=headers)
