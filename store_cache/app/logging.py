"""Logs: one line for each event, as JSON, or as readable text on a terminal.

A line names the request that it belongs to. Control characters are escaped, so that no text of a
client can make one event look like two; keys are masked wherever they appear.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TextIO

import orjson
from aiohttp.http_exceptions import HttpProcessingError

from store_cache.central.carried import canary, request_id, trace

_LEVELS = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR"}

# Libraries that log each request, with addresses and headers, at info and debug.
_VERBOSE = ("httpx", "httpcore", "asyncio")

_MASK = "***"

# A shorter secret may be an everyday word: it is masked only as a whole word.
_LEAST_DISTINCT_CHARACTERS = 8

_KEY_HEADER = re.compile(r"""(x-api-key\b["']?\s*[:=,]\s*b?["']?)[^\s"',;)}\]]+""", re.IGNORECASE)

# Characters that end a line, control a terminal or change the direction of text.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


def configure_logging(
    level: str, *, terminal: bool | None = None, secrets: Iterable[str] = ()
) -> None:
    """Send the log of the process to standard error, from `level` (as in `LOG_LEVEL`) upwards.

    `terminal` chooses text (true) or JSON (false); by default it is whether standard error is a
    terminal. Each of `secrets` is masked in every line. Replaces any earlier configuration.
    """
    text = sys.stderr.isatty() if terminal is None else terminal
    handler = StderrHandler()
    handler.addFilter(quiet_malformed_request)
    redact = Redaction(secrets)
    handler.setFormatter(TextFormatter(redact) if text else JsonFormatter(redact))
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is at the time: a progress bar stands below the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def change_logging(level: str, *, secrets: Iterable[str]) -> None:
    """Log from `level` upwards from now on, and mask these secrets too. The earlier ones stay
    masked: clients that have not changed their keys go on sending them."""
    root = logging.getLogger()
    root.setLevel(_LEVELS[level])
    for handler in root.handlers:
        if isinstance(handler.formatter, _RedactingFormatter):
            known = handler.formatter.redact.secrets
            handler.formatter.redact = Redaction(known.union(secrets))


def quiet_malformed_request(record: logging.LogRecord) -> bool:
    """A filter that shortens aiohttp's report of a malformed request.

    The parser's exception quotes the bad header, which may be a key; and the traceback of a
    client's mistake is not worth reading.
    """
    exc = record.exc_info[1] if record.exc_info else None
    if isinstance(exc, HttpProcessingError):
        record.msg = f"malformed HTTP request refused with {exc.code}: {type(exc).__name__}"
        record.args = ()
        record.exc_info = record.exc_text = None
        record.levelno = min(record.levelno, logging.WARNING)
        record.levelname = logging.getLevelName(record.levelno)
    return True


class Redaction:
    """Masks the given secrets, and what follows the name of the key header."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(secret for secret in secrets if secret)
        patterns = [*map(_pattern, sorted(self.secrets, key=len, reverse=True))]
        self._patterns = re.compile("|".join(patterns) or r"(?!)")
        self._suspicious = re.compile("|".join([*patterns, r"(?i:x-api-key)"]))

    def __call__(self, value: object) -> object:
        """Return the value as types of JSON, with its secrets masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): _MASK if str(key).lower() == "x-api-key" else self(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))

    def text(self, text: str) -> str:
        if self._suspicious.search(text) is None:  # a third of the time of the two below
            return text
        return _KEY_HEADER.sub(rf"\g<1>{_MASK}", self._patterns.sub(_MASK, text))


def _pattern(secret: str) -> str:
    if len(secret) >= _LEAST_DISTINCT_CHARACTERS:
        return re.escape(secret)
    return rf"(?<![\w-]){re.escape(secret)}(?![\w-])"


class _RedactingFormatter(logging.Formatter):
    def __init__(self, redact: Redaction) -> None:
        super().__init__()
        self.redact = redact

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Return the ids of the request and of its trace, its canary, and the extra fields of the
        record, with secrets masked."""
        extra = {k: v for k, v in record.__dict__.items() if k not in _STANDARD_ATTRIBUTES}
        request = {"requestId": request_id.get()} if request_id.get() else {}
        if (current := trace.get()) is not None:
            request["traceId"] = current.id
        if (version := canary.get()) is not None:
            request["canary"] = version
        redacted = self.redact({**request, **extra})
        assert isinstance(redacted, dict)
        return redacted

    def message(self, record: logging.LogRecord) -> str:
        return self.redact.text(record.getMessage())

    def traceback(self, record: logging.LogRecord) -> str:
        if record.exc_info and record.exc_info[0]:
            return self.redact.text(self.formatException(record.exc_info))
        return ""


class JsonFormatter(_RedactingFormatter):
    """One JSON object per line: time, level, logger, message, requestId, then the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        head: dict[str, object] = {
            "time": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.message(record),
        }
        # The head comes first and overrides extra fields of the same name.
        line = head | self.fields(record) | head
        if traceback := self.traceback(record):
            line["traceback"] = traceback
        return _escaped(_dumped(line))


class TextFormatter(_RedactingFormatter):
    """For a person at a terminal: time, level, message, then `name=value` for the other fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {name}={value}" for name, value in self.fields(record).items())
        clock = _moment(record).astimezone().strftime("%H:%M:%S")
        line = f"{clock} {record.levelname:<7} {self.message(record)}{fields}"
        # Indented, so that no line of a traceback looks like an event.
        rest = (f"    {part}" for part in self.traceback(record).splitlines())
        return "\n".join(_escaped(part) for part in (line, *rest))


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _dumped(line: dict[str, object]) -> str:
    try:
        return orjson.dumps(line).decode()
    except TypeError:
        # A lone surrogate or an integer beyond 64 bits: slower, but the event is not lost.
        return json.dumps(line)


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
