"""Read from an answer's headers what Central says about its rate limit.

Three notations are in use; the first one found counts:

    RateLimit: "default";r=50;t=30                      the IETF draft, from version 8 on
    RateLimit-Policy: "default";q=100;w=60
    RateLimit: limit=100, remaining=50, reset=30        its version 7
    RateLimit-Limit: 100, 100;w=60                      its versions before
    RateLimit-Remaining: 50
    RateLimit-Reset: 30
    X-RateLimit-Limit: 100                              the custom that it grew from; the reset is
    X-RateLimit-Remaining: 50                           in seconds, or a moment in unix seconds or
    X-RateLimit-Reset: 30                               milliseconds

What is odd is ignored, and so is a quota of more than an hour, which says little about a pace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from store_cache.central.rate_limit import Quota
from store_cache.central.retry_after import read_reset

LONGEST_WINDOW_SECONDS = 3600.0

_WHOLE = re.compile(r"\s*([0-9]{1,9})\s*")

Parameters = Mapping[str, str]


def read_quota(headers: Mapping[str, str], now: float) -> Quota | None:
    """Return the quota that the headers name, or None. `now`: unix seconds."""
    quota = _of_draft(headers)
    for prefix in ("RateLimit", "X-RateLimit"):
        quota = quota or _of_three(headers, prefix, now)
    if quota is None or not quota.limit:
        return None
    times = (quota.window_seconds, quota.reset_seconds)
    return None if any(t and t > LONGEST_WINDOW_SECONDS for t in times) else quota


def _of_draft(headers: Mapping[str, str]) -> Quota | None:
    """Return the quota with the fewest requests left in the field RateLimit of the draft."""
    text = headers.get("RateLimit", "")
    if not text:
        return None
    policies = dict(_members(headers.get("RateLimit-Policy", "")))
    pairs = dict(part.strip().partition("=")[::2] for part in text.split(","))
    if (limit := _whole(pairs.get("limit"))) is not None:
        window = _seconds(policies.get(str(limit), {}).get("w"))
        return Quota(limit, window, _whole(pairs.get("remaining")), _seconds(pairs.get("reset")))
    quotas = []
    for name, parameters in _members(text):
        policy = policies.get(name, {})
        limit, remaining = _whole(policy.get("q")), _whole(parameters.get("r"))
        if limit is not None and remaining is not None:
            reset = _seconds(parameters.get("t"))
            quotas.append(Quota(limit, _seconds(policy.get("w")), remaining, reset))
    return min(quotas, key=lambda quota: quota.remaining or 0, default=None)


def _of_three(headers: Mapping[str, str], prefix: str, now: float) -> Quota | None:
    """Return the quota in the three headers that begin with `prefix`."""
    text = headers.get(f"{prefix}-Limit", "")
    limit = _whole(text.partition(",")[0])
    if limit is None:
        return None
    policies = dict(_members(f"{headers.get('RateLimit-Policy', '')},{text.partition(',')[2]}"))
    window = _seconds(policies.get(str(limit), {}).get("w"))
    reset = read_reset(headers, f"{prefix}-Reset", now)
    remaining = _whole(headers.get(f"{prefix}-Remaining"))
    return Quota(limit, window, remaining, None if reset is None or reset <= 0 else reset)


def _members(text: str) -> Iterator[tuple[str, Parameters]]:
    """Yield each member of a list in a structured field, and its parameters."""
    for member in text.split(","):
        name, *parameters = member.split(";")
        pairs = (parameter.strip().partition("=") for parameter in parameters)
        yield name.strip().strip('"'), {key: value for key, _, value in pairs}


def _whole(text: str | None) -> int | None:
    match = _WHOLE.fullmatch(text or "")
    return None if match is None else int(match[1])


def _seconds(text: str | None) -> int | None:
    return _whole(text) or None
