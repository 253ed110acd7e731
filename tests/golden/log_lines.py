"""The log lines of the sync through one outage, each with its level (B6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

from tests.golden.central import EVENTS, FAILS, NO_CATALOGUE, PAGES, Json
from tests.golden.situations import central_of_three
from tests.golden.store import a_store, force
from tests.harness.virtual_time import run

STORE = "store_cache"
"""The parent of all loggers of the store."""


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect the lines that the store logs within the block, from INFO on."""
    logger, handler = logging.getLogger(STORE), Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def counted(lines: list[str]) -> list[str]:
    """Return equal lines in a row as one, with their number."""
    groups = [(line, len(list(same))) for line, same in groupby(lines)]
    return [line if count == 1 else f"{line} [{count} times]" for line, count in groups]


def outage() -> Json:
    """Record the lines of each step of the script."""
    return run(_outage())


async def _outage() -> Json:
    central = central_of_three()
    said: Json = {}
    with logged() as lines:

        async def step(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            said[name] = counted(lines)
            lines.clear()

        central.instead[PAGES] = NO_CATALOGUE
        async with a_store(central) as store:
            await step("a first start, Central's pages make no sense", 1.0)
            del central.instead[PAGES]
            await step("they do again", 300.0)
            central.fail_to_read("PROD-002")
            central.publish("shelf_moved", central.rows["PROD-002"])
            await step("an event cannot be read", 30.0)
            central.instead[EVENTS] = FAILS
            await step("the feed fails for a while", 21.0)
            central.go_away()
            await step("Central is away", 60.0)
            await store.call(force())
            await step("somebody forces a full sync", 0.5)
            await step("Central is away for long", 320.0)
            central.is_away = False
            del central.instead[EVENTS]
            await step("Central is back", 60.0)
            central.generation = "g-2"
            await step("Central was replaced", 60.0)
        await step("the store stops", 0.0)
    return said


RECORDINGS = {"log_lines.json": outage}
