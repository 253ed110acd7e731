"""Reports of the publisher: when they were true, and which one counts."""

from dataclasses import replace

import orjson
import pytest

from store_cache.nats.report import SILENT_SECONDS, Report, ServerClock, read_report, supersedes


def report(at: float = 1000.0, received_at: float = 50.0) -> Report:
    return Report("FEED_1", "g-1", "today", 7, at, None, received_at)


def test_a_report_is_read() -> None:
    entry = {"stream": "FEED_1", "generation": "g-1", "created": "today", "head": 7, "at": 1000}
    assert read_report(orjson.dumps(entry), 50.0) == report()


def test_a_report_may_say_since_when_central_has_not_failed() -> None:
    entry = {"stream": "FEED_1", "generation": "g-1", "created": "today", "head": 7, "at": 1000}
    read = read_report(orjson.dumps(entry | {"since": 990}), 50.0)
    assert read == replace(report(), since=990.0)
    assert read_report(orjson.dumps(entry | {"since": "ever"}), 50.0) == report()


@pytest.mark.parametrize(
    "wrong",
    [
        {"head": "7"},
        {"head": True},
        {"head": None},
        {"at": "now"},
        {"stream": ""},
        {"generation": None},
        {"created": None},
    ],
)
def test_anything_else_is_none(wrong: dict[str, object]) -> None:
    """What others may write there, such as an event, is not believed."""
    entry = {
        "stream": "FEED_1",
        "generation": "g-1",
        "created": "today",
        "head": 7,
        "at": 1000,
    } | wrong
    assert read_report(orjson.dumps(entry), 50.0) is None


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"7", b"null"])
def test_what_is_no_object_is_none(data: bytes) -> None:
    assert read_report(data, 50.0) is None


def test_without_the_server_s_clock_nothing_is_known() -> None:
    assert ServerClock().true_at(report()) is None


def test_a_report_was_true_at_a_time_of_the_server() -> None:
    """[B5] Whatever the store's own clock says: only its uptime counts. The server told the time
    after it was asked, so the moment is never later than the truth."""
    clock = ServerClock()
    clock.note(1003.0, asked_at=40.0)
    assert clock.true_at(report(at=1000.0)) == 37.0


def test_a_report_from_the_future_is_as_old_as_its_arrival() -> None:
    """The server's clock was set since it was read."""
    clock = ServerClock()
    clock.note(1000.0, asked_at=40.0)
    assert clock.true_at(report(at=9999.0, received_at=50.0)) == 50.0


def test_of_two_publishers_the_later_statement_counts() -> None:
    assert supersedes(report(), None, None)
    assert supersedes(report(at=1001.0), report(at=1000.0), 1.0)
    assert not supersedes(report(at=999.0), report(at=1000.0), 1.0)


def test_after_silence_an_earlier_statement_counts() -> None:
    """The server's clock was set back."""
    assert supersedes(report(at=10.0), report(at=1000.0), SILENT_SECONDS + 1)
