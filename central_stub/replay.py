"""Replay a file of stock movements: tills that write to Central or through stores.

A till reads the product for its version, sends the update, and
- after a version conflict reads again and sends with a new key: `line-7`, `line-7.2`, `line-7.3`;
- after an unknown outcome (a broken connection, a timeout, 5xx) repeats the same key and payload
  until it is answered;
- after 429 or 503 waits as `Retry-After` says, bounded and jittered, and repeats.

The next free till takes the next line.
Errors:
    KeyRefused          401 or 403: no till can continue
"""

import asyncio
import csv
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO
from urllib.parse import quote

import httpx
import orjson

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0
TIMEOUT_SECONDS = 15.0
TRY_AGAIN = frozenset({408, 425, 429})
"""The only refusals that are repeated."""


class KeyRefused(Exception):
    """The API key of a till is not accepted; the message says where."""


class Movement(NamedTuple):
    """One line of the file, with its number from 1."""

    line: int
    product_id: str
    delta: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a till writes: Central itself, or a store."""

    url: str
    api_key: str
    read_path: str
    write_path: str
    store_id: str | None


def central_target(url: str, api_key: str, store_id: str) -> Target:
    paths = ("/v1/inventory/", "/v1/inventory/updates")
    return Target(url, api_key, *paths, store_id)


def store_target(url: str, api_key: str) -> Target:
    """Return a store as the target; it adds its own `storeId`."""
    paths = ("/v1/store/inventory/", "/v1/store/inventory/updates")
    return Target(url, api_key, *paths, None)


@dataclass(slots=True)
class Summary:
    """The result of a replay.

    `refused` are (line, reason): answered, but not sold. `doubtful` are lines sold with another key
    after a conflict that followed an unknown outcome: if the first key had been forgotten, they may
    have been sold twice.
    """

    sold: int = 0
    conflicts: int = 0
    repeats: int = 0
    duration_seconds: float = 0.0
    refused: list[tuple[int, str]] = field(default_factory=list)
    doubtful: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Lines sold per second."""
        return self.sold / self.duration_seconds if self.duration_seconds else 0.0


async def replay(
    movements: Iterator[Movement],
    targets: Sequence[Target],
    *,
    tills: int = 1,
    events_per_second: float | None = None,
    seed: int = 0,
    answered: Callable[[Movement], object] = lambda _: None,
) -> Summary:
    """Write every movement once; till i uses target i modulo their number.

    Returns when every line is answered, however long that takes. `answered` is called after each
    line, sold or refused. `events_per_second` None: as fast as answers come. The first error of a
    till or of `movements` ends the replay and is raised.
    """
    summary = Summary()
    queue = _Queue(movements, events_per_second)
    jitter = random.Random(seed)
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(tills):
                target = targets[number % len(targets)]
                group.create_task(_work(target, queue, summary, jitter, answered))
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    summary.duration_seconds = time.monotonic() - began
    return summary


def read_movements(text: TextIO, *, skip: int = 0, lines: int | None = None) -> Iterator[Movement]:
    """Yield the movements of a CSV with columns productId and delta, numbered from 1.

    Leaves out the first `skip` and returns at most `lines`. Raises ValueError for an invalid line.
    """
    rows = csv.DictReader(text, strict=True)
    if not {"productId", "delta"} <= set(rows.fieldnames or ()):
        raise ValueError("the first line must name the columns productId and delta")
    last = None if lines is None else skip + lines
    for number, row in enumerate(rows, start=1):
        if last is not None and number > last:
            return
        if number > skip:
            yield _movement(number, row)


def _movement(number: int, row: dict[str, Any]) -> Movement:
    try:
        return Movement(number, str(row["productId"]), int(row["delta"]))
    except (TypeError, ValueError):
        raise ValueError(f"movement {number}: delta is {row['delta']!r}") from None


class _Queue:
    """Movements one by one, no faster than the given speed."""

    def __init__(self, movements: Iterator[Movement], events_per_second: float | None) -> None:
        self._movements = movements
        self._interval = 1 / events_per_second if events_per_second else 0.0
        self._next_at = time.monotonic()

    async def take(self) -> Movement | None:
        movement = next(self._movements, None)
        if self._interval:
            self._next_at += self._interval
            await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
        return movement


async def _work(
    target: Target,
    queue: _Queue,
    summary: Summary,
    jitter: random.Random,
    answered: Callable[[Movement], object],
) -> None:
    async with _connected(target) as client:
        till = _Till(client, target, summary, jitter)
        while (movement := await queue.take()) is not None:
            await till.sell(movement)
            answered(movement)


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"X-API-Key": target.api_key}
    timeout = httpx.Timeout(TIMEOUT_SECONDS)
    async with httpx.AsyncClient(
        base_url=target.url, headers=headers, timeout=timeout, trust_env=False
    ) as client:
        yield client


