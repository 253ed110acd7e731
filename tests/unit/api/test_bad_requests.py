"""Each wrong request gets its own error, and reaches no part of the store."""

import asyncio

import pytest

from store_cache.api.content.models import read_batch, read_page_query
from store_cache.api.content.requests import parse_json
from store_cache.api.problems import InvalidJson, InvalidRequest, PayloadTooLarge
from tests.unit.api.bad_requests import BAD_REQUESTS, Bad
from tests.unit.api.conftest import TILL, Store

MILLISECONDS = 0.001


@pytest.mark.parametrize("case", [pytest.param(case, id=case.what) for case in BAD_REQUESTS])
async def test_each_wrong_request_gets_its_error(store: Store, case: Bad) -> None:
    """Status, code and the names of all wrong fields are as in the table; nothing is written."""
    reply = await store.send(
        case.method, case.target, headers=case.sent_headers, body=case.sent_body
    )
    error = reply.json["error"]

    assert (case.status, case.code) == (reply.status, error["code"])
    assert set(case.names) == set(error["details"].get("fields", {}))
    assert error["message"]
    assert reply.headers["X-Request-ID"]
    assert "application/json" == reply.headers["Content-Type"]
    assert [] == store.fake.writes


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 262_144,
        b'{"a":' * 40_000,
        b"[" + b"9" * 262_000 + b"]",
        b"[" + b"1e400," * 40_000 + b"1]",
        b'{"a":1,' * 30_000,
        b'{"a":"' + rb"\ud800" * 40_000 + b'"}',
    ],
    ids=["deep lists", "deep objects", "one number", "infinities", "unclosed", "surrogates"],
)
async def test_hostile_json_costs_milliseconds(body: bytes) -> None:
    """A body made to be slow to parse is refused quickly (T12)."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises((InvalidJson, PayloadTooLarge)):
        parse_json(body)

    assert loop.time() - started < 500 * MILLISECONDS


def test_an_error_names_a_limited_number_of_fields() -> None:
    """Hundreds of wrong fields, or a parameter with a very long name, make no long answer."""
    with pytest.raises(InvalidRequest) as refused:
        read_batch(
            {"updates": [{}] * 100}, store_id="store-s1", client="", note_unknown=pytest.fail
        )
    with pytest.raises(InvalidRequest) as long_name:
        read_page_query({}, {"x" * 100_000: "is not a known query parameter"})

    assert 50 == len(refused.value.details["fields"])
    assert len(str(refused.value.details)) < 10_000
    assert len(str(long_name.value.details)) < 10_000


async def test_a_body_is_not_read_before_the_key_is_checked(store: Store) -> None:
    """A caller without a key gets its answer before it has sent the body."""
    reply = await (await store.begin_post({"Content-Length": "100000"})).reply()

    assert (401, "unauthorized") == (reply.status, reply.code)


async def test_there_is_no_continue_without_a_key(store: Store) -> None:
    """`Expect: 100-continue` gets 401 at once without a key, and 100 with one."""
    headers = {"Content-Length": "2", "Expect": "100-continue"}
    without, with_key = [await store.begin_post(headers | key) for key in ({}, TILL)]

    assert 401 == (await without.reply()).status
    assert 100 == (await with_key.reply()).status
    with_key.writer.write(b"{}")
    assert "productId" in (await with_key.reply()).fields


async def test_a_chunked_body_is_counted_as_it_comes(store: Store) -> None:
    """A body without a length is refused once it exceeds the limit."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    line = await store.begin_post(TILL | {"Transfer-Encoding": "chunked"}, chunk * 5)
    reply = await line.reply()

    assert (413, "payload_too_large") == (reply.status, reply.code)


async def test_a_malformed_chunk_is_an_error(store: Store) -> None:
    """A transfer coding that breaks within a body is a wrong request, not a defect."""
    line = await store.begin_post(TILL | {"Transfer-Encoding": "chunked"}, b"zz\r\nhello")
    reply = await line.reply()

    assert (400, "invalid_request") == (reply.status, reply.code)


async def test_another_coding_ends_the_connection(store: Store) -> None:
    """Programs before the store may see the end of such a body elsewhere, so what follows it is
    not answered."""
    line = await store.begin_post(
        TILL | {"Transfer-Encoding": "gzip, chunked"},
        b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: store\r\n\r\n",
    )
    reply = await line.reply()

    assert (400, "close") == (reply.status, reply.headers["Connection"])
    assert b"" == await line.ended()


async def test_a_compressed_body_is_never_unpacked(store: Store) -> None:
    """A body called gzip is skipped unread: neither one that cannot be unpacked nor one that
    unpacks to too much does harm (T13)."""
    line = await store.line()
    head = TILL | {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    refused = await line.send("POST", "/v1/store/inventory/updates", headers=head, body=b"no gzip")
    served = await line.send("GET", "/v1/store/inventory", headers=TILL)

    assert (415, 200) == (refused.status, served.status)
