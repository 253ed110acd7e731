"""README and pages say what is so: their commands, answers, tables and links."""

import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

import central_stub.cli
import store_cache.cli.main
from store_cache.api.content.state import StateName
from store_cache.cli.demo import CATALOGUE
from store_cache.sync.states import FullSyncStep
from tests.scenarios.shop import Answer, Shop, a_shop

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "store-cache": store_cache.cli.main.main,
    "central-stub": central_stub.cli.main,
}
CHANGES = re.compile(r'"(lastUpdated|lastSyncTime)":"[^"]*"')
CHANGING_HEADERS = ("X-Cache-Offset", "X-Cache-Generation", "ETag", "Age", "X-Request-ID")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def table_rows(page: Path) -> list[list[str]]:
    """The cells of every row of every table."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# -- the README's API by example ---------------------------------------------------------------


@dataclass
class Example:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    shown: str


def examples() -> list[Example]:
    """The calls of the README's store, each with what is shown below it."""
    calls = [call for block in blocks(README, "console") for call in block.split("$ ")[1:]]
    return [example(*call.split("\n", 1)) for call in calls if call.startswith("curl ")]


def example(command: str, shown: str) -> Example:
    words = shlex.split(command)
    given = dict(pairwise(words))
    lines = [value for name, value in pairwise(words) if name == "-H"]
    headers = dict(line.split(": ", 1) for line in lines)
    body = given.get("-d", "")
    target = next(w for w in words if w.startswith("localhost:8083")).removeprefix("localhost:8083")
    method = given.get("-X", "POST" if body else "GET")
    return Example(method, target, headers, body.encode(), shown)


@pytest.fixture
async def demo_shop(tmp_path: Path) -> Any:
    products = [orjson.loads(line) for line in CATALOGUE.read_bytes().splitlines()]
    async with a_shop(tmp_path, products=products) as shop:
        yield shop


async def test_each_example_of_the_readme_is_answered_as_shown(demo_shop: Shop) -> None:
    """With the demo's catalogue, in their order; times, tags and generations aside."""
    found = examples()
    for each in found:
        headers = {name: value for name, value in each.headers.items() if name != "X-API-Key"}
        answer = await demo_shop.store.call(
            each.method, each.target, headers=headers, data=each.body or None
        )

        assert comparable(each.shown) == told(answer, each.shown)

    assert len(found) >= 8


def comparable(shown: str) -> Any:
    head, _, body = shown.rpartition("\n\n")
    lines = [line.partition(": ")[::2] for line in head.splitlines()[1:]]
    kept = {name: value for name, value in lines if name not in CHANGING_HEADERS}
    return kept, orjson.loads(CHANGES.sub(r'"\1":""', body))


def told(answer: Answer, shown: str) -> Any:
    names = comparable(shown)[0]
    body = CHANGES.sub(r'"\1":""', answer.body.decode())
    return {name: answer.headers.get(name) for name in names}, orjson.loads(body)


# -- commands ----------------------------------------------------------------------------------


def named_commands() -> Iterator[tuple[str, str]]:
    """Each `store-cache ...` and `central-stub ...` of the pages: the page and the line."""
    for page in PAGES:
        text = page.read_text()
        quoted = re.findall(r"`([^`\n]+)`", text)
        lines = [
            line
            for part in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
            for line in part.splitlines()
        ]
        for line in (*quoted, *lines, *re.findall(r"^    (.+)$", text, re.MULTILINE)):
            command = line.partition("#")[0].removeprefix("$ ").strip()
            if re.match(r"(store-cache|central-stub) [a-z]+( |$)", command):
                yield page.name, command


@pytest.mark.parametrize(("page", "command"), sorted(set(named_commands())))
def test_each_named_command_and_option_exists(
    capsys: pytest.CaptureFixture[str], page: str, command: str
) -> None:
    """As the program's own help tells it."""
    program, subcommand, *words = shlex.split(command.partition("[")[0])
    with pytest.raises(SystemExit) as ended:
        COMMANDS[program]([subcommand, "--help"])
    options = {word for word in words if word.startswith("--")}

    assert 0 == ended.value.code, page
    assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def test_each_named_target_of_make_exists() -> None:
    """`make x` is in the Makefile, and tells of itself in `make help`."""
    named = {
        target
        for page in PAGES
        for target in re.findall(
            r"(?:`|^)make(?: [A-Z]+=\S+)? ([a-z]+)", page.read_text(), re.MULTILINE
        )
    }
    helped = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {"run", "test", "sales", "outages"} <= named
    assert set() == named - set(helped)


# -- tables that repeat what stands elsewhere --------------------------------------------------


def test_the_readme_says_of_each_error_what_the_api_page_says() -> None:
    """What a till should do with a code is written twice, and the same."""
    code = re.compile(r"`[a-z_]+`")
    api = {row[0]: row[3] for row in table_rows(ROOT / "docs" / "api.md") if len(row) == 4}
    readme = {row[0]: row[1] for row in table_rows(README) if len(row) == 2}
    codes = {name for name in api if code.fullmatch(name)}

    assert len(codes) >= 18
    assert {name: api[name] for name in codes} == {name: readme.get(name) for name in codes}


def test_each_wait_is_the_code_s() -> None:
    """The numbers of docs/sync.md are those of the constants that they name."""
    rows = [row for row in table_rows(ROOT / "docs" / "sync.md") if len(row) == 4]
    waits = {row[1].strip("`"): float(row[2]) for row in rows if row[1].startswith("`")}

    assert waits == {name: constant(name) for name in waits}
    assert len(waits) > 20


def constant(name: str) -> float:
    module, _, variable = name.rpartition(".")
    return float(getattr(importlib.import_module(f"store_cache.{module}"), variable))


def test_each_state_and_step_is_explained() -> None:
    """By the name that the status gives it, and no other."""
    first = [row[0].strip("`") for row in table_rows(ROOT / "docs" / "sync.md") if len(row) == 3]

    assert {str(name) for name in (*StateName, *FullSyncStep)} <= set(first)


async def test_each_field_of_the_status_is_explained(demo_shop: Shop) -> None:
    """docs/operations.md has every field that a store gives."""
    status = await demo_shop.store.status()
    explained = set(re.findall(r"`([A-Za-z.]+)`", (ROOT / "docs" / "operations.md").read_text()))

    assert set() == set(fields(status)) - explained


def fields(document: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from fields(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_each_line_of_the_log_can_be_found() -> None:
    """What an operator is told to search for stands in the code that logs."""
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.partition("| search for |")[2].partition("\n\n")[0]
    code = " ".join(path.read_text() for path in (ROOT / "store_cache").rglob("*.py"))
    phrases = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)

    assert len(phrases) > 10
    assert [] == [phrase for phrase in phrases if phrase not in code]


# -- links -------------------------------------------------------------------------------------


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_each_link_leads_somewhere(page: Path, target: str) -> None:
    """To a file of the project and, where it names one, to a heading of it."""
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page

    assert file.exists()
    assert not anchor or anchor in anchors(file)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
