"""The pages: their code blocks, commands, curl calls, tables and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))

WITH_VALUE = ("-X", "-H", "-d")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> set[str]:
    """What stands in backquotes outside code blocks."""
    return set(re.findall(r"`([^`\n]+)`", prose(page)))


def commands(page: Path) -> Iterator[tuple[list[str], str]]:
    """Each command of the page's shell blocks as words, with what is shown below it."""
    for block in blocks(page, "console"):
        for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            yield split_command(shown)
    for block in blocks(page, "sh"):
        rest = block
        while rest.strip():
            words, rest = split_command(rest)
            yield words, ""


def split_command(text: str) -> tuple[list[str], str]:
    """The words of the command that the text begins with, and the lines after it.

    A command goes on in the next line after a backslash and within quotes. What follows `|` or `>`
    is left out.
    """
    lines = text.split("\n")
    for count in range(1, len(lines) + 1):
        if lines[count - 1].endswith("\\"):
            continue
        joined = re.sub(r"\\\n\s*", "", "\n".join(lines[:count]))
        try:
            words = shlex.split(joined, comments=True)
        except ValueError:
            continue
        ends = [words.index(sign) for sign in ("|", ">") if sign in words]
        return words[: min(ends, default=None)], "\n".join(lines[count:])
    raise ValueError(f"a command without an end: {text}")


@dataclass(frozen=True)
class Call:
    """What a curl command sends."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    shows_head: bool


def call_of(words: list[str]) -> Call:
    """Read a curl command."""
    given: dict[str, list[str]] = {name: [] for name in WITH_VALUE}
    url, flags = "", ""
    left = words[1:]
    while left:
        word = left.pop(0)
        if word in WITH_VALUE:
            given[word].append(left.pop(0))
        elif word.startswith("-"):
            flags += word
        else:
            url = word if "://" in word else f"http://{word}"
    body = "".join(given["-d"]).encode()
    method = (given["-X"] or ["POST" if body else "GET"])[0]
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = dict(line.split(": ", 1) for line in given["-H"])
    return Call(method, target, headers, body, "i" in flags)


def calls(page: Path) -> list[tuple[Call, str]]:
    """Each curl call of the page, with the answer shown below it."""
    return [(call_of(words), shown) for words, shown in commands(page) if words[0] == "curl"]


def shown_answer(call: Call, shown: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of a shown answer; 200 and no headers if only a body is shown."""
    if not call.shows_head:
        return 200, {}, shown
    head, _, body = shown.partition("\n\n")
    status_line, *lines = head.strip().split("\n")
    return int(status_line.split()[1]), dict(line.split(": ", 1) for line in lines), body


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or a higher one."""
    text = page.read_text()
    found = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert found, f"{page.name} has no heading {heading}"
    level = len(found[1])
    return re.split(rf"^#{{1,{level}}} ", text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def table_rows(text: str) -> list[list[str]]:
    """The cells of each row of each table, heads included."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def first_cells(page: Path, heading: str) -> list[str]:
    """The first cell of each row below a heading, the head of the table left out."""
    return [row[0] for row in table_rows(section(page, heading))][1:]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
