"""`tunewright data`: work on data sets without training. A table of its own verbs; standard library only."""

from __future__ import annotations

import sys
from typing import Final

from tunewright.errors import UsageError
from tunewright.registry import Entry, Registry

DATA_VERBS: Final = Registry("data command", (
    Entry("check", "tunewright.commands.data_check:run", "Read data sets and report everything that looks wrong with their rows."),
    Entry("megatron", "tunewright.commands.data_megatron:run", "Tokenise documents into Megatron's .bin and .idx files."),
))


def run(argv: list[str]) -> int:
    """Run one of the verbs on the words behind it. Returns its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0 if argv else UsageError.exit_code
    code: int = DATA_VERBS.load(argv[0])(argv[1:])
    return code


def usage() -> str:
    """The help page: every verb with what it does."""
    width = max(len(name) for name in DATA_VERBS.names())
    verbs = "\n".join(f"  {entry.name:<{width}}  {entry.summary}" for entry in DATA_VERBS)
    return f"usage: tunewright data VERB ...\n\n{verbs}\n\n`tunewright data VERB --help` says more.\n"
