"""`store-cache completion`: a script that lets a shell complete commands and options.

It is made from the parser itself, so it knows whatever the program knows. zsh runs the script of
bash, by its `bashcompinit`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")

_SCRIPT = """\
_store_cache() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" at="" word
  for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD-1))}}"; do
    case "$at $word" in
      {commands}) at="${{at:+$at }}$word" ;;
    esac
  done
  case "$at $prev" in
{values}
  esac
  case "$at" in
{words}
  esac
}}
complete -F _store_cache store-cache
"""
_FOR_ZSH = "autoload -Uz compinit bashcompinit && compinit -u && bashcompinit\n"

_FISH = """\
function __store_cache_at
  set -l at
  for word in (commandline -opc)[2..]
    contains -- (string join -- ' ' $at $word) {commands}; and set -a at $word
  end
  test "$at" = "$argv[1]"
end
complete -c store-cache -f
{lines}
"""


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for one of SHELLS."""
    parsers = dict(_commands(parser, ""))
    if shell == "fish":
        return _fish_script(parsers)
    commands = "|".join(f'"{_parent(path)} {path.split()[-1]}"' for path in parsers if path)
    values = "\n".join(
        f'    "{path} {name}") COMPREPLY=({_values(option)}); return ;;'
        for path, one in parsers.items()
        for option in one._actions
        if option.option_strings and option.nargs != 0
        for name in option.option_strings
    )
    words = "\n".join(
        f'    "{path}") COMPREPLY=($(compgen -W "{" ".join(_words(one))}" -- "$cur")) ;;'
        for path, one in parsers.items()
    )
    script = _SCRIPT.format(commands=commands, values=values, words=words)
    return _FOR_ZSH + script if shell == "zsh" else script


def _fish_script(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    lines = []
    for path, parser in parsers.items():
        begin = f"complete -c store-cache -n '__store_cache_at \"{path}\"'"
        for action in parser._actions:
            if not action.option_strings:
                lines.append(f"{begin} -a '{' '.join(map(str, action.choices or ()))}'")
                continue
            value = ""
            if action.choices is not None:
                value = f" -x -a '{' '.join(map(str, action.choices))}'"
            elif action.nargs != 0:
                value = " -rF" if action.type is Path else " -x"
            lines.append(f"{begin} -l {action.option_strings[-1].removeprefix('--')}{value}")
    commands = " ".join(f"'{path}'" for path in parsers if path)
    return _FISH.format(commands=commands, lines="\n".join(lines))


def _parent(path: str) -> str:
    return " ".join(path.split()[:-1])


def _commands(
    parser: argparse.ArgumentParser, path: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command's path and parser, the program itself first."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from _commands(command, f"{path} {name}".strip())


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.option_strings:
            yield action.option_strings[-1]
        elif action.choices is not None:
            yield from map(str, action.choices)


def _values(option: argparse.Action) -> str:
    """Return what completes the value of an option: its choices, files, or nothing."""
    if option.choices is not None:
        return f'$(compgen -W "{" ".join(map(str, option.choices))}" -- "$cur")'
    return '$(compgen -f -- "$cur")' if option.type is Path else ""
