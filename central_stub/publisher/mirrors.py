"""Keeps mirrors of the feed in other JetStream domains: those of leaf nodes, one for each region.

A mirror has the sequence numbers of its origin. But it does not notice that its origin was made
anew under the same name, does not forget what its origin forgets, and there is none of a stream
that is new. So this looks at all mirrors every few seconds. The origin's `created` is in the
mirror's metadata: stores read a mirror only if that is what the entry says (docs/nats.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from central_stub.cancellation import is_cancelled
from central_stub.publisher.stream import (
    ENTRY_STREAM,
    ENTRY_SUBJECT,
    REPLY_SECONDS,
    STREAM_PREFIX,
)

LOOK_SECONDS = 5.0
_FAILED = (nats.errors.Error, nats.js.errors.Error, TimeoutError)

log = logging.getLogger(__name__)


class NoDomain(Exception):
    """The server that is published to has no domain that a mirror could name."""


class Mirrors:
    """Mirrors in `domains` of what is in the NATS that `client` is connected to."""

    def __init__(self, client: Client, domains: Sequence[str]) -> None:
        self._client = client
        self._domains = domains
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Look after the mirrors until cancelled. Raises NoDomain."""
        while not is_cancelled():
            try:
                origin = await self._origin()
                streams = await self._streams()
            except _FAILED as error:
                log.debug("mirrors: %s", error)  # the publisher tells of it
            else:
                for domain in self._domains:
                    await self._look_after(domain, origin, streams)
            await asyncio.sleep(LOOK_SECONDS)

    async def _origin(self) -> str:
        """Return how the subjects of the origin's API begin, seen from other domains."""
        info = await self._client.jetstream(timeout=REPLY_SECONDS).account_info()
        if info.domain is None:
            raise NoDomain(
                "a mirror names the domain of what it mirrors: give the JetStream that is "
                'published to a domain (jetstream { domain: "hub" })'
            )
        return f"$JS.{info.domain}.API"

    async def _streams(self) -> list[dict[str, Any]]:
        """Return what NATS says of the streams to mirror: that of the entry, and the bucket's."""
        jetstream = self._client.jetstream(timeout=REPLY_SECONDS)
        entry = await jetstream.get_last_msg(ENTRY_STREAM, ENTRY_SUBJECT)
        name = orjson.loads(entry.data or b"")["stream"]
        found = [await self._info("$JS.API", each) for each in (name, ENTRY_STREAM)]
        return [each for each in found if each is not None]

    async def _info(self, api_prefix: str, name: str) -> dict[str, Any] | None:
        reply = await self._client.request(
            f"{api_prefix}.STREAM.INFO.{name}", b"", timeout=REPLY_SECONDS
        )
        info: dict[str, Any] = orjson.loads(reply.data)
        return None if "error" in info else info

    async def _look_after(self, domain: str, origin: str, streams: list[dict[str, Any]]) -> None:
        """Make the mirrors of a domain as they should be; log why they cannot be, once."""
        api_prefix = f"$JS.{domain}.API"
        jetstream = self._client.jetstream(prefix=api_prefix, timeout=REPLY_SECONDS)
        try:
            for each in streams:
                mirror = await self._info(api_prefix, each["config"]["name"])
                await self._repair(jetstream, origin, each, mirror)
            await _forget_older(jetstream, {each["config"]["name"] for each in streams})
            problem = ""
        except _FAILED as error:
            problem = str(error) or type(error).__name__
        if problem != self._problems.get(domain, ""):
            log.warning("mirrors in %s: %s", domain, problem or "reached again")
        self._problems[domain] = problem

    async def _repair(
        self,
        jetstream: JetStreamContext,
        origin: str,
        stream: dict[str, Any],
        mirror: dict[str, Any] | None,
    ) -> None:
        name, created = stream["config"]["name"], stream["created"]
        if mirror is not None:
            if (mirror["config"].get("metadata") or {}).get("created") == created:
                first = stream["state"]["first_seq"]
                if name != ENTRY_STREAM and mirror["state"]["first_seq"] < first:
                    await jetstream.purge_stream(name, seq=first)
                return
            await jetstream.delete_stream(name)
        source = api.StreamSource(name=name, external=api.ExternalStream(api=origin))
        config = api.StreamConfig(name=name, mirror=source, metadata={"created": created})
        await jetstream.add_stream(config)
        log.info("mirror of %s created", name)


async def _forget_older(jetstream: JetStreamContext, kept: set[str]) -> None:
    """Delete mirrors of generations before, which stores no longer read."""
    for each in await jetstream.streams_info():
        name = each.config.name or ""
        if name.startswith(STREAM_PREFIX) and each.config.mirror and name not in kept:
            await jetstream.delete_stream(name)
