"""Pages of the feed as the publisher reads them: each event as the bytes that Central sent."""

import pytest

from central_stub.publisher.pages import UnreadablePage, read_page


def test_an_event_keeps_its_bytes() -> None:
    """Blanks, order of fields and digits that no double holds are left as they were sent."""
    event = (
        '{ "version":1.10, "offset" : 7,"n":12345678901234567890123, "name":"Caf\\u00e9 \u00e9" }'
    )
    page = read_page(f'{{"events": [ {event} , {{"offset":8}}],"nextOffset":9}}'.encode(), "g-1")
    assert page.events == {7: event.encode(), 8: b'{"offset":8}'}
    assert (page.leads_to, page.has_more, page.generation) == (9, None, "g-1")


def test_a_page_may_be_empty() -> None:
    page = read_page(b'{"events":null,"nextOffset":3,"hasMore":false,"generation":"g-2"}', None)
    assert (page.events, page.leads_to, page.has_more) == ({}, 3, False)
    assert page.generation == "g-2"


def test_events_without_an_offset_are_left_out() -> None:
    page = read_page(b'{"events":[{"offset":null},{"offset":-1},{"offset":true},7],"x":{}}', None)
    assert page.events == {}
    assert page.generation is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b'{"events":[{"offset":1}',
        b'{"events":{"a":',
        b'{"events" 1}',
        b"\xff",
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadablePage):
        read_page(body, "g-1")


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UnreadablePage):
        read_page(b'{"events":' + b"[" * 100_000, "g-1")
