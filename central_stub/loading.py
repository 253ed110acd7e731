"""Load a catalogue into Central by admin calls: JSON lines or CSV, also `.gz`.

Afterwards every line is in Central, or listed as bad.
Errors:
    UnreadableFile      the file is missing, not text, or cut short
    LoadFailed          Central cannot be reached, or refuses the key
"""

import csv
import gzip
import io
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import httpx
import orjson

from central_stub.progress import FileProgress, file_progress
from central_stub.tenants import HEADER as TENANT_HEADER

BATCH = 500
ATTEMPTS = 8
TIMEOUT_SECONDS = 60.0
SURROGATES = frozenset(map(chr, range(0xDC80, 0xDD00)))
"""What invalid UTF-8 is decoded to, so that a bad line does not end the file."""


class UnreadableFile(Exception):
    """A file cannot be read; the message says which and why."""


class LoadFailed(Exception):
    """Loading cannot continue; the message contains Central's answer."""


@dataclass(slots=True)
class Loaded:
    """The result. `bad_lines` are (line number from 1, what is wrong)."""

    created: int = 0
    changed: int = 0
    bad_lines: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    attributes: dict[str, Any]


def load(path: Path, *, url: str, admin_key: str, tenant: str | None = None) -> Loaded:
    """Create every product of the file, or set it if it exists; `tenant`: of this one. Raises
    UnreadableFile, LoadFailed."""
    loaded = Loaded()
    headers = {"X-API-Key": admin_key} | ({} if tenant is None else {TENANT_HEADER: tenant})
    with (
        opened(path, "products") as (text, bar),
        httpx.Client(
            base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False
        ) as client,
    ):
        lines = _lines(path, text, loaded)
        while batch := list(islice(lines, BATCH)):
            _put(client, batch, loaded)
            bar.update(len(batch))
    loaded.bad_lines.sort()
    return loaded


@contextmanager
def opened(
    path: Path, unit: str, total: int | None = None
) -> Iterator[tuple[TextIO, FileProgress]]:
    """Open a text file, unpacked if it ends in `.gz`, with a progress bar. UnreadableFile."""
    try:
        with path.open("rb") as raw:
            unpacked = gzip.open(raw) if path.suffix == ".gz" else raw  # noqa: SIM115
            text = io.TextIOWrapper(
                unpacked, encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
            size = path.stat().st_size
            with file_progress(path.name, unit, raw, size=size, total=total) as bar:
                yield text, bar
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFile(f"{path} cannot be read: {error}") from error


# Lines


def _lines(path: Path, text: TextIO, loaded: Loaded) -> Iterator[Line]:
    name = path.name.removesuffix(".gz")
    read = _csv_lines if name.endswith(".csv") else _json_lines
    return read(text, loaded)


def _json_lines(text: TextIO, loaded: Loaded) -> Iterator[Line]:
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            attributes = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            loaded.bad_lines.append((number, f"not JSON: {error}"))
            continue
        if isinstance(attributes, dict):
            yield Line(number, attributes)
        else:
            loaded.bad_lines.append((number, "not an object"))


def _csv_lines(text: TextIO, loaded: Loaded) -> Iterator[Line]:
    rows = csv.DictReader(text, strict=True)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            loaded.bad_lines.append((rows.line_num, f"not CSV: {error}"))
            continue
        if row is None:
            return
        try:
            yield Line(rows.line_num, _attributes(row))
        except ValueError as error:
            loaded.bad_lines.append((rows.line_num, str(error)))


def _attributes(row: Mapping[str | None, Any]) -> dict[str, Any]:
    """Return a CSV row as attributes: `available` whole, `price` a number, the rest text."""
    if None in row:
        raise ValueError("more cells than the first line has names")
    if any(character in SURROGATES for text in row.values() if text for character in text):
        raise ValueError("not UTF-8")
    named = {str(name): text for name, text in row.items() if text}
    kinds = {"available": int, "price": float}
    return {name: _typed(name, text, kinds.get(name, str)) for name, text in named.items()}


def _typed(name: str, text: str, kind: type[int | float | str]) -> int | float | str:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, not a number") from None


# Central


def _put(client: httpx.Client, batch: list[Line], loaded: Loaded) -> None:
    results = _send(client, "POST", "/v1/admin/products/create", batch)
    paired = list(zip(batch, results, strict=True))
    held = [line for line, result in paired if result.get("errorType") == "product_exists"]
    loaded.created += sum(bool(result["success"]) for result in results)
    _note(loaded, [each for each in paired if each[1].get("errorType") != "product_exists"])
    if held:
        results = _send(client, "PUT", "/v1/admin/products/set", held)
        loaded.changed += sum(bool(result["success"]) for result in results)
        _note(loaded, list(zip(held, results, strict=True)))


def _note(loaded: Loaded, paired: list[tuple[Line, dict[str, Any]]]) -> None:
    for line, result in paired:
        if not result["success"]:
            issue = f"{result.get('errorType')}: {result.get('errorMessage')}"
            loaded.bad_lines.append((line.number, issue))


def _send(client: httpx.Client, method: str, path: str, batch: list[Line]) -> list[dict[str, Any]]:
    """Return the results of one call. It is repeated while Central is away, which is idempotent."""
    body = orjson.dumps({"products": [line.attributes for line in batch]})
    failure = ""
    for attempt in range(ATTEMPTS):
        try:
            answer = client.request(method, path, content=body)
        except httpx.TransportError as error:
            failure = f"cannot be reached: {error}"
        else:
            if answer.status_code == 200:
                results: list[dict[str, Any]] = answer.json()["results"]
                return results
            failure = f"answered {answer.status_code}: {answer.text[:200]}"
            if answer.status_code < 500 and answer.status_code != 429:
                break
        time.sleep(min(0.1 * 2**attempt, 5))
    raise LoadFailed(f"Central at {client.base_url} {failure}")
