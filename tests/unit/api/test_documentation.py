"""`docs/api.md` is right: its examples run, its tables are those of the code."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from store_cache.api.problems import STATUS
from tests.harness.http import Reply
from tests.harness.shop import Shop, product
from tests.unit.api.conftest import Opened, Store

HOST = "localhost:8083"
WITH_VALUE = ("-X", "-H", "-d")


@dataclass
class Example:
    """A documented call and the answer shown below it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    shows_head: bool
    shown: str


def _examples(text: str) -> list[Example]:
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    calls = [call for block in blocks for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [_example(*call.split("\n", 1)) for call in calls]


def _example(command: str, shown: str) -> Example:
    words = shlex.split(command)[1:]
    given: dict[str, list[str]] = {name: [] for name in WITH_VALUE}
    url, flags = "", ""
    while words:
        word = words.pop(0)
        if word in WITH_VALUE:
            given[word].append(words.pop(0))
        elif word.startswith("-"):
            flags += word
        else:
            url = word
    body = "".join(given["-d"]).encode()
    method = (given["-X"] or ["POST" if body else "GET"])[0]
    headers = dict(line.split(": ", 1) for line in given["-H"])
    return Example(method, url.removeprefix(HOST), headers, body, "i" in flags, shown)


@pytest.fixture
async def documented_store(open_store: Opened) -> Store:
    shop = Shop(
        [
            product("PROD-001", name="Wireless Headphones", category="Audio"),
            product("PROD-002", name="Desk Lamp", available=4, version=2, price=24.5),
            product("tea/green 50%", name="Green Tea", available=30, version=1, price=3.2),
        ]
    )
    return await open_store(shop, keys=["demo"], admin_keys=["office"])


async def test_each_example_is_answered_as_shown(
    documented_store: Store, project_root: Path
) -> None:
    """Each `curl` of the documentation, in its order, gets the answer printed below it."""
    examples = _examples((project_root / "docs" / "api.md").read_text())
    for example in examples:
        reply = await documented_store.send(
            example.method, example.target, headers=example.headers, body=example.body
        )
        _compare(example, reply)

    assert len(examples) >= 12


def _compare(example: Example, reply: Reply) -> None:
    shown = example.shown
    if example.shows_head:
        head, _, shown = shown.partition("\n\n")
        status_line, *lines = head.strip().split("\n")
        expected = dict(line.split(": ", 1) for line in lines)

        assert int(status_line.split()[1]) == reply.status
        assert expected == {name: reply.headers.get(name) for name in expected}
    if shown.strip():
        assert orjson.loads(shown) == reply.json


def test_each_code_is_in_the_table_of_errors(project_root: Path) -> None:
    """Every code with its status, and none that does not exist."""
    text = (project_root / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", text, re.MULTILINE)

    assert {code: str(status) for code, status in STATUS.items()} == dict(rows)
