"""A real store gives only answers that the description of the API has, whatever it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.random_calls.shop import call_at_random

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_every_answer_is_described(tmp_path: Path) -> None:
    """Right and wrong calls of each operation: no 5xx; statuses, headers, media types and bodies as
    described; what is wrong is refused, and what is right is not; no key, no answer.
    `python -m tests.random_calls` adds calls by chance, and sequences."""
    status, said = await call_at_random(
        tmp_path, examples=1, seed=20_260_301, phases="examples,coverage"
    )

    assert status == 0, said
