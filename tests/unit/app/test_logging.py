"""Logs: one line for each event, for programs or for people, and never a key in them."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from store_cache.app.logging import configure_logging
from store_cache.central.carried import request_id

CANARY = "canary-7f3a"
SPLITTING = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

log = logging.getLogger("store_cache.test")

Lines = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Restore the logging of the process after each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return the lines written to standard error since the last call."""

    def written() -> list[str]:
        return capsys.readouterr().err.splitlines()

    return written


def only(lines: list[str]) -> dict[str, Any]:
    [line] = lines
    event = json.loads(line)
    assert isinstance(event, dict)
    return event


def test_an_event_is_one_json_object(lines: Lines) -> None:
    """It has time, level, logger, message and request, in this order, then the extra fields."""
    configure_logging("info", terminal=False)
    token = request_id.set("req-1")
    log.error("full sync failed after %d pages", 3, extra={"reason": "gone", "offset": 7})
    request_id.reset(token)
    event = only(lines())
    time = event.pop("time")

    assert [
        ("level", "ERROR"),
        ("logger", "store_cache.test"),
        ("message", "full sync failed after 3 pages"),
        ("requestId", "req-1"),
        ("reason", "gone"),
        ("offset", 7),
    ] == list(event.items())
    assert time.endswith("Z")
    assert len("2024-01-15T10:30:00.000Z") == len(time)
    assert datetime.fromisoformat(time).tzinfo is not None


def test_outside_a_request_no_request_is_named(lines: Lines) -> None:
    """Background work has no request id."""
    configure_logging("info", terminal=False)
    log.info("event sync")

    assert "requestId" not in only(lines())


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["DEBUG", "INFO", "WARNING", "ERROR"]),
        ("info", ["INFO", "WARNING", "ERROR"]),
        ("warn", ["WARNING", "ERROR"]),
        ("error", ["ERROR"]),
    ],
)
def test_the_level_is_the_least_that_is_written(
    lines: Lines, level: str, written: list[str]
) -> None:
    """LOG_LEVEL writes events of its level and above."""
    configure_logging(level, terminal=False)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.log(number, "x")

    assert written == [json.loads(line)["level"] for line in lines()]


@pytest.mark.parametrize("terminal", [True, False])
def test_client_text_cannot_forge_a_line(lines: Lines, terminal: bool) -> None:
    """Every character that ends a line is escaped, in the message and in the fields."""
    configure_logging("info", terminal=terminal)
    forged = f'PROD-1{SPLITTING}\x1b[2J\u202e{{"level": "ERROR"}}'
    log.info("product %s", forged, extra={"productId": forged, forged: "name"})
    [line] = lines()

    assert line.isprintable()


def test_json_keeps_what_the_client_sent(lines: Lines) -> None:
    """Parsing the line gives the same text."""
    configure_logging("info", terminal=False)
    text = f'naïve 😀 "quoted" \\ {SPLITTING} \x7f \u202e'
    log.info("x", extra={"productId": text, "number": 2**70, "half": "\ud800"})
    event = only(lines())

    assert (text, 2**70, "\ud800") == (event["productId"], event["number"], event["half"])


def test_an_extra_field_cannot_replace_the_head(lines: Lines) -> None:
    """Extra fields cannot pose as time, level or logger."""
    configure_logging("info", terminal=False)
    log.info("x", extra={"level": "ERROR", "time": "never", "logger": "other"})
    event = only(lines())

    assert ("INFO", "store_cache.test") == (event["level"], event["logger"])
    assert "never" != event["time"]


def test_on_a_terminal_events_are_text(lines: Lines) -> None:
    """Time, level, message, then the fields by name."""
    configure_logging("info", terminal=True)
    log.warning("sync status changed", extra={"state": "fallback"})
    [line] = lines()

    assert "WARNING sync status changed  state=fallback" == line[len("10:30:00 ") :]


@pytest.mark.parametrize("terminal", [True, False])
def test_no_secret_is_written(lines: Lines, terminal: bool) -> None:
    """A key is masked in messages, nested fields, field names and tracebacks."""
    configure_logging("debug", terminal=terminal, secrets=[CANARY, 'ca"n\\ary-2', ""])
    nested = {"a": [CANARY, (CANARY.encode(),)], CANARY: ValueError(CANARY)}
    log.info("key %s", CANARY, extra={"config": nested, "other": 'x ca"n\\ary-2 x'})
    try:
        raise RuntimeError(f"refused {CANARY}")
    except RuntimeError:
        log.exception("failed")
    written = "\n".join(lines())

    assert "RuntimeError: refused ***" in written
    assert CANARY not in written
    assert "ary-2" not in written


@pytest.mark.parametrize(
    "text",
    [
        f"X-API-Key: {CANARY}",
        f"x-api-key={CANARY}&a=b",
        f"{{'X-API-Key': '{CANARY}', 'Accept': '*/*'}}",
        f"((b'X-Api-Key', b'{CANARY}'),)",
        f'"x-api-key":"{CANARY}"',
    ],
)
def test_keys_that_no_setting_knows_are_masked_too(lines: Lines, text: str) -> None:
    """What follows the name of the header is masked, be it a wrong key."""
    configure_logging("info", terminal=False)
    log.info(text, extra={"headers": {"x-API-key": CANARY}})
    [line] = lines()

    assert CANARY not in line


def test_a_short_key_is_masked_as_a_word_only(lines: Lines) -> None:
    """The key `demo` is not masked within `demonstration` and `demo-till`."""
    configure_logging("info", terminal=False, secrets=["demo"])
    log.info("the demonstration of demo-till uses demo")

    assert "the demonstration of demo-till uses ***" == only(lines())["message"]


def test_the_http_client_logs_no_headers(lines: Lines) -> None:
    """Even at level debug the HTTP client logs no requests and headers."""
    configure_logging("debug", terminal=False)
    logging.getLogger("httpcore.http11").debug("send_request_headers.started")
    logging.getLogger("httpx").info("HTTP Request: GET")

    assert [] == lines()


async def test_a_malformed_request_is_a_warning_without_its_contents(lines: Lines) -> None:
    """A server that gets a broken key header logs neither the key nor a traceback."""
    configure_logging("info", terminal=False)
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(f"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: {CANARY}\x01\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await runner.cleanup()
    event = only(lines())

    assert answer.startswith(b"HTTP/1.0 400")
    assert "WARNING" == event["level"]
    assert event["message"].startswith("malformed HTTP request refused with 400")
    assert "traceback" not in event
    assert CANARY not in json.dumps(event)


def test_a_malformed_request_is_not_made_louder(lines: Lines) -> None:
    """A record at level debug stays at that level."""
    configure_logging("debug", terminal=False)
    server = logging.getLogger("aiohttp.server")
    server.debug("Error handling request", exc_info=BadHttpMessage(CANARY))

    assert "DEBUG" == only(lines())["level"]


def test_configuring_again_replaces(lines: Lines) -> None:
    """A second call does not repeat the lines."""
    configure_logging("info", terminal=False)
    configure_logging("info", terminal=False)
    log.info("once")

    assert 1 == len(lines())
