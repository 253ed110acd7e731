"""README and pages say what is so: commands, examples, names, tables and links."""

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson
import pytest

import central_stub.cli
import store_cache.cli.main
from store_cache.api.content.state import StateName
from store_cache.cli.demo import CATALOGUE, sell_once
from store_cache.sync.reading import FullSyncStep
from tests.docs import bad_input
from tests.docs.pages import (
    DOCS,
    PAGES,
    README,
    ROOT,
    anchors,
    calls,
    commands,
    first_cells,
    prose,
    quoted,
    section,
    shown_answer,
    table_rows,
)
from tests.harness.clients import TILL_KEY
from tests.scenarios.shop import InProcessShop, a_shop

OPERATIONS = DOCS / "operations.md"
RELIABILITY = DOCS / "reliability.md"
SYNC = DOCS / "sync.md"
PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "store-cache": store_cache.cli.main.main,
    "central-stub": central_stub.cli.main,
}
TIMES = re.compile(r'"(lastUpdated|lastSyncTime)":"[^"]*"')
CHANGING_HEADERS = {"X-Cache-Offset", "X-Cache-Generation", "ETag", "Age", "X-Request-ID"}
README_LINES = 150
WIDTH = 100


# -- the README's examples ---------------------------------------------------------------------


@pytest.fixture
async def demo_shop(tmp_path: Path) -> Any:
    products = [orjson.loads(line) for line in CATALOGUE.read_bytes().splitlines()]
    async with a_shop(tmp_path, products=products) as shop:
        yield shop


async def test_each_example_of_the_readme_is_answered_as_shown(
    demo_shop: InProcessShop, capsys: pytest.CaptureFixture[str]
) -> None:
    """In their order, long after the start of a demo; times, tags and generations aside."""
    await sell_for_long(demo_shop)
    assert "this store: " in capsys.readouterr().out
    found = calls(README)
    for call, shown in found:
        headers = {name: value for name, value in call.headers.items() if name != "X-API-Key"}
        answer = await demo_shop.store.call(
            call.method, call.target, headers=headers, data=call.body or None
        )
        status, said, body = shown_answer(call, shown)
        lasting = {name: value for name, value in said.items() if name not in CHANGING_HEADERS}

        assert status == answer.status
        assert lasting == {name: answer.headers.get(name) for name in lasting}
        assert without_times(body) == without_times(answer.body.decode())

    assert 3 == len(found)


async def sell_for_long(shop: InProcessShop) -> None:
    """What a demo sells in some minutes."""
    chance = Random(7)
    async with httpx.AsyncClient(headers={"X-API-Key": TILL_KEY}, trust_env=False) as till:
        for number in range(150):
            await sell_once(till, shop.store.url, shop.central.url, chance, f"demo-{number}")


def without_times(body: str) -> Any:
    return orjson.loads(TIMES.sub(r'"\1":""', body))


def test_the_readme_is_short() -> None:
    """Whoever reads it knows in five minutes what this is."""
    assert len(README.read_text().splitlines()) <= README_LINES


# -- commands and names ------------------------------------------------------------------------


def named_commands() -> Iterator[tuple[str, str]]:
    """Each `store-cache ...` and `central-stub ...` of the pages: the page and the command."""
    for page in PAGES:
        lines = [" ".join(words) for words, _ in commands(page)]
        for line in (*quoted(page), *lines):
            command = re.search(r"(store-cache|central-stub) [a-z]+( .*)?$", line)
            if command and not re.match(r"docker|\$|Description", line):
                yield page.name, command[0]


@pytest.mark.parametrize(("page", "command"), sorted(set(named_commands())))
def test_each_named_command_and_option_exists(
    capsys: pytest.CaptureFixture[str], page: str, command: str
) -> None:
    """As the program's own help tells it."""
    program, subcommand, *words = command.partition("[")[0].split()
    has_actions = (
        subcommand in ("keys", "writes", "outbox") and words and not words[0].startswith("-")
    )
    subcommands = [subcommand, words[0]] if has_actions else [subcommand]
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[program]([*subcommands, "--help"])
    options = {word for word in words if word.startswith("--")}

    assert 0 == ended.value.code, page
    assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def test_each_named_target_of_make_exists() -> None:
    """`make x` is in the Makefile, and tells of itself in `make help`."""
    named = {
        target
        for page in PAGES
        for target in re.findall(
            r"(?:`|^)make(?: [A-Z]+=\S+)? ([a-z-]+)", page.read_text(), re.MULTILINE
        )
    }
    helped = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {"run", "test", "sales", "outages"} <= named
    assert set() == named - set(helped)


