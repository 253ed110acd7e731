"""Limits on the requests a second of each client, so that one cannot make the others wait.

A token bucket for each client and each of the two policies, `reads` and `writes`: it holds the
tokens of one second, so a till that was quiet may send a second's worth at once. A client is known
by the name of its API key. Open routes and admin calls are not limited.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from store_cache.api.auth import Caller, Scope
from store_cache.api.problems import RateLimited, retry_after
from store_cache.api.throttled_log import ThrottledWarning

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RatePolicy:
    """At most `per_second` requests a second of each client; `name` says of which kind."""

    def __init__(self, name: str, per_second: int) -> None:
        self.name = name
        self.per_second = per_second
        self._buckets: dict[str, _Bucket] = {}
        self._warning = ThrottledWarning(
            log, "requests over the limit of a client are refused", counted_as="refused"
        )

    def take(self, client: str) -> bool:
        """Take a token for a request; return False if there is none, and the request is refused."""
        now = asyncio.get_running_loop().time()
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(float(self.per_second), now)
        filled = bucket.tokens + (now - bucket.at) * self.per_second
        bucket.tokens, bucket.at = min(filled, float(self.per_second)), now
        if bucket.tokens < 1.0:
            self._warning.note(client=client, kind=self.name, perSecond=self.per_second)
            return False
        bucket.tokens -= 1.0
        return True

    def give_back(self, client: str) -> None:
        """Undo the last `take`: the request is counted somewhere else."""
        self._buckets[client].tokens += 1.0

    def refusal(self) -> RateLimited:
        """Return the answer to a request that got no token.

        The fields are those of draft-ietf-httpapi-ratelimit-headers-10: a quota `q` for each window
        of `w` seconds, of which `r` are left, with more to come in `t` seconds.
        """
        seconds = 1  # a token comes sooner; the fields have whole seconds
        return RateLimited(
            f"This client's limit of {self.per_second} {self.name} a second is reached; wait "
            f"{seconds} s and send less often. Nothing was done: repeat the request as it is",
            details={"limit": self.name, "perSecond": self.per_second},
            headers={
                "RateLimit-Policy": f'"{self.name}";q={self.per_second};w=1',
                "RateLimit": f'"{self.name}";r=0;t={seconds}',
                **retry_after(seconds),
            },
        )


class RequestRates:
    """The limits in force; a policy is None if it is off."""

    def __init__(self, *, reads: int = 0, writes: int = 0) -> None:
        self.reads = RatePolicy("reads", reads) if reads else None
        self.writes = RatePolicy("writes", writes) if writes else None
        self._of_scope = {Scope.READ: self.reads, Scope.WRITE: self.writes}

    def count(self, caller: Caller, needed: Scope) -> None:
        """Count a request of a route that needs this scope. Raises RateLimited."""
        policy = self._of_scope.get(needed)
        if policy is not None and not policy.take(caller.name):
            raise policy.refusal()
