"""Fast reads answer raw bytes over real sockets as the plain path does."""

from __future__ import annotations

from tests.campaigns.differential import compare


async def test_a_few_hundred_requests_are_answered_alike() -> None:
    """Odd, malformed, split, pipelined and conditional ones, to a real store; a quarter of them are
    fast reads."""
    outcome = await compare(300, seed=20)

    assert [] == outcome.differences
    assert outcome.fast > 60
    assert outcome.became["open"] > 20 < outcome.became["closed"]
