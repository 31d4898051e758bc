"""The commands of README.md, so that they can be checked and run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.repository.source import ROOT

KINDS = ("light", "model", "demo", "test", "shown")
"""What a block needs, as the comment above it says: nothing; the demo model; minutes; is the test suite itself; another environment."""

_BLOCK = re.compile(r"(?:<!-- commands: (?P<kind>\w+) -->\n)?```console\n(?P<body>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of commands; `expected` is what a command is shown to print, "" if nothing is shown."""

    kind: str | None
    commands: tuple[str, ...]
    expected: tuple[str, ...]


def blocks(file: str = "README.md") -> tuple[Block, ...]:
    """Every ```console block of a page, in order."""
    return tuple(_block(match) for match in _BLOCK.finditer((ROOT / file).read_text(encoding="utf-8")))


def _block(match: re.Match[str]) -> Block:
    commands: list[str] = []
    outputs: list[str] = []
    for line in match["body"].splitlines():
        if line.startswith("$ "):
            commands.append(line[2:])
            outputs.append("")
        elif outputs:
            outputs[-1] += line + "\n"
    return Block(match["kind"], tuple(commands), tuple(outputs))
