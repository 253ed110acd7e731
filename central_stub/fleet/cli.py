"""`central-stub stores`: in colour and columns on a terminal, as plain lines elsewhere."""

from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from central_stub.tenants import HEADER as TENANT_HEADER

TIMEOUT_SECONDS = 30.0
COLUMNS = ("STORE", "STATE", "SINCE", "BEHIND", "AGE", "LAST SEEN", "VERSION", "WHY")
_STYLES = {"bad": "bold red", "warn": "yellow", "good": "green"}
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


class CallFailed(Exception):
    """Central does not answer the call; the message says why."""


def read_stores(
    url: str, admin_key: str, *, tenant: str | None, state: str | None, part: str, limit: int
) -> dict[str, Any]:
    """Return the answer of `GET /v1/admin/stores`. `part`: of the ids. Raises CallFailed."""
    headers = {"X-API-Key": admin_key} | ({} if tenant is None else {TENANT_HEADER: tenant})
    query = {"state": state, "id": part, "limit": limit}
    try:
        answer = httpx.get(
            f"{url}/v1/admin/stores",
            params={name: value for name, value in query.items() if value},
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise CallFailed(f"Central at {url} cannot be reached: {error}; see --url") from error
    if answer.status_code != httpx.codes.OK:
        said = printable(answer.text[:200])
        raise CallFailed(f"Central at {url} answered {answer.status_code}: {said}")
    document: dict[str, Any] = answer.json()
    return document


def print_stores(fleet: dict[str, Any]) -> None:
    """Print the counts and the stores of an answer."""
    console = Console(highlight=False, emoji=False)
    counts = {state: count for state, count in fleet["counts"].items() if count}
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{sum(counts.values())} processes of {fleet['storeIds']} stores: {told or 'none yet'}")
    rows = [(each["level"], cells_of(each)) for each in fleet["stores"]]
    if not console.is_terminal:
        for _, cells in rows:
            print("\t".join(cells))
    elif rows:
        table = Table(*COLUMNS, box=None, padding=(0, 2, 0, 0), header_style="dim")
        for level, cells in rows:
            table.add_row(cells[0], Text(cells[1], _STYLES[level]), *map(Text, cells[2:]))
        console.print(table)
    more = fleet["pagination"]["total"] - len(rows)
    if more > 0:
        print(f"and {more} more, none of them worse: see --limit")


def cells_of(store: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one row."""
    lag, age = store["lag"], store["ageSeconds"]
    return (
        store["storeId"],
        store["state"],
        duration(store["stateSeconds"]),
        "another feed" if lag is None else str(lag),
        "never in sync" if age is None else duration(age),
        duration(store["silentSeconds"]),
        printable(store["version"]),
        printable(why(store)),
    )


def why(store: dict[str, Any]) -> str:
    """Return what a person has to know first of a store that is not well."""
    outbox, refused = store["outbox"] or {}, store["refused"]
    if store["problem"]:
        return str(store["problem"])
    if outbox.get("parked"):
        return f"{outbox['parked']} queued sales wait for a person"
    if refused and store["level"] != "good":
        return f"refused {refused['what']}: {refused['reason']}"
    return ""


def duration(seconds: float) -> str:
    """Return a duration in its largest unit: `3 min`."""
    for name, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return "0 s"


def printable(text: str) -> str:
    """Return a text without what a terminal obeys: stores wrote it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
