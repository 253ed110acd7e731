"""The fleet's calls: a store reports, an administrator looks."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from central_stub.fleet.ranking import AT_ONCE, Standing, Worst, document_of, standing_of
from central_stub.fleet.report import (
    LARGEST_BYTES,
    STATES,
    STORE_ID,
    Head,
    Report,
    StoreReport,
)
from central_stub.fleet.reports import NoRoom, Reports
from central_stub.tenants import AccessKeys
from central_stub.wire import Refused, Reply, Request, invalid, json_reply, parse_json, whole_number

MOST_LISTED = 1000
LISTED = 200
WRITTEN_AT_ONCE = 100
FEW = 1000
SEEN_SECONDS = 1.0
"""So long it is used again how more than a `FEW` stand: to look at 10,000 takes some 50 ms."""


@dataclass(frozen=True, slots=True)
class FleetMetrics:
    """What `/metrics` shows of a tenant: the processes in each state, the reports taken and
    refused, the ids of stores, and the events that the last one was behind at its report."""

    states: Mapping[str, int]
    answers: Mapping[str, int]
    store_ids: int
    most_lag: int


@dataclass(frozen=True, slots=True)
class Seen:
    """How all processes stood `at` a time, in no order."""

    at: float
    standings: Sequence[Standing]
    counts: Mapping[str, int]


class Fleet:
    """The stores of one tenant. `head` returns where Central's feed ends, as far as is known.

    Nothing here holds the event loop for long, however many stores there are: what looks at more
    than a `FEW` does so in steps, and others are answered in between.
    """

    def __init__(self, tenant: str, keys: AccessKeys, head: Callable[[], Head]) -> None:
        self.reports = Reports()
        self.answers: Counter[str] = Counter()
        """How many reports were taken and refused."""
        self.tenant = tenant
        self._keys = keys
        self._head = head
        self._seen = Seen(float("-inf"), (), {})
        self._looking = asyncio.Lock()

    def take(self, request: Request, now: float) -> Reply:
        """PUT /v1/stores/{storeId}/report. Refused if the key is another store's, the body is
        wrong, or there is no room."""
        try:
            report = self._checked(request)
            lag = self._head().lag_of(report.position)
            kept = StoreReport(store_id_of(request.raw_path), now, report, lag)
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

    async def look(self, now: float) -> Seen:
        """Return how all processes stand; of many, up to a second old."""
        async with self._looking:
            if len(self.reports) <= FEW or not abs(now - self._seen.at) < SEEN_SECONDS:
                self._seen = await self._look(now)
            return self._seen

    async def _look(self, now: float) -> Seen:
        standings: list[Standing] = []
        counted: Counter[str] = Counter()
        for part in self.reports.parts(AT_ONCE):
            found = [standing_of(each, now) for each in part]
            standings += found
            counted.update([each.state for each in found])
            await self._let_others()
        return Seen(now, standings, {state: counted[state] for state in STATES})

    async def _let_others(self) -> None:
        """Between two steps: answer others, if there is so much to do that they would wait."""
        if len(self.reports) > FEW:
            await asyncio.sleep(0)

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
        seen = await self.look(now)
        worst = Worst(offset + limit)
        for start in range(0, len(seen.standings), AT_ONCE):
            some = seen.standings[start : start + AT_ONCE]
            if state or part:
                some = [
                    each
                    for each in some
                    if (not state or each.state == state) and part in each.kept.store_id.lower()
                ]
            worst.add(some)
            await self._let_others()
        page, documents = worst.standings[offset:], []
        for start in range(0, len(page), WRITTEN_AT_ONCE):
            documents += [document_of(each) for each in page[start : start + WRITTEN_AT_ONCE]]
            await self._let_others()
        head = self._head()
        return json_reply(
            {
                "stores": documents,
                "counts": seen.counts,
                "storeIds": self.reports.stores,
                "head": {"generation": head.generation, "offset": head.offset},
                "pagination": {
                    "offset": offset,
                    "limit": limit,
                    "total": worst.total,
                    "hasMore": offset + len(page) < worst.total,
                },
            }
        )

    async def forget(self, request: Request, _: float) -> Reply:
        """DELETE /v1/admin/stores?id=…: a store that was closed. It comes back if it reports."""
        store_id = request.query.get("id", "")
        if not STORE_ID.fullmatch(store_id):
            raise invalid("id", "must be the id of a store")
        self._seen = Seen(float("-inf"), (), {})
        return json_reply({"forgotten": self.reports.forget(store_id)})

    async def metrics(self, now: float) -> FleetMetrics:
        """Return what `/metrics` shows of this tenant."""
        seen = await self.look(now)
        known = (
            each.kept.lag
            for each in seen.standings
            if each.kept.lag is not None and each.state != "silent"
        )
        return FleetMetrics(
            states=seen.counts,
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