def named_files() -> Iterator[tuple[str, str]]:
    """Each file or folder of the code that a page names."""
    for page in PAGES:
        for name in sorted(quoted(page)):
            if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.py)", name):
                yield page.name, name
        for module in re.findall(r"python -m ([\w.]+)", page.read_text()):
            if module.partition(".")[0] not in {"pytest", "venv"}:
                yield page.name, module.replace(".", "/")


@pytest.mark.parametrize(("page", "name"), sorted(set(named_files())))
def test_each_named_file_exists(page: str, name: str) -> None:
    """From the project's folder, or from that of the store's package."""
    tried = [ROOT / name, ROOT / f"{name}.py", ROOT / "store_cache" / name]

    assert any(path.exists() for path in tried), page


@pytest.mark.parametrize("page", [*PAGES, ROOT / ".env.example"], ids=lambda page: page.name)
def test_lines_are_not_long(page: Path) -> None:
    """But for tables, and for lines that are one long word."""
    written = [line for line in prose(page).splitlines() if not line.startswith("|")]
    generated = page.parent.name == "benchmarks"

    assert generated or [] == [line for line in written if len(line) > WIDTH and " " in line]


# -- tables ------------------------------------------------------------------------------------


def test_each_wait_is_the_code_s() -> None:
    """The numbers of docs/sync.md are those of the constants that they name."""
    rows = table_rows(section(SYNC, "Waits"))[1:]
    waits = {constant.strip("`"): float(seconds) for _, constant, seconds, _ in rows}

    assert waits == {name: constant_of(name) for name in waits}
    assert len(waits) > 20


def constant_of(name: str) -> float:
    module, _, variable = name.rpartition(".")
    return float(getattr(importlib.import_module(f"store_cache.{module}"), variable))


def test_each_state_is_explained() -> None:
    """By the name that the status gives it."""
    assert {f"`{name}`" for name in StateName} == set(first_cells(OPERATIONS, "States"))


def test_each_step_of_a_full_sync_is_explained() -> None:
    """By the value that the status shows."""
    assert {f"`{step}`" for step in FullSyncStep} == set(first_cells(SYNC, "A full sync"))


async def test_each_field_of_the_status_is_explained(demo_shop: InProcessShop) -> None:
    """docs/operations.md has every field that a store gives; those of `verification` are on a page
    of their own."""
    status = await demo_shop.store.status()
    verification = status.pop("verification")

    assert set() == set(fields(status)) - quoted(OPERATIONS)
    assert set() == set(fields(verification)) - quoted(DOCS / "verification.md")


def fields(document: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from fields(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_each_line_of_the_log_can_be_found() -> None:
    """What an operator is told to search for stands in the code that logs."""
    code = " ".join(path.read_text() for path in (ROOT / "store_cache").rglob("*.py"))
    phrases = [cell.split("`")[1] for cell in first_cells(OPERATIONS, "Logs")]

    assert len(phrases) > 10
    assert [] == [phrase for phrase in phrases if phrase not in code]


def test_each_failure_is_held_by_tests() -> None:
    """docs/reliability.md names tests that exist for each row of the failure table."""
    rows = dict(table_rows(section(RELIABILITY, "Tests of the failure table"))[1:])
    named = {failure: re.findall(r"`(test_\w+)`", cell) for failure, cell in rows.items()}
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert set(first_cells(OPERATIONS, "When something fails")) == set(rows)
    assert [] == [failure for failure in named if not named[failure]]
    assert [] == [name for row in named.values() for name in row if f"def {name}(" not in code]


def test_the_page_of_bad_input_is_what_the_store_says() -> None:
    """`python -m tests.docs.bad_input > docs/evidence/bad-input.md` writes it again."""
    assert bad_input.page() == bad_input.PAGE.read_text()


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


def test_each_page_can_be_reached() -> None:
    """From the README, by links."""
    reached: set[Path] = set()
    left = [README]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            left += [
                (page.parent / target.partition("#")[0]).resolve()
                for source, target in links()
                if source == page and target.partition("#")[0].endswith(".md")
            ]

    assert set() == set(PAGES) - reached
