"""Authentication: keys, scopes, every route with every role, and the limit on wrong keys."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf

import pytest

from store_cache.api.auth import AUTHENTICATOR, Authenticator, Caller, KeyRing, Scope, key_digest
from store_cache.api.problems import InvalidRequest, RateLimited, Unauthorized
from store_cache.api.wrong_keys import WrongKeys
from tests.harness.clients import TILL_KEY
from tests.harness.fake_store import FakeStore
from tests.harness.http import Reply
from tests.unit.api.conftest import TILL, Opened, Store, api_of

OPEN = {("GET", "/health"), ("GET", "/ready")}
READS = {
    ("GET", "/v1/store/inventory"),
    ("POST", "/v1/store/inventory/lookup"),
    ("GET", "/v1/store/inventory/{productId}"),
    ("GET", "/v1/store/inventory/stream"),
    ("GET", "/v1/store/inventory/{productId}/history"),
    ("GET", "/v1/store/sync/status"),
    ("GET", "/v1/store/cache/stats"),
}
WRITES = {
    ("POST", "/v1/store/inventory/updates"),
    ("POST", "/v1/store/inventory/batch-updates"),
    ("PATCH", "/v1/store/inventory/{productId}/inventory"),
}
DOUBTS = {
    ("GET", "/v1/store/writes"),
    ("GET", "/v1/store/outbox"),
    ("GET", "/v1/store/outbox/{outboxId}"),
}
FOR_ADMINS = {
    ("GET", "/v1/store/inventory/dump"),
    ("POST", "/v1/store/outbox/{outboxId}/retry"),
    ("POST", "/v1/store/outbox/{outboxId}/settle"),
    ("DELETE", "/v1/store/outbox/{outboxId}"),
    ("POST", "/v1/store/sync/force"),
    ("POST", "/v1/store/writes/{idempotencyKey}/settle"),
}


def named(name: str, scope: Scope, key: str, expires_at: float = inf) -> Caller:
    return Caller(name, scope, key_digest(key), expires_at)


NOON = 1_700_000_000.0
NAMED = (
    named("price-display", Scope.READ, "reads"),
    named("till-3", Scope.WRITE, "writes"),
    named("office", Scope.ADMIN, "administers"),
    named("till-9", Scope.WRITE, "expired", expires_at=NOON),
)
ROLES = {
    "no key": (None, None),
    "wrong key": ("guess", None),
    "expired key": ("expired", None),
    "key that reads": ("reads", Scope.READ),
    "key that writes": ("writes", Scope.WRITE),
    "admin key": ("administers", Scope.ADMIN),
    "key of the settings": (TILL_KEY, Scope.WRITE),
    "admin key of the settings": ("office-secret", Scope.ADMIN),
}
"""The key, and the scope that it grants."""


SCOPES = {
    Scope.OPEN: OPEN | {("*", "/{rest}")},
    Scope.READ: READS | {("*", "/v1{rest}")},
    Scope.WRITE: WRITES | DOUBTS,
    Scope.ADMIN: FOR_ADMINS,
}
ROUTES = sorted(
    (method, path, scope)
    for scope, routes in SCOPES.items()
    for route, path in routes
    for method in (("GET", "HEAD") if route == "GET" else (route,))
)


def test_each_route_is_listed() -> None:
    """The routes of the router are those listed in this file, so each has its scope (T20)."""
    routes = [
        (route.method, route.resource.canonical)
        for route in api_of(FakeStore()).router.routes()
        if route.resource is not None
    ]

    assert sorted((method, path) for method, path, _ in ROUTES) == sorted(routes)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_each_role_on_each_route(
    open_store: Opened, method: str, path: str, scope: Scope, role: str
) -> None:
    """(T20) A route lets a caller in whose key grants its scope; others get 401 without a right
    key, and 403 with a lower one. Over a socket, for every route there is."""
    store = await open_store(named=NAMED)
    key, granted = ROLES[role]
    target = path.replace("{productId}", "PROD-001").replace("{rest}", "/nowhere")
    headers = {} if key is None else {"X-API-Key": key}
    sent = "GET" if method == "*" else method
    reply = await store.send(sent, target.replace("//", "/"), headers=headers)

    if scope is not Scope.OPEN and granted is None:
        assert 401 == reply.status
    elif granted is not None and granted < scope:
        assert 403 == reply.status
    else:
        assert reply.status not in (401, 403, 429, 500)


@pytest.mark.parametrize("target", ["/v1", "/v1/", "/%761/store/inventory", "/v1/../health"])
async def test_no_spelling_of_a_path_avoids_the_key(store: Store, target: str) -> None:
    """Encoded letters and dots in a path do not avoid the key."""
    reply = await store.send("GET", target)

    assert 401 == reply.status


async def test_missing_and_wrong_keys_get_the_same_answer(store: Store) -> None:
    """The answer is the same, whatever is wrong with the key (T1)."""
    keys = ["", "guess", "till-secre", "TILL-SECRET", "\xff"]
    sent = [{}, *({"X-API-Key": key} for key in keys)]
    replies = [await store.send("GET", "/v1/store/inventory", headers=one) for one in sent]

    assert {401} == {reply.status for reply in replies}
    assert 1 == len({reply.body for reply in replies})


async def test_without_admin_keys_every_key_is_one(open_store: Opened) -> None:
    """One list of keys is enough for a single shop. With a key file, only its admin keys are."""
    store = await open_store(admin_keys=[])
    reply = await store.send("POST", "/v1/store/sync/force", headers=TILL)
    with_file = await open_store(admin_keys=[], named=[])
    refused = await with_file.send("POST", "/v1/store/sync/force", headers=TILL)

    assert (200, 403) == (reply.status, refused.status)


async def test_a_key_may_be_configured_as_its_digest(open_store: Opened) -> None:
    """The plain key is accepted; its digest, which the settings show, is not."""
    hashed = "sha256:" + hashlib.sha256(b"till-secret").hexdigest()
    store = await open_store(keys=[hashed])
    plain = await store.get("/v1/store/inventory")
    shown = await store.send("GET", "/v1/store/inventory", headers={"X-API-Key": hashed})

    assert (200, 401) == (plain.status, shown.status)


def test_the_name_of_a_caller_is_not_its_key() -> None:
    """Logs name keys of the settings by their position, others by the name in the key file."""
    ring = KeyRing(keys=["right", "other"], admin_keys=["office"], named=NAMED)
    found = [ring.find(key) for key in ("right", "other", "office", "writes")]

    assert ["key-1", "key-2", "admin-key-1", "till-3"] == [one.name for one in found if one]
    assert "right" not in repr(found)


# -- keys that end ---------------------------------------------------------------------------------


@dataclass
class Authority:
    """An authenticator on a clock that the test sets (unix seconds)."""

    now: float = NOON

    def __post_init__(self) -> None:
        wrong_keys = WrongKeys(limit=3, limit_of_all=10, window_seconds=60.0, most_addresses=2)
        ring = KeyRing(keys=["right", "other"], admin_keys=["office"])
        self.authenticator = Authenticator(ring, wrong_keys, now=lambda: self.now)

    def identify(self, *keys: str, address: str = "10.0.0.9", at: float = 0.0) -> Caller:
        return self.authenticator.identify(keys, address=address, now=at)

    def guess(self, address: str = "10.0.0.9", *, at: float = 0.0, times: int = 3) -> None:
        for _ in range(times):
            with pytest.raises(Unauthorized):
                self.identify("guess", address=address, at=at)

    def is_limited(self, address: str = "10.0.0.9", *, at: float = 0.0) -> bool:
        """Whether a wrong key is refused by the limit."""
        try:
            self.identify("guess", address=address, at=at)
        except RateLimited:
            return True
        except Unauthorized:
            return False
        raise AssertionError


def test_a_key_ends_at_its_time() -> None:
    """To the second, also for a caller that was identified before: an answer may go on for long."""
    authority = Authority(NOON - 1.0)
    authority.authenticator.replace(KeyRing(keys=[], named=NAMED))
    caller = authority.identify("expired")
    assert authority.authenticator.is_valid(caller)

    authority.now = NOON
    assert not authority.authenticator.is_valid(caller)
    with pytest.raises(Unauthorized):
        authority.identify("expired")


def test_a_revoked_key_ends_at_once() -> None:
    """So does one whose scope was lowered; one that was renamed or raised goes on."""
    authority = Authority()
    before = KeyRing(keys=["kept"], admin_keys=["lowered"], named=NAMED)
    authority.authenticator.replace(before)
    callers = {key: authority.identify(key) for key in ("kept", "lowered", "reads", "writes")}

    raised = [named("display", Scope.WRITE, "reads"), named("office", Scope.READ, "lowered")]
    authority.authenticator.replace(KeyRing(keys=["kept"], named=raised))

    valid = {key: authority.authenticator.is_valid(caller) for key, caller in callers.items()}
    assert {"kept": True, "lowered": False, "reads": True, "writes": False} == valid


Read = Callable[[], Awaitable[Reply]]


@pytest.mark.parametrize("fast_reads", [True, False])
async def test_keys_are_exchanged_under_requests(open_store: Opened, fast_reads: bool) -> None:
    """On a connection that is used already: the new keys count from the next request on."""
    store = await open_store(fast_reads=fast_reads)
    line = await store.line()

    async def read(key: str) -> int:
        target = "/v1/store/inventory/PROD-001"
        return (await line.send("GET", target, headers={"X-API-Key": key})).status

    before = [await read(key) for key in (TILL_KEY, TILL_KEY, "new-secret")]
    store.app[AUTHENTICATOR].replace(KeyRing(keys=["new-secret"]))
    after = [await read(key) for key in (TILL_KEY, "new-secret", "new-secret")]
    store.app[AUTHENTICATOR].replace(KeyRing(keys=[TILL_KEY]))

    assert ([200, 200, 401], [401, 200, 200]) == (before, after)
    assert [401, 200] == [await read(key) for key in ("new-secret", TILL_KEY)]


# -- wrong keys ------------------------------------------------------------------------------------


def test_a_right_key_is_accepted_after_any_number_of_wrong_ones() -> None:
    """Also one that was never used from this address: behind one router, a till with a mistyped
    key must not stop the others."""
    authority = Authority()
    for number in range(5):
        authority.guess(f"10.0.{number}.9", times=2)
    assert authority.is_limited()

    assert ["key-1", "key-2"] == [authority.identify(key).name for key in ("right", "other")]


def test_wrong_keys_are_limited_for_the_rest_of_the_window() -> None:
    """Then the answer says how long, and nothing more is counted."""
    authority = Authority()
    authority.guess()
    with pytest.raises(RateLimited) as limited:
        authority.identify("guess", at=20.5)

    assert {"Retry-After": "40"} == limited.value.headers
    assert authority.is_limited(at=59.0)
    assert not authority.is_limited("10.0.0.8", at=59.0)
    assert not authority.is_limited(at=60.0)


def test_missing_keys_do_not_count() -> None:
    """A till that was never given a key says nothing about a guesser."""
    authority = Authority()
    for _ in range(50):
        with pytest.raises(Unauthorized):
            authority.identify()

    authority.guess()


def test_wrong_keys_from_many_addresses_are_limited_together() -> None:
    """Each of them sends few: the limit of all holds then, until its window is over."""
    authority = Authority()
    for number in range(10):
        authority.guess(f"10.0.0.{number}", at=1.0, times=1)

    assert authority.is_limited("10.0.0.99", at=2.0)
    assert "key-1" == authority.identify("right", at=2.0).name
    assert not authority.is_limited("10.0.0.99", at=61.0)


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.9", "10.0.0.9", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("10.0.0.9", "10.0.0.8", False),
        ("", "", True),
    ],
)
def test_addresses_of_one_customer_count_as_one(first: str, second: str, is_same: bool) -> None:
    """A /64 of IPv6 is what a customer gets; its 2^64 addresses evade no limit."""
    authority = Authority()
    authority.guess(first)

    assert is_same == authority.is_limited(second)


def test_the_table_of_wrong_keys_is_bounded() -> None:
    """Wrong keys from ever new addresses take bounded memory: the oldest is forgotten."""
    authority = Authority()
    for address in ("a", "b", "c"):
        authority.guess(address)

    assert authority.is_limited("c")
    assert not authority.is_limited("a")


def test_two_keys_are_refused() -> None:
    """Repeated headers are refused, since parsers differ on which one counts (T3)."""
    with pytest.raises(InvalidRequest):
        Authority().identify("right", "right")


async def test_a_limited_caller_is_told_to_wait(store: Store) -> None:
    """429 `rate_limited` with `Retry-After`, after twenty wrong keys in a minute; a right key from
    the same address, one that was never seen before, still works."""
    guesses = [
        await store.send("GET", "/v1/store/inventory", headers={"X-API-Key": f"guess-{n}"})
        for n in range(21)
    ]

    assert [401] * 20 + [429] == [reply.status for reply in guesses]
    assert "rate_limited" == guesses[-1].code
    assert 50 <= int(guesses[-1].headers["Retry-After"]) <= 60
    assert 200 == (await store.get("/v1/store/inventory")).status
