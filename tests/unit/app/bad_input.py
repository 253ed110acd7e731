"""Wrong settings and damaged files: the cases of a test and of docs/evidence/bad-input.md."""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from store_cache.app.settings import SettingsError, load_settings
from store_cache.storage.directory import DirectoryRefused
from store_cache.storage.framing import frame
from store_cache.writes.write import Write
from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import a_store
from tests.harness.virtual_time import run

Files = dict[str, bytes]

# -- settings ----------------------------------------------------------------------------------

HASH = "sha256:" + hashlib.sha256(b"till-1").hexdigest()
LONG = "s" * 65
OWN = {"STORE_ID": "shop-7", "API_KEYS": "mine-of-till-one", "CENTRAL_API_KEY": "mine-for-central"}
"""What production requires beside `ENVIRONMENT`; the page does not show it."""
PRODUCTION = {"ENVIRONMENT": "production"} | OWN

WRONG_SETTINGS: Sequence[dict[str, str]] = (
    {"ENVIRONMENT": "prod"},
    {"PORT": "80833"},
    {"PORT": "http"},
    {"GRPC_PORT": "grpc"},
    {"PORT": "8090", "GRPC_PORT": "8090"},
    {"ENVIRONMENT": "staging", "GRPC_PORT": "0"},
    {"HOST": "two hosts"},
    {"TENANT_ID": "two words"},
    {"LOG_LEVEL": "loud"},
    {"STORE_ID": "süd"},
    {"STORE_ID": LONG},
    {"KEYS_FILE": "/no/such/keys.jsonl"},
    {"API_KEYS": ""},
    {"API_KEYS": "till-1,,till-2"},
    {"API_KEYS": "sha256:1234"},
    {"ENVIRONMENT": "production"},
    PRODUCTION | {"API_KEYS": "demo"},
    PRODUCTION | {"ADMIN_API_KEYS": "short"},
    {"API_KEYS": "till-1", "ADMIN_API_KEYS": "till-1"},
    {"API_KEYS": HASH, "ADMIN_API_KEYS": "till-1"},
    {"CENTRAL_API_URL": "central.example.com"},
    {"CENTRAL_API_URL": "https://shop:secret@central.example.com"},
    {"CENTRAL_API_URL": "https://central.example.com/?key=secret"},
    {"CENTRAL_API_URL": "http://central:port"},
    {"CENTRAL_API_KEY": ""},
    {"CENTRAL_API_KEY": "with a blank"},
    {"DATA_DIR": ""},
    {"SYNC_INTERVAL_SECONDS": "301"},
    PRODUCTION | {"SYNC_INTERVAL_SECONDS": "5"},
    PRODUCTION | {"EVENT_WAIT_TIMEOUT_SECONDS": "2"},
    {"EVENT_BATCH_LIMIT": "1000"},
    {"SYNC_INTERVAL_MINUTES": "0"},
    {"POLL_MODE": "sometimes"},
    {"FEED_SOURCE": "kafka"},
    {"NATS_URL": "http://nats.example.com"},
    {"NATS_URL": "nats://me:secret@nats.example.com"},
    {"NATS_API_PREFIX": "$JS.*"},
    {"NATS_CREDENTIALS_FILE": "/no/such/nats.creds"},
    {"NATS_CA_FILE": "/no/such/ca.pem"},
    {"STALE_AFTER_SECONDS": "1m"},
    {"CORS_ORIGINS": "https://till.example.com/"},
    PRODUCTION | {"CORS_ORIGINS": "*"},
    {"CENTRAL_CA_FILE": "/no/such/ca.pem", "CENTRAL_API_URL": "https://central.example.com"},
    {"CENTRAL_CA_FILE": "/no/such/ca.pem", "CENTRAL_API_URL": "http://central.example.com"},
    {"HOLE_GRACE_SECONDS": "nan"},
    {"SNAPSHOT_MIN_PERCENT": "101"},
    {"WRITE_TIMEOUT_SECONDS": "0"},
    {"KEY_RETENTION_HOURS": "10000"},
    {"OFFLINE_WRITES": "maybe"},
    {"OUTBOX_LIMIT": "0"},
    {"OUTBOX_MAX_AGE_HOURS": "-1"},
    {"CENTRAL_CLIENT_CERT_FILE": "/no/such/client.pem", "CENTRAL_API_URL": "http://central"},
    {"CENTRAL_CLIENT_KEY_FILE": "/no/such/key.pem"},
    {"TLS_CERT_FILE": "/no/such/tls.pem"},
    {"TLS_KEY_FILE": "/no/such/key.pem"},
    {"TLS_CLIENT_CA_FILE": "/no/such/ca.pem"},
    {"TRUSTED_PROXIES": "proxy.example.com"},
    {"RATE_LIMIT_READS": "many"},
    {"RATE_LIMIT_WRITES": "-1"},
    {"FLEET_REPORT": "on"},
    {"FAST_READS": "on"},
    {"STREAM_READERS": "1801"},
    {"STREAM_HISTORY": "99"},
    {"SEARCH": "on"},
    {"HISTORY_LIMIT": "many"},
    {"API_DOCS": "yes"},
    {"METRICS": "on"},
    {"METRICS_KEY_REQUIRED": "yes"},
    {"PORT": "x", "STORE_ID": "", "POLL_MODE": "x"},
)


