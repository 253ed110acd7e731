"""Asks a Central for its feed.

Errors:
    CentralFailed       no usable answer; asked again later
    Gone                Central no longer holds the events asked for (410)
    Nameless            Central names no generation: its feed cannot be copied
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx

from central_stub.publisher.pages import FeedPage, UnreadablePage, read_page

GRACE_SECONDS = 10.0
"""The deadline of a request is this long after Central may hold it."""


class CentralFailed(Exception):
    """Central did not answer, or nothing that can be used."""


class Gone(CentralFailed):
    """The log of Central begins later."""


class Nameless(Exception):
    """Central names no generation, so nobody could tell one feed from the next."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A page, and when it was asked for and had arrived, in seconds of the monotonic clock."""

    page: FeedPage
    generation: str
    asked_at: float
    arrived_at: float

    @property
    def took_seconds(self) -> float:
        return self.arrived_at - self.asked_at


class CentralFeed:
    """The feed of the Central at `url`."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self._client = httpx.AsyncClient(
            base_url=url, headers={"X-API-Key": api_key}, trust_env=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def events(self, offset: int, *, limit: int, wait_seconds: int = 0) -> Answer:
        """Return events from `offset` on. Raises CentralFailed, Gone, Nameless."""
        query = {"offset": offset, "limit": limit, "wait": wait_seconds}
        asked_at = time.monotonic()
        try:
            reply = await self._client.get(
                "/v1/inventory/events", params=query, timeout=wait_seconds + GRACE_SECONDS
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CentralFailed(f"{self.url} gives no answer: {reason}") from error
        if reply.status_code == 410:
            raise Gone(f"{self.url} holds no event {offset} any more")
        if not reply.is_success:
            text = reply.text[:200]
            raise CentralFailed(f"{self.url} answered {reply.status_code}: {text}")
        try:
            page = read_page(reply.content, reply.headers.get("X-Feed-Generation"))
        except UnreadablePage as error:
            raise CentralFailed(f"{self.url}: {error}") from error
        if page.generation is None:
            raise Nameless(
                f"{self.url} names no generation of its feed (X-Feed-Generation), so its stream "
                "could not be told from that of the next one: let stores follow it over HTTP"
            )
        return Answer(page, page.generation, asked_at, time.monotonic())

    async def floor(self, gone: int, head: int) -> int:
        """Return the oldest offset held, between one that is gone and the head, by halving."""
        low, high = gone + 1, max(head, gone + 1)
        while low < high:
            middle = (low + high) // 2
            try:
                await self.events(middle, limit=1)
            except Gone:
                low = middle + 1
            else:
                high = middle
        return low
