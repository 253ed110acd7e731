"""Every recorded situation gives only answers that the published description has."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from tests.golden import opened, situations
from tests.golden.store import Call, Store
from tests.harness.api_document import Contract, published_document
from tests.harness.http import Reply

RECORDINGS = opened.RECORDINGS | situations.RECORDINGS


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(published_document())


@pytest.mark.parametrize("name", RECORDINGS)
def test_answers_are_as_published(name: str, contract: Contract) -> None:
    """Statuses, headers, media types, bodies and error codes."""
    seen: list[tuple[Call, Reply]] = []
    send = Store.call

    async def noting(store: Store, call: Call) -> Reply:
        reply = await send(store, call)
        seen.append((call, reply))
        return reply

    with patch.object(Store, "call", noting):
        RECORDINGS[name]()

    wrong = [
        f"{call.method} {call.target[:80]}: {problem}"
        for call, reply in seen
        for problem in contract.problems(
            call.method, call.target, reply.status, reply.headers, reply.body
        )
    ]
    assert seen
    assert not wrong, "\n".join(wrong)