def error_lines(wrong: dict[str, str]) -> list[str]:
    """Return the lines that a start with these variables prints."""
    try:
        load_settings(wrong, env_file=None)
    except SettingsError as problem:
        return str(problem).splitlines()
    return []


# -- files -------------------------------------------------------------------------------------

SNAPSHOT, JOURNAL = "snapshot-2.jsonl", "journal-2.jsonl"


@dataclass(frozen=True)
class Damage:
    """A change of the files of a stopped store. `failing` is the number of the disk operation
    that fails at the next start."""

    what: str
    make: Callable[[Files], Files]
    failing: int | None = None


@dataclass(frozen=True)
class Start:
    """The next start: its log, what it showed before it reached Central, the reasons of its full
    syncs. `is_right`: once in sync, it showed what Central has. `refused`: why it did not start."""

    log: tuple[str, ...]
    shown: str
    full_syncs: tuple[str, ...]
    is_right: bool = True
    refused: str = ""


def _file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: files | {name: change(files[name])}


def _without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: data for name, data in files.items() if name not in names}


def _line(number: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        lines[number] = change(lines[number])
        return b"".join(lines)

    return changed


def _flip(line: bytes) -> bytes:
    """Flip one bit in the middle."""
    place = len(line) // 2
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


def _edit(line: bytes) -> bytes:
    """Change a number with an editor."""
    return line.replace(b'"available":10', b'"available":99')


NEWER = frame("header", orjson.dumps({"file": "snapshot", "format": 2, "number": 3}))
ANOTHERS = frame(
    "header", orjson.dumps({"file": "snapshot", "format": 1, "number": 3, "store": "store-s2"})
)

DAMAGES: Sequence[Damage] = (
    Damage("nothing: a clean stop", dict),
    Damage("power was cut while the last record was written", _file(JOURNAL, lambda d: d[:-9])),
    Damage(
        "the same, and the disk left zeros",
        _file(JOURNAL, lambda d: d[:-30] + bytes(30)),
    ),
    Damage("a bit flipped in the last record", _file(JOURNAL, _line(-1, _flip))),
    Damage("a bit flipped in a record before it", _file(JOURNAL, _line(2, _flip))),
    Damage("a record was removed by hand", _file(JOURNAL, _line(2, lambda _: b""))),
    Damage("the journal is empty", _file(JOURNAL, lambda _: b"")),
    Damage("the journal was removed", _without(JOURNAL)),
    Damage("a number was edited in the snapshot", _file(SNAPSHOT, _line(1, _edit))),
    Damage("the snapshot is cut short", _file(SNAPSHOT, lambda d: d[: len(d) // 2])),
    Damage("the snapshot's first line is garbage", _file(SNAPSHOT, _line(0, lambda _: b"#\n"))),
    Damage("the snapshot was removed", _without(SNAPSHOT)),
    Damage("all files were removed", _without(SNAPSHOT, JOURNAL)),
    Damage(
        "a snapshot was being written when the store was killed",
        lambda files: files | {"snapshot-3.jsonl.new": b'{"crc":'},
    ),
    Damage("the snapshot cannot be read from the disk", dict, failing=4),
    Damage("the folder cannot be read at all", dict, failing=1),
    Damage("a newer version wrote here", lambda files: files | {"snapshot-3.jsonl": NEWER}),
    Damage("a store-s2 wrote here", lambda files: files | {"snapshot-3.jsonl": ANOTHERS}),
)


class LogLines(logging.Handler):
    """Collects the warnings about files."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("files: "):
            self.lines.append(f"{record.levelname} {record.getMessage()}")


def start_after(damage: Damage) -> Start:
    """Run a store that sells, stop it, damage its files, and start it again."""
    log = LogLines()
    logger = logging.getLogger("store_cache")
    logger.addHandler(log)
    try:
        return run(_start_after(damage, log))
    finally:
        logger.removeHandler(log)


async def _start_after(damage: Damage, log: LogLines) -> Start:
    central = LedgerTransport(Clock())
    async with a_store(central=central) as store:
        await store.until("live")
        await store.parts.forwarder.update(Write("P-1", -1, 1, "order-1"))
        central.sell("P-2")
        await store.until("live")
        files = store.disk.contents()
    folder = FaultyDirectory(damage.make(files))
    if damage.failing is not None:
        folder.failures = {damage.failing: errno.EIO}
    try:
        return await _started(folder, central, log)
    except DirectoryRefused as problem:
        return Start((), "", (), refused=str(problem))


async def _started(folder: FaultyDirectory, central: LedgerTransport, log: LogLines) -> Start:
    central.may_answer.clear()
    async with a_store(folder, central=central) as store:
        cached = store.parts.writer.catalogue
        shown = [] if cached is None else cached.page(0, 9)
        central.may_answer.set()
        await store.until("degraded" if store.state == "degraded" else "live")
        full_syncs = tuple("; ".join(one["reasons"]) for one in store.status["fullSyncs"])
        now = store.parts.writer.catalogue
        assert now is not None
        is_right = central.ledger.everything() == [orjson.loads(row) for row in now.page(0, 9)]
        return Start(tuple(log.lines), _shown(shown, now.page(0, 9)), full_syncs, is_right)


def _shown(shown: Sequence[bytes], in_sync: Sequence[bytes]) -> str:
    if not shown:
        return "nothing, until the full sync is done"
    return "everything" if shown == in_sync else "an older state, whole"
