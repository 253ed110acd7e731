"""The fleet's calls: a store reports, an administrator looks."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from central_stub.fleet.ranking import (
    Head,
    Standing,
    counts_of,
    document_of,
    ranking,
)
from central_stub.fleet.report import LARGEST_BYTES, STATES, STORE_ID, Report, StoreReport
from central_stub.fleet.reports import NoRoom, Reports
from central_stub.tenants import AccessKeys
from central_stub.wire import Refused, Reply, Request, invalid, json_reply, parse_json, whole_number

MOST_LISTED = 1000
LISTED = 200
FEW = 1000
RANKED_SECONDS = 1.0
"""So long the order of more than a `FEW` is used again: that of 10,000 takes some 80 ms."""


@dataclass(frozen=True, slots=True)
class FleetMetrics:
    """What `/metrics` shows of a tenant: the processes in each state, the reports taken and
    refused, the ids of stores, and the events that the last one is behind."""

    states: Mapping[str, int]
    answers: Mapping[str, int]
    store_ids: int
    most_lag: int


class Fleet:
    """The stores of one tenant. `head` returns where Central's feed ends."""

    def __init__(self, tenant: str, keys: AccessKeys, head: Callable[[], Awaitable[Head]]) -> None:
        self.reports = Reports()
        self.answers: Counter[str] = Counter()
        """How many reports were taken and refused."""
        self.tenant = tenant
        self._keys = keys
        self._head = head
        self._ranked: list[Standing] = []
        self._ranked_at = float("-inf")

    def take(self, request: Request, now: float) -> Reply:
        """PUT /v1/stores/{storeId}/report. Refused if the key is another store's, the body is
        wrong, or there is no room."""
        try:
            kept = StoreReport(store_id_of(request.raw_path), now, self._checked(request))
            self.reports.take(kept)
        except Refused:
            self.answers["refused"] += 1
            raise
        except NoRoom as problem:
            self.answers["refused"] += 1
            raise Refused(503, "too_many_stores", str(problem)) from problem
        self.answers["taken"] += 1
        return json_reply({"storeId": kept.store_id, "taken": True})

    def _checked(self, request: Request) -> Report:
        store_id = store_id_of(request.raw_path)
        if len(request.body) > LARGEST_BYTES:
            raise Refused(413, "payload_too_large", f"a report may have {LARGEST_BYTES} bytes")
        self._keys.check_store(request.api_key, store_id)
        try:
            report = Report.model_validate(parse_json(request.body))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            raise invalid(".".join(map(str, problem["loc"])) or "body", problem["msg"]) from None
        if report.tenant != self.tenant:
            message = "the key is not of the tenant that the report names"
            raise Refused(403, "wrong_tenant", message)
        return report

    async def prepare(self, now: float) -> None:
        """Find out ahead how all stand, in parts between which others are answered."""
        for _ in self._rank(await self._head(), now):
            await asyncio.sleep(0)

    def _rank(self, head: Head, now: float) -> Iterator[None]:
        """Find out how all processes stand. Of many, what was found within the last second is used
        again."""
        if len(self.reports) <= FEW or not 0 <= now - self._ranked_at < RANKED_SECONDS:
            found = yield from ranking(list(self.reports), head, now)
            self._ranked, self._ranked_at = found, now

    async def standings(self, now: float) -> Sequence[Standing]:
        """Return how all processes stand, the worst first; of many, up to a second old."""
        for _ in self._rank(await self._head(), now):
            """Nobody waits."""
        return self._ranked

    async def list(self, request: Request, now: float) -> Reply:
        """GET /v1/admin/stores"""
        query = request.query
        limit = whole_number(query, "limit", LISTED, 1, ignores_odd=False)
        offset = whole_number(query, "offset", 0, 0, ignores_odd=False)
        if limit > MOST_LISTED:
            raise invalid("limit", f"must be at most {MOST_LISTED}")
        state, part = query.get("state", ""), query.get("id", "").lower()
        if state and state not in STATES:
            raise invalid("state", f"must be one of {', '.join(STATES)}")
        everyone = await self.standings(now)
        asked = [
            each
            for each in everyone
            if (not state or each.state == state) and part in each.kept.store_id.lower()
        ]
        page = asked[offset : offset + limit]
        head = await self._head()
        return json_reply(
            {
                "stores": [document_of(each) for each in page],
                "counts": counts_of(everyone),
                "storeIds": self.reports.stores,
                "head": {"generation": head.generation, "offset": head.offset},
                "pagination": {
                    "offset": offset,
                    "limit": limit,
                    "total": len(asked),
                    "hasMore": offset + len(page) < len(asked),
                },
            }
        )

    async def forget(self, request: Request, _: float) -> Reply:
        """DELETE /v1/admin/stores?id=…: a store that was closed. It comes back if it reports."""
        store_id = request.query.get("id", "")
        if not STORE_ID.fullmatch(store_id):
            raise invalid("id", "must be the id of a store")
        self._ranked_at = float("-inf")
        return json_reply({"forgotten": self.reports.forget(store_id)})

    async def metrics(self, now: float) -> FleetMetrics:
        """Return what `/metrics` shows of this tenant."""
        await self.prepare(now)
        standings = await self.standings(now)
        known = (each.lag for each in standings if each.lag is not None and each.state != "silent")
        return FleetMetrics(
            states=counts_of(standings),
            answers={outcome: self.answers[outcome] for outcome in ("taken", "refused")},
            store_ids=self.reports.stores,
            most_lag=max(known, default=0),
        )


def store_id_of(raw_path: str) -> str:
    """Return the id in `/v1/stores/{storeId}/report`, or raise Refused."""
    store_id = raw_path.removeprefix("/v1/stores/").removesuffix("/report")
    if not STORE_ID.fullmatch(store_id):
        raise invalid("storeId", "must be 1 to 64 letters, digits, - and _")
    return store_id
