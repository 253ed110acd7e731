"""A short campaign on PostgreSQL, with sales that are made up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from central_stub.postgres.temporary import NoPostgres, TemporaryServer
from tests.campaigns.postgres import Campaign, generated, run, two_centrals


@pytest.fixture
def server() -> Iterator[TemporaryServer]:
    """A server of its own, since it is killed. Its files are not those of pytest: it may run as
    another user."""
    try:
        # Commits reach the operating system, which is not killed.
        started = TemporaryServer({"fsync": "off"})
    except NoPostgres as problem:
        pytest.skip(str(problem))
    with started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_nothing_is_lost_or_doubled_when_all_are_killed(
    server: TemporaryServer, tmp_path: Path
) -> None:
    """Both processes and PostgreSQL, with writes in flight: exact stock, dense offsets, each key
    applied once."""
    catalogue = [{"productId": f"P-{number:03}", "available": 5000} for number in range(20)]
    movements = list(generated(20, 120, seed=3))
    async with two_centrals(tmp_path, server, catalogue) as centrals:
        campaign = Campaign(server, centrals, movements, seed=3)

        assert await run(campaign, kills=1)

        left = dict.fromkeys((row["productId"] for row in catalogue), 5000)
        for movement in movements:
            left[movement.product_id] += movement.delta
        rows = await centrals[0].rows()
        assert left == {product_id: row["available"] for product_id, row in rows.items()}
    assert campaign.summary.repeats
