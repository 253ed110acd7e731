"""Tills: each line is sold exactly once, through conflicts and failures."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from central_stub.replay import (
    KeyRefused,
    Movement,
    Summary,
    Target,
    central_target,
    read_movements,
    replay,
    store_target,
)
from central_stub.server import Running, running
from central_stub.settings import Settings

NOON = 1_750_000_000.0


@pytest.fixture
def either(settings: Settings) -> Settings:
    """In memory alone: the tests look into the ledger."""
    return settings


def movements(count: int) -> Iterator[Movement]:
    """Sales of one piece each, of three products in turn."""
    return (Movement(line, f"P{line % 3}", -1) for line in range(1, count + 1))


def stocked(central: Running) -> Running:
    for number in range(3):
        central.ledger.create({"productId": f"P{number}", "available": 1000}, NOON)
    return central


def left(central: Running) -> int:
    return sum(row["available"] for row in central.ledger.everything())


def target(central: Running) -> Target:
    return central_target(central.url, "demo", "s1")


async def test_every_line_is_sold_once_by_tills_that_share_products(central: Running) -> None:
    """After a conflict a line is sold with its next key."""
    stocked(central)

    summary = await replay(movements(60), [target(central)], tills=6)

    assert (60, [], 3000 - 60) == (summary.sold, summary.refused, left(central))
    assert summary.conflicts > 0
    keys = {event.get("idempotencyKey") for event in central.ledger.events(4, 1000, NOON).events}
    assert {f"line-{line}" for line in range(1, 61)} == {str(key).partition(".")[0] for key in keys}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop", "when": "after"},
        {"kind": "drop", "when": "before"},
        {"kind": "cut"},
        {"kind": "html"},
        {"kind": "status", "status": 500, "when": "after"},
        {"kind": "status", "status": 503, "retryAfter": 0},
        {"kind": "status", "status": 429, "body": "text"},
    ],
)
async def test_unanswered_write_is_repeated_with_the_same_key(
    central: Running, client: httpx.AsyncClient, fault: dict[str, object]
) -> None:
    """It is sold once, whether the first attempt was applied or not."""
    stocked(central)
    await client.post("/v1/admin/faults", json={**fault, "routes": ["updates"], "times": 2})

    summary = await replay(movements(5), [target(central)], tills=1)

    assert (5, 2, 2995) == (summary.sold, summary.repeats, left(central))
    assert [] == summary.doubtful


async def test_tills_outlast_a_killed_central(tmp_path: Path) -> None:
    """Killed and started again in the middle, every line is sold once."""
    settings = Settings(_env_file=None, port=0, data_dir=tmp_path)
    async with running(settings) as central:
        stocked(central)
        reached = asyncio.Event()
        counted: list[Movement] = []

        def count(movement: Movement) -> None:
            counted.append(movement)
            if len(counted) == 10:
                reached.set()

        task = asyncio.create_task(
            replay(movements(40), [target(central)], tills=4, answered=count)
        )
        await reached.wait()
        await central.kill()
        await central.start()
        summary = await task

        assert (40, 2960) == (summary.sold, left(central))
        assert summary.repeats > 0


async def test_a_refusal_is_listed_with_its_line(central: Running) -> None:
    """More than is available, and an unknown product."""
    stocked(central)
    wrong = iter([Movement(1, "P0", -5000), Movement(2, "none", -1), Movement(3, "P0", -1)])

    summary = await replay(wrong, [target(central)])

    assert (1, [1, 2]) == (summary.sold, sorted(line for line, _ in summary.refused))


async def test_a_wrong_key_ends_the_replay(central: Running) -> None:
    """Instead of repeating for ever."""
    with pytest.raises(KeyRefused, match="answered 401: check the API key"):
        await replay(movements(3), [central_target(central.url, "wrong", "s1")])


def test_a_store_is_written_to_by_its_own_paths() -> None:
    """It adds its own id."""
    said = store_target("http://s", "k")

    assert ("/v1/store/inventory/updates", None) == (said.write_path, said.store_id)


def test_the_rate_is_lines_a_second() -> None:
    """0 for a replay without lines."""
    assert (5.0, 0.0) == (Summary(sold=10, duration_seconds=2).rate, Summary().rate)


CSV = "invoice,productId,delta,kind\n1,A,-2,sale\n1,A,-2,sale\n2,B C,3,return\n"


@pytest.mark.parametrize(
    ("skip", "lines", "expected"),
    [
        (0, None, [(1, "A", -2), (2, "A", -2), (3, "B C", 3)]),
        (1, 1, [(2, "A", -2)]),
        (2, 9, [(3, "B C", 3)]),
        (9, 1, []),
    ],
)
def test_movements_are_named_by_their_line(
    skip: int, lines: int | None, expected: list[tuple[int, str, int]]
) -> None:
    """Equal lines are different movements; skipping does not renumber."""
    assert expected == list(read_movements(io.StringIO(CSV), skip=skip, lines=lines))


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b\n1,2\n", "must name the columns"), ("productId,delta\nA,few\n", "movement 1: delta")],
)
def test_a_file_without_movements_is_told_so(text: str, said: str) -> None:
    """The ValueError names the line."""
    with pytest.raises(ValueError, match=said):
        list(read_movements(io.StringIO(text)))
