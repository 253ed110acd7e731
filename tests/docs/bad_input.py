"""The page docs/evidence/bad-input.md: what the store says to bad settings, files and requests.

    python -m tests.docs.bad_input > docs/evidence/bad-input.md

The cases are those of the tests; the messages are what the store says to them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.unit.api.bad_requests import BAD_REQUESTS, INVENTORY, Bad
from tests.unit.app.bad_input import (
    DAMAGES,
    OWN,
    WRONG_SETTINGS,
    Damage,
    Start,
    error_lines,
    start_after,
)

PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "bad-input.md"
LONGEST_BODY_SHOWN = 60

SETTINGS_HEAD = """# Bad input

What the store says to wrong settings, damaged files and wrong requests. Tests write this page:
`python -m tests.docs.bad_input`.

## Wrong settings

A start with a wrong setting ends with exit status 2 and one line on standard error for each
variable that is wrong. No line holds a key. Rows with `ENVIRONMENT=production` and another variable
have a `STORE_ID` and keys of their own too.

"""

FILES_HEAD = """
## Damaged files

Whatever lies in `DATA_DIR`, the store starts and shows only values that it can prove: each line
carries a checksum, each record its number. It keeps what is damaged under another name, and a full
sync repairs the rest. Findings stay in `sync/status` (`disk.findings`) and in `store-cache status`
until the next start. In each case of the table the store sold one product and saw another one sold
at Central before it was stopped; afterwards it was in sync with Central, product by product.

"""

REFUSED_HEAD = """
Only files of a newer version and of another `STORE_ID` are refused: the start ends with exit status
1 or 2, respectively, and touches nothing.

"""

REQUESTS_HEAD = """
A folder that another store holds and a port that is taken end a start in the same way, each with a
line that says what to do.

## Wrong requests

None of these requests changes anything. `…` stands for `/v1/store`, and for what is too long to
show.

"""


def page() -> str:
    starts = [(damage, start_after(damage)) for damage in DAMAGES]
    return "".join(
        [
            SETTINGS_HEAD,
            _table(["setting", "what is said"], map(_setting_row, WRONG_SETTINGS)),
            FILES_HEAD,
            _table(
                ["what happened", "what the log says", "shown at once", "full sync"],
                (_damage_row(damage, start) for damage, start in starts if not start.refused),
            ),
            REFUSED_HEAD,
            _table(
                ["what happened", "what is said"],
                ((d.what, f"`store-cache: {s.refused}`") for d, s in starts if s.refused),
            ),
            REQUESTS_HEAD,
            _table(
                ["what is wrong", "request", "answer", "names"], map(_request_row, BAD_REQUESTS)
            ),
        ]
    )


def _setting_row(wrong: dict[str, str]) -> tuple[str, ...]:
    shown = [(name, value) for name, value in wrong.items() if (name, value) not in OWN.items()]
    given = "<br>".join(f"`{name}={value}`" for name, value in shown)
    return given, _lines(error_lines(wrong))


def _damage_row(damage: Damage, start: Start) -> tuple[str, ...]:
    reasons = ", ".join(start.full_syncs) or "none"
    return damage.what, _lines(start.log) or "nothing", start.shown, reasons


def _request_row(case: Bad) -> tuple[str, ...]:
    names = ", ".join(f"`{name}`" for name in case.names)
    return case.what, _request(case), f"{case.status} `{case.code}`", names


def _request(case: Bad) -> str:
    """Enough of the request to recognise it."""
    target = case.target.replace(INVENTORY, "…/inventory").replace("\xe9", "é")
    body = case.sent_body.decode(errors="replace")
    shown = f"{case.method} {target}"
    if len(body) > LONGEST_BODY_SHOWN:
        body = body[: LONGEST_BODY_SHOWN - 1] + "…"
    if body.strip():
        shown += " " + body
    return f"`{shown}`".replace("|", "\\|").replace("\r\n", "␍␊").replace("\ufeff", "\\ufeff")


def _lines(lines: Iterable[str]) -> str:
    return "<br>".join(f"`{line}`" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
