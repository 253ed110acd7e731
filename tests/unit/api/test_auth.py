"""Authentication: keys, scopes, every route with every role, and the brake on guessing."""

import hashlib
from collections.abc import Mapping

import pytest

from store_cache.api.app import SCOPES
from store_cache.api.auth import Authenticator, KeyRing, Scope, WrongKeys
from store_cache.api.problems import InvalidRequest, RateLimited, Unauthorized
from tests.unit.api.conftest import ADMIN, TILL, Opened, Store

OPEN = {("GET", "/health"), ("GET", "/ready")}
READS = {
    ("GET", "/v1/store/inventory"),
    ("POST", "/v1/store/inventory/lookup"),
    ("GET", "/v1/store/inventory/{productId}"),
    ("GET", "/v1/store/sync/status"),
    ("GET", "/v1/store/cache/stats"),
}
WRITES = {
    ("POST", "/v1/store/inventory/updates"),
    ("POST", "/v1/store/inventory/batch-updates"),
    ("PATCH", "/v1/store/inventory/{productId}/inventory"),
}
FOR_ADMINS = {("POST", "/v1/store/sync/force")}
NOT_FOUND = {("*", "/v1{rest}"), ("*", "/{rest}")}

ROLES: Mapping[str, dict[str, str]] = {
    "no key": {},
    "wrong key": {"X-API-Key": "guess"},
    "till": TILL,
    "admin": ADMIN,
}


def _with_head(routes: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return routes | {("HEAD", path) for method, path in routes if method == "GET"}


async def test_each_route_has_its_scope(store: Store) -> None:
    """The routes of the router are those listed in this file, with these scopes (T20)."""
    scopes = store.app[SCOPES].registered()
    found: dict[Scope, set[tuple[str, str]]] = {scope: set() for scope in Scope}
    for route in store.app.router.routes():
        assert route.resource is not None
        found[scopes[route]].add((route.method, route.resource.canonical))

    assert _with_head(OPEN) | {("*", "/{rest}")} == found[Scope.OPEN]
    assert _with_head(READS) | {("*", "/v1{rest}")} == found[Scope.READ]
    assert WRITES == found[Scope.WRITE]
    assert FOR_ADMINS == found[Scope.ADMIN]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("method", "path"), sorted(_with_head(OPEN | READS | WRITES | FOR_ADMINS) | NOT_FOUND)
)
async def test_each_role_on_each_route(store: Store, method: str, path: str, role: str) -> None:
    """Without a right key /v1/ answers 401; a till's key gets 403 from admin calls."""
    target = path.replace("{productId}", "PROD-001").replace("{rest}", "/nowhere")
    sent = "GET" if method == "*" else method
    reply = await store.send(sent, target.replace("//", "/"), headers=ROLES[role])

    if not target.startswith("/v1"):
        assert reply.status not in (401, 403)
    elif role in ("no key", "wrong key"):
        assert 401 == reply.status
    elif (method, path) in FOR_ADMINS:
        assert (403 if role == "till" else 200) == reply.status
    else:
        assert reply.status not in (401, 403)


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
    """One list of keys is enough for a single shop."""
    store = await open_store(admin_keys=[])
    reply = await store.send("POST", "/v1/store/sync/force", headers=TILL)

    assert 200 == reply.status


async def test_a_key_may_be_configured_as_its_digest(open_store: Opened) -> None:
    """The plain key is accepted; its digest, which the settings show, is not."""
    hashed = "sha256:" + hashlib.sha256(b"till-secret").hexdigest()
    store = await open_store(keys=[hashed])
    plain = await store.get("/v1/store/inventory")
    shown = await store.send("GET", "/v1/store/inventory", headers={"X-API-Key": hashed})

    assert (200, 401) == (plain.status, shown.status)


def _authority() -> Authenticator:
    ring = KeyRing(keys=["right", "other"], admin_keys=["office"])
    return Authenticator(ring, WrongKeys(limit=3, window_seconds=60.0, most_addresses=2))


def _guess(authority: Authenticator, address: str, now: float, times: int = 3) -> None:
    for _ in range(times):
        with pytest.raises(Unauthorized):
            authority.identify(["guess"], address=address, now=now)


def test_the_name_of_a_caller_is_not_its_key() -> None:
    """Logs name keys by their position in the settings."""
    ring = KeyRing(keys=["right", "other"], admin_keys=["office"])
    found = [ring.find(key) for key in ("right", "other", "office")]

    assert ["key-1", "key-2", "admin-key-1"] == [caller.name for caller in found if caller]


def test_guessing_is_stopped_for_the_rest_of_the_window() -> None:
    """After too many wrong keys not even a right one is accepted, until the minute is over."""
    authority = _authority()
    _guess(authority, "10.0.0.9", now=0.0)
    with pytest.raises(RateLimited) as limited:
        authority.identify(["right"], address="10.0.0.9", now=20.5)

    assert {"Retry-After": "40"} == limited.value.headers
    assert Scope.WRITE == authority.identify(["right"], address="10.0.0.9", now=60.0).scope


def test_others_at_the_same_address_go_on() -> None:
    """A key that was accepted from an address before stays accepted during wrong ones from it."""
    authority = _authority()
    authority.identify(["right"], address="10.0.0.9", now=0.0)
    _guess(authority, "10.0.0.9", now=1.0)

    assert "key-1" == authority.identify(["right"], address="10.0.0.9", now=2.0).name
    with pytest.raises(RateLimited):
        authority.identify(["other"], address="10.0.0.9", now=2.0)
    assert "key-2" == authority.identify(["other"], address="10.0.0.8", now=2.0).name


def test_the_table_of_failures_is_bounded() -> None:
    """Wrong keys from ever new addresses take bounded memory: the oldest is forgotten."""
    authority = _authority()
    for address in ("a", "b", "c"):
        _guess(authority, address, now=0.0)

    assert "key-1" == authority.identify(["right"], address="a", now=1.0).name
    with pytest.raises(RateLimited):
        authority.identify(["right"], address="c", now=1.0)


def test_two_keys_are_refused() -> None:
    """Repeated headers are refused, since parsers differ on which one counts (T3)."""
    with pytest.raises(InvalidRequest):
        _authority().identify(["right", "right"], address="a", now=0.0)


async def test_a_limited_caller_is_told_to_wait(store: Store) -> None:
    """429 `rate_limited` with `Retry-After`, after twenty wrong keys in a minute."""
    guesses = [
        await store.send("GET", "/v1/store/inventory", headers={"X-API-Key": f"guess-{n}"})
        for n in range(21)
    ]

    assert [401] * 20 + [429] == [reply.status for reply in guesses]
    assert "rate_limited" == guesses[-1].code
    assert 50 <= int(guesses[-1].headers["Retry-After"]) <= 60