class _Answer(NamedTuple):
    """A complete answer, and whether an earlier attempt had an unknown outcome."""

    status: int
    body: dict[str, Any]
    was_unknown: bool


class _Till:
    """One till: one movement at a time."""

    def __init__(
        self, client: httpx.AsyncClient, target: Target, summary: Summary, jitter: random.Random
    ) -> None:
        self._client = client
        self._target = target
        self._summary = summary
        self._jitter = jitter

    async def sell(self, movement: Movement) -> None:
        """Send the movement with one key after another until it is applied or finally refused."""
        attempt, version = 1, await self._read_version(movement)
        while version is not None:
            answer = await self._write(movement, version, attempt)
            if answer.status == 200:
                self._note_sold(movement, version, answer)
                return
            if answer.body.get("errorType") != "version_conflict":
                self._refuse(movement, f"{answer.status} {answer.body}")
                return
            self._note_conflict(movement, answer)
            attempt += 1
            version = await self._read_newer(movement, version, answer)

    async def _read_version(self, movement: Movement) -> int | None:
        path = self._target.read_path + quote(movement.product_id, safe="")
        answer = await self._ask("GET", path, None)
        version = answer.body.get("version")
        if answer.status == 200 and isinstance(version, int):
            return version
        self._refuse(movement, f"reading: {answer.status} {answer.body}")
        return None

    async def _read_newer(self, movement: Movement, sent: int, answer: _Answer) -> int | None:
        """Return the version to send next: that of the conflict if the read is older."""
        version = await self._read_version(movement)
        current = answer.body.get("newVersion")
        return current if version == sent and isinstance(current, int) else version

    async def _write(self, movement: Movement, version: int, attempt: int) -> _Answer:
        key = f"line-{movement.line}" + (f".{attempt}" if attempt > 1 else "")
        update = {
            "productId": movement.product_id,
            "delta": movement.delta,
            "version": version,
            "idempotencyKey": key,
        }
        if self._target.store_id is not None:
            update["storeId"] = self._target.store_id
        return await self._ask("POST", self._target.write_path, orjson.dumps(update))

    async def _ask(self, method: str, path: str, body: bytes | None) -> _Answer:
        """Return the final answer to one request, which is repeated unchanged until then."""
        pause, was_unknown = FIRST_PAUSE_SECONDS, False
        while True:
            response = await self._try(method, path, body)
            if response is not None and response.status_code in {401, 403}:
                message = f"{self._target.url} answered {response.status_code}: check the API key"
                raise KeyRefused(message)
            if response is not None and _is_final(response):
                return _Answer(response.status_code, response.json(), was_unknown)
            self._summary.repeats += 1
            was_unknown = was_unknown or not _is_pause(response)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(_pause(response, pause) * self._jitter.uniform(0.5, 1.0))

    async def _try(self, method: str, path: str, body: bytes | None) -> httpx.Response | None:
        """Return the answer of one attempt, or None if the exchange broke."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._client.request(method, path, content=body, headers=headers)
        except (httpx.TransportError, TimeoutError):
            return None

    def _note_sold(self, movement: Movement, version: int, answer: _Answer) -> None:
        body = answer.body
        if body.get("applied") is True and body.get("newVersion") == version + 1:
            self._summary.sold += 1
        else:
            self._refuse(movement, f"not the answer to version {version}: {body}")

    def _note_conflict(self, movement: Movement, answer: _Answer) -> None:
        self._summary.conflicts += 1
        if answer.was_unknown:
            self._summary.doubtful.append(movement.line)

    def _refuse(self, movement: Movement, reason: str) -> None:
        self._summary.refused.append((movement.line, reason))


def _is_final(response: httpx.Response) -> bool:
    """Return whether this is a success or a refusal, as a JSON object."""
    refused = 400 <= response.status_code < 500 and response.status_code not in TRY_AGAIN
    if response.status_code != 200 and not refused:
        return False
    try:
        return isinstance(response.json(), dict)
    except ValueError:
        return False


def _is_pause(response: httpx.Response | None) -> bool:
    """Return whether the answer, 429 or 503, says that nothing was done."""
    return response is not None and response.status_code in {429, 503}


def _pause(response: httpx.Response | None, otherwise: float) -> float:
    named = "" if response is None else response.headers.get("Retry-After", "")
    return min(float(named), LONGEST_PAUSE_SECONDS) if named.isdigit() else otherwise
