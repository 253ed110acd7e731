"""What Central's headers say about its rate limit (F6)."""

from email.utils import formatdate

import httpx
import pytest

from store_cache.central.quota import read_quota
from store_cache.central.rate_limit import Quota

NOW = 1_750_000_000.0


def read(headers: dict[str, str]) -> Quota | None:
    return read_quota(httpx.Headers(headers), NOW)


def custom(limit: str, remaining: str = "9", reset: str = "30", prefix: str = "X-") -> Quota | None:
    names = ("Limit", "Remaining", "Reset")
    values = (limit, remaining, reset)
    return read({f"{prefix}RateLimit-{n}": v for n, v in zip(names, values, strict=True)})


@pytest.mark.parametrize("prefix", ["X-", ""])
@pytest.mark.parametrize("reset", ["30", str(int(NOW) + 30), str(int(NOW + 30) * 1000)])
def test_three_headers_name_the_quota(reset: str, prefix: str) -> None:
    """[F6] The reset is in seconds, or a moment."""
    assert Quota(100, None, 9, 30.0) == custom("100", reset=reset, prefix=prefix)


def test_moment_is_compared_with_centrals_own_clock() -> None:
    """A shop's clock may be wrong."""
    headers = {
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Reset": str(int(NOW) + 7230),
        "Date": formatdate(NOW + 7200, usegmt=True),
    }

    assert Quota(100, None, None, 30.0) == read(headers)


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        (
            {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
            Quota(100, 60, 50, 30),
        ),
        (
            {
                "RateLimit": '"minute";r=50;t=30 , "hour"; r=9 ;t=900',
                "RateLimit-Policy": '"hour";q=1000;w=3600,"minute";q=100;w=60;qu="requests"',
            },
            Quota(1000, 3600, 9, 900),
        ),
        ({"RateLimit": "default;r=0", "RateLimit-Policy": "default;q=7"}, Quota(7, None, 0, None)),
        (
            {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=10"},
            Quota(100, 10, 50, 5),
        ),
        ({"RateLimit-Limit": "100, 100;w=10, 1000;w=3600"}, Quota(100, 10, None, None)),
        (
            {"RateLimit": "odd", "X-RateLimit-Limit": "60"},
            Quota(60, None, None, None),
        ),
    ],
)
def test_draft_of_the_ietf_in_all_its_versions(headers: dict[str, str], quota: Quota) -> None:
    """[F6] The policy is that of the quota with the fewest requests left."""
    assert quota == read(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"RateLimit": '"a";r=5;t=5'},
        {"RateLimit": '"a";r=5', "RateLimit-Policy": '"b";q=100'},
        {"RateLimit": ";;,=,", "RateLimit-Policy": ";;,=,"},
        {"RateLimit": '"a";r=-1', "RateLimit-Policy": '"a";q=1e9;w=x'},
        {"X-RateLimit-Limit": "0"},
        {"X-RateLimit-Limit": "unlimited"},
        {"X-RateLimit-Limit": "-5"},
        {"X-RateLimit-Limit": "9" * 400},
        {"X-RateLimit-Limit": "5000", "X-RateLimit-Reset": "86400"},
        {"RateLimit-Limit": "5000, 5000;w=86400"},
        {"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "5"},
    ],
    ids=str,
)
def test_what_is_odd_is_ignored(headers: dict[str, str]) -> None:
    """[F6] So is a quota for more than an hour."""
    assert read(headers) is None


@pytest.mark.parametrize(
    ("remaining", "reset", "quota"),
    [
        ("many", "30", Quota(60, None, None, 30.0)),
        ("9", "soon", Quota(60, None, 9, None)),
        ("9", "0", Quota(60, None, 9, None)),
        ("9", str(int(NOW) - 60), Quota(60, None, 9, None)),
    ],
)
def test_rest_of_an_odd_quota_counts(remaining: str, reset: str, quota: Quota) -> None:
    """[F6]"""
    assert quota == custom("60", remaining, reset)
