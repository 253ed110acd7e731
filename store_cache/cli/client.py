"""A client of a running store's API, for the command line.

Every failure is a `CallFailed` whose message tells a person what to do.
"""

from __future__ import annotations

import ssl
from typing import Any, Self

import httpx

READ_SECONDS = 10.0
FORCE_SECONDS = 3600.0
"""A full sync of a large catalogue under Central's rate limit can take many minutes."""


class CallFailed(Exception):
    """The store did not answer as expected; the message says what to do."""


class StoreClient:
    """Calls the store at `url` (without a scheme: by http) with the API key `key`.

    `tls` says for https which certificates are trusted, and which one is shown; None: the usual.

    Raises:
        CallFailed: by every method, and if `url` or `key` cannot be used.
    """

    def __init__(self, url: str, key: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url if "://" in url else f"http://{url}"
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers={"X-API-Key": key},
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

    def sync_status(self) -> dict[str, Any]:
        return self._call("GET", "/v1/store/sync/status", READ_SECONDS, "eventSync")

    def force_sync(self, *, accept: bool) -> dict[str, Any]:
        path = "/v1/store/sync/force" + ("?accept=true" if accept else "")
        return self._call("POST", path, FORCE_SECONDS, "status")

    def verify(self, *, repair: bool) -> dict[str, Any]:
        path = "/v1/store/sync/verify"
        return self._call("POST", path, FORCE_SECONDS, "mismatches", {"repair": repair})

    def _call(
        self, method: str, path: str, seconds: float, part: str, body: object = None
    ) -> dict[str, Any]:
        """Return the JSON document of the answer, which must have the field `part`."""
        try:
            response = self._http.request(method, path, timeout=seconds, json=body)
            document = response.json()
        except httpx.HTTPError as problem:
            raise CallFailed(
                f"no store answers at {self.url} ({problem}); is it running, and is --url right?"
            ) from problem
        except ValueError as problem:
            raise CallFailed(self._not_a_store()) from problem
        if not response.is_success:
            raise CallFailed(_reason(response.status_code, document))
        if not isinstance(document, dict) or part not in document:
            raise CallFailed(self._not_a_store())
        return document

    def _not_a_store(self) -> str:
        return f"what answers at {self.url} is not a store cache; is --url right?"


def _reason(status: int, document: Any) -> str:
    try:
        error = document["error"]
        text = f"{error['message']} ({status} {error['code']})"
    except (KeyError, TypeError):
        return f"the store answered {status}; is --url right?"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        text += "; give another key with --key"
    return text
