"""Answers that no cache may keep: what a write, a status or a health check says.

Knows: JSON and its headers. Refuses to know: what is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web


def json_answer(value: Mapping[str, Any], *, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(status=status, body=orjson.dumps(value), headers=headers)
