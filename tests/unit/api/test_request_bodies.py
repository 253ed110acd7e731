"""How many names and items a body may have, counted before it is parsed."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest

from store_cache.api.content.requests import MOST_MEMBERS, has_more_members
from tests.harness.clients import TILL_KEY
from tests.unit.api.conftest import Store

UPDATES = "/v1/store/inventory/updates"
TEXTS = ("", ",", "{[,", 'a","b', "\\", '\\"', '\\\\",', "ä,", "\n,\\u0022,", '"', '""', "\\\\")


def drawn(chance: Random, depth: int) -> Any:
    kind = chance.randrange(6 if depth else 3)
    if kind == 0:
        return chance.choice(TEXTS)
    if kind < 3:
        return chance.choice((1, -2.5, None, True, chance.choice(TEXTS)))
    if kind < 5:
        return [drawn(chance, depth - 1) for _ in range(chance.randrange(6))]
    return {
        chance.choice(TEXTS) + str(n): drawn(chance, depth - 1) for n in range(chance.randrange(6))
    }


def counted(value: Any) -> int:
    """Commas and brackets: each member but an empty one's, and each object or list, is one."""
    if not isinstance(value, list | dict):
        return 0
    items = value if isinstance(value, list) else value.values()
    return max(1, len(value)) + sum(map(counted, items))


@pytest.mark.parametrize("seed", range(20))
def test_members_are_counted_outside_of_texts(seed: int) -> None:
    """Commas, brackets, quotes and backslashes in texts count for nothing."""
    chance = Random(seed)
    for _ in range(100):
        value = [drawn(chance, 4)]
        body, count = orjson.dumps(value), counted(value)

        assert not has_more_members(body, count), body
        assert has_more_members(body, count - 1), body


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%x":1' % n for n in range(MOST_MEMBERS + 1)) + b"}",
        b'{"a":[' + b",".join([b"[]"] * MOST_MEMBERS) + b"]}",
        b'{"a":[' + b",".join([b'""'] * 60_000) + b"]}",
    ],
    ids=["names", "lists", "texts"],
)
async def test_a_body_of_too_many_members_is_too_large(store: Store, body: bytes) -> None:
    """(T12) It is refused before it is parsed, whatever it is."""
    reply = await store.send("POST", UPDATES, headers={"X-API-Key": TILL_KEY}, body=body)

    assert (413, "payload_too_large") == (reply.status, reply.code)
    assert {"limitMembers": MOST_MEMBERS} == reply.json["error"]["details"]


async def test_a_whole_batch_with_many_fields_is_taken(store: Store) -> None:
    """A hundred updates of twenty fields, with commas in their reasons, are few enough."""
    updates = [
        {
            "productId": "PROD-001",
            "delta": -1,
            "version": 6,
            "idempotencyKey": f"k{number}",
            "reason": "[{,,,," * 100,
        }
        | {f"field{n}": n for n in range(15)}
        for number in range(100)
    ]
    reply = await store.post("/v1/store/inventory/batch-updates", {"updates": updates})

    assert (200, 100) == (reply.status, reply.json["totalCount"])
