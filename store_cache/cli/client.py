"""A client of a running store's API, for the command line.

Every failure is a `CallFailed` whose message tells a person what to do.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote, urlencode

import httpx
import orjson

READ_SECONDS = 10.0
SILENCE_SECONDS = 40.0
"""The store writes to a stream every 15 s at the latest."""

SETTLE_SECONDS = 30.0
"""The store asks Central for the product before it settles a write."""

FORCE_SECONDS = 3600.0
"""A full sync of a large catalogue under Central's rate limit can take many minutes."""


DUMP_SECONDS = 120.0
"""How long the store may send nothing of a dump: others may be read first."""

_OUTBOX = "/v1/store/outbox"


class CallFailed(Exception):
    """The store did not answer as expected; the message says what to do."""


class StreamRefused(CallFailed):
    """There is no live stream to read, though the store answers."""


class StoreClient:
    """Calls the store at `url` (without a scheme: by http) with the first of `keys` that it takes.

    `tls` says for https which certificates are trusted, and which one is shown; None: the usual.

    Raises:
        CallFailed: by every method, and if `url` or a key cannot be used.
    """

    def __init__(self, url: str, keys: Sequence[str], tls: ssl.SSLContext | None = None) -> None:
        self.url = url if "://" in url else f"http://{url}"
        self.store_time = time.time()
        """When the last document was made, in unix seconds by the store's clock."""
        self._keys = list(keys)
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers={"X-API-Key": self._keys[0]},
                timeout=READ_SECONDS,
                trust_env=False,
                verify=tls or True,
            )
        except httpx.InvalidURL as problem:
            raise CallFailed(f"{url} is no address ({problem}): see --url") from problem
        except UnicodeEncodeError as problem:
            raise CallFailed("the key holds other than ASCII characters: see --key") from problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @contextmanager
    def changes(self) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
        """Open the live stream; the value yields its events as name and data until it ends.

        Raises:
            StreamRefused: the store has no stream, or no place in it.
            CallFailed: also by the iterator.
        """
        wait = httpx.Timeout(READ_SECONDS, read=SILENCE_SECONDS)
        path = "/v1/store/inventory/stream"
        try:
            while True:
                with self._http.stream("GET", path, timeout=wait) as response:
                    if self._can_try_another_key(response):
                        continue
                    status = response.status_code
                    if status in (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE):
                        raise StreamRefused(f"the store offers no stream ({status})")
                    if not response.is_success:
                        raise CallFailed(f"the store answered {status}")
                    yield self._events(response.iter_lines())
                    return
        except httpx.HTTPError as problem:
            raise CallFailed(self._no_answer(problem)) from problem

    @contextmanager
    def dump(self) -> Iterator[Iterator[bytes]]:
        """Open a dump of the catalogue; the value yields its lines, each with its end.

        Raises:
            CallFailed: also by the iterator, if the dump is cut off.
        """
        path = "/v1/store/inventory/dump"
        try:
            while True:
                with self._http.stream("GET", path, timeout=DUMP_SECONDS) as response:
                    if self._can_try_another_key(response):
                        continue
                    if not response.is_success:
                        response.read()
                        raise CallFailed(_reason(response.status_code, _json(response)))
                    yield _lines(response.iter_bytes())
                    return
        except httpx.HTTPError as problem:
            raise CallFailed(self._no_answer(problem)) from problem

    def sync_status(self) -> dict[str, Any]:
        return self._call("GET", "/v1/store/sync/status", READ_SECONDS, "eventSync")

    def force_sync(self, *, accept: bool) -> dict[str, Any]:
        path = "/v1/store/sync/force" + ("?accept=true" if accept else "")
        return self._call("POST", path, FORCE_SECONDS, "status")

    def verify(self, *, repair: bool) -> dict[str, Any]:
        path = "/v1/store/sync/verify"
        return self._call("POST", path, FORCE_SECONDS, "mismatches", {"repair": repair})

    def writes_in_doubt(self) -> dict[str, Any]:
        return self._call("GET", "/v1/store/writes?state=in_doubt", READ_SECONDS, "writes")

    def settle_write(self, key: str, *, outcome: str, reason: str) -> dict[str, Any]:
        path = f"/v1/store/writes/{quote(key, safe='')}/settle"
        body = {"outcome": outcome, "reason": reason}
        return self._call("POST", path, SETTLE_SECONDS, "answer", body)

    def outbox(self, *, state: str | None = None, after: str = "") -> dict[str, Any]:
        """Return a page of the outbox: 200 entries after the id `after`, and the counts."""
        query = {"limit": "200", "after": after} | ({} if state is None else {"state": state})
        return self._call("GET", f"{_OUTBOX}?{urlencode(query)}", READ_SECONDS, "entries")

    def outbox_entry(self, entry_id: str) -> dict[str, Any]:
        return self._call("GET", _entry(entry_id), READ_SECONDS, "outboxId")

    def retry_entry(self, entry_id: str, *, reason: str, outcome: str | None) -> dict[str, Any]:
        body = {"reason": reason} | ({} if outcome is None else {"outcome": outcome})
        path = f"{_entry(entry_id)}/retry"
        return self._call("POST", path, READ_SECONDS, "outboxId", body)

    def settle_entry(self, entry_id: str, *, reason: str, outcome: str) -> dict[str, Any]:
        body = {"reason": reason, "outcome": outcome}
        path = f"{_entry(entry_id)}/settle"
        return self._call("POST", path, SETTLE_SECONDS, "outboxId", body)

    def discard_entry(self, entry_id: str, *, reason: str) -> dict[str, Any]:
        body = {"reason": reason}
        return self._call("DELETE", _entry(entry_id), READ_SECONDS, "outboxId", body)

    def _call(
        self, method: str, path: str, seconds: float, part: str, body: object = None
    ) -> dict[str, Any]:
        """Return the JSON document of the answer, which must have the field `part`."""
        try:
            response = self._http.request(method, path, timeout=seconds, json=body)
            while self._can_try_another_key(response):
                response = self._http.request(method, path, timeout=seconds, json=body)
            document = response.json()
        except httpx.HTTPError as problem:
            raise CallFailed(self._no_answer(problem)) from problem
        except ValueError as problem:
            raise CallFailed(self._not_a_store()) from problem
        if not response.is_success:
            raise CallFailed(_reason(response.status_code, document))
        if not isinstance(document, dict) or part not in document:
            raise CallFailed(self._not_a_store())
        self.store_time = _date_of(response)
        return document

    def _can_try_another_key(self, response: httpx.Response) -> bool:
        """Go over to the next key if this one was refused and there is another."""
        if response.status_code != httpx.codes.UNAUTHORIZED or len(self._keys) == 1:
            return False
        del self._keys[0]  # perhaps a token that a store before has left
        self._http.headers["X-API-Key"] = self._keys[0]
        return True

    def _events(self, lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read Server-Sent Events, as far as the store uses them."""
        name, data = "", ""
        for line in lines:
            field, _, value = line.partition(":")
            if field == "event":
                name = value.strip()
            elif field == "data":
                data += value
            elif not line and name:
                yield name, self._object(data)
                name, data = "", ""

    def _object(self, text: str) -> dict[str, Any]:
        """Return the JSON object; an empty text is an empty one."""
        try:
            value = orjson.loads(text or "{}")
        except orjson.JSONDecodeError as problem:
            raise CallFailed(self._not_a_store()) from problem
        if not isinstance(value, dict):
            raise CallFailed(self._not_a_store())
        return value

    def _no_answer(self, problem: httpx.HTTPError) -> str:
        return f"no store answers at {self.url} ({problem}); is it running, and is --url right?"

    def _not_a_store(self) -> str:
        return f"what answers at {self.url} is not a store cache; is --url right?"


def _entry(entry_id: str) -> str:
    return f"{_OUTBOX}/{quote(entry_id, safe='')}"


def _date_of(response: httpx.Response) -> float:
    """Return when an answer was made, in unix seconds by the store's clock."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of a body, each with its end; the last one may have none."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _reason(status: int, document: Any) -> str:
    try:
        error = document["error"]
        text = f"{error['message']} ({status} {error['code']})"
    except (KeyError, TypeError):
        return f"the store answered {status}; is --url right?"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        text += "; give another key with --key"
    return text
