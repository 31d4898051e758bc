"""`tunewright completion`: a script that teaches a shell our commands, parameters and their choices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from tunewright.commands.data import DATA_VERBS
from tunewright.commands.verbs import COMMANDS
from tunewright.config.literals import show
from tunewright.config.table import Row, table
from tunewright.errors import UsageError, refuse
from tunewright.registry import Registry

USAGE = """usage: tunewright completion bash|zsh|fish

Print a completion script: commands, files, every parameter with its meaning and its choices. To use it:
  bash   tunewright completion bash > ~/.local/share/bash-completion/completions/tunewright
  zsh    tunewright completion zsh > "${fpath[1]}/_tunewright"
  fish   tunewright completion fish > ~/.config/fish/completions/tunewright.fish
"""

_PROGRAMS = ("tunewright", "tw")
_NESTED: Final[Mapping[str, Registry]] = {"data": DATA_VERBS}
"""Commands that have verbs of their own."""


def run(argv: list[str]) -> int:
    """Print the script of one shell."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    if len(argv) > 1:
        raise UsageError(f"completion takes one shell, not {' '.join(argv)}")
    if argv[0] not in SHELLS:
        refuse(f"'{argv[0]}' is not a shell that is known", mend=f"choose one of {', '.join(SHELLS)}")
    sys.stdout.write(SHELLS[argv[0]]())
    return 0


def values_of(row: Row) -> tuple[str, ...]:
    """The values that can be offered for a parameter: its choices, or true and false."""
    if row.param.choices:
        return tuple(show(choice) for choice in row.param.choices)
    return ("true", "false") if row.base == "bool" else ()


def _commands() -> Mapping[str, str]:
    return {entry.name: entry.summary for entry in COMMANDS}


def bash() -> str:
    """Completes commands, `--name`, `name=` and values after either; anything else is a file."""
    cases = "".join(f"    {field}) words='{' '.join(values_of(row))}' ;;\n" for field, row in table().items() if values_of(row))
    nested = "".join(f"    {name}) verbs='{' '.join(verbs.names())}' ;;\n" for name, verbs in _NESTED.items())
    return f"""# Completion of tunewright for bash; made by `tunewright completion bash`.
_tunewright_values() {{
  local words=
  case "$1" in
{cases}  esac
  printf '%s' "$words"
}}
_tunewright() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{' '.join(_commands())}' -- "$word")); return
  fi
  local verbs=
  case "${{COMP_WORDS[1]}}" in
{nested}  esac
  if [ "$COMP_CWORD" -eq 2 ] && [ -n "$verbs" ]; then COMPREPLY=($(compgen -W "$verbs" -- "$word")); return; fi
  if [ "$word" = '=' ]; then word=; elif [ "$before" = '=' ]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  local values=$(_tunewright_values "${{before#--}}")
  if [ -n "$values" ]; then COMPREPLY=($(compgen -W "$values" -- "$word")); return; fi
  case "$word" in
    --*) COMPREPLY=($(compgen -P -- -W '{' '.join(table())}' -- "${{word#--}}")) ;;
    *) COMPREPLY=($(compgen -f -- "$word") $(compgen -S = -W '{' '.join(table())}' -- "$word")) ;;
  esac
}}
complete -o nospace -o filenames -F _tunewright {' '.join(_PROGRAMS)}
"""


def zsh() -> str:
    """The same with meanings beside the names."""
    commands = "\n".join(f"    {_quoted(f'{name}:{summary}')}" for name, summary in _commands().items())
    options = "\n".join(f"    {_quoted(_zsh_option(field, row))}" for field, row in table().items())
    nested = "".join(f"      {name}) verbs=({' '.join(_quoted(f'{one.name}:{one.summary}') for one in verbs)}) ;;\n"
                     for name, verbs in _NESTED.items())
    return f"""#compdef {' '.join(_PROGRAMS)}
# Completion of tunewright for zsh; made by `tunewright completion zsh`.
_tunewright() {{
  local -a commands options
  commands=(
{commands}
  )
  options=(
{options}
  )
  local -a verbs
  if (( CURRENT == 3 )); then
    case "$words[2]" in
{nested}    esac
  fi
  if (( $#verbs )); then _describe verb verbs
  elif (( CURRENT == 2 )); then _describe command commands; else _arguments $options '*:file:_files'; fi
}}
_tunewright "$@"
"""


def _zsh_option(field: str, row: Row) -> str:
    meaning = row.param.meaning.replace("[", "(").replace("]", ")").replace(":", ";")
    values = values_of(row)
    return f"--{field}[{meaning}]:{field}:" + (f"({' '.join(values)})" if values else "_files" if row.base == "str" else " ")


def fish() -> str:
    """The same in fish's own words."""
    lines = ["# Completion of tunewright for fish; made by `tunewright completion fish`."]
    for program in _PROGRAMS:
        lines += [f"complete -c {program} -n __fish_use_subcommand -f -a {name} -d {_quoted(summary)}"
                  for name, summary in _commands().items()]
        for name, verbs in _NESTED.items():
            lines += [f"complete -c {program} -n '__fish_seen_subcommand_from {name}; and test (count (commandline -opc)) -eq 2' -f "
                      f"-a {one.name} -d {_quoted(one.summary)}" for one in verbs]
        lines += [f"complete -c {program} -n 'not __fish_use_subcommand' -l {field} -r -d {_quoted(row.param.meaning)}"
                  + (f" -f -a {_quoted(' '.join(values_of(row)))}" if values_of(row) else "") for field, row in table().items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """In single quotes, for any of the shells."""
    return "'" + text.replace("'", "'\\''") + "'"


SHELLS: Final[Mapping[str, Callable[[], str]]] = {"bash": bash, "zsh": zsh, "fish": fish}
