"""Shell completion, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from store_cache.cli.main import main

BASH = """\
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_store_cache
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

CASES = [
    (["store-cache", "s"], {"serve", "status", "sync"}),
    (["store-cache", "status", "--w"], {"--watch"}),
    (["store-cache", "status", "--url", "http://till", "--k"], {"--key"}),
    (["store-cache", "keys", "r"], {"revoke"}),
    (["store-cache", "keys", "new", "--scope", ""], {"admin", "read", "write"}),
    (["store-cache", "keys", "new", "--file", "/etc/host", "--ex"], {"--expires"}),
    (["store-cache", "completion", "z"], {"zsh"}),
]


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert 0 == main(["completion", shell])
    path = folder / "completion"
    path.write_text(capsys.readouterr().out)
    return path


def said_by(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "" == done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_bash_completes(
    words: list[str], expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands, their options, and the values that an option has."""
    path = script("bash", tmp_path, capsys)
    given = " ".join(f"'{word}'" for word in words)

    assert expected == set(said_by("bash", "-c", BASH.format(script=path, words=given)))


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_fish_completes(
    words: list[str], expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same."""
    path = script("fish", tmp_path, capsys)
    said = said_by("fish", "-c", f"source {path}; complete -C '{' '.join(words)}'")

    assert expected == {line.split("\t")[0] for line in said}


def test_zsh_takes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs the functions of bash, which it registers for the command."""
    path = script("zsh", tmp_path, capsys)
    said = said_by("zsh", "-f", "-c", f"HOME={tmp_path}; source {path}; print $_comps[store-cache]")

    assert ["_bash_complete -F _store_cache"] == [line.strip() for line in said]
