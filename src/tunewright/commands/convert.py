"""`tunewright convert`: a configuration in another vocabulary, with a report of what changed."""

from __future__ import annotations

import sys
from pathlib import Path

from tunewright.errors import UsageError, refuse

USAGE = """usage: tunewright convert FILE [key=value ...] --to native|llamafactory [-o OUT.yaml|OUT.json]

Write the same run in another vocabulary: every setting under its name there, and every default that differs there made
explicit. The report on stderr has one line for each parameter: exact, renamed, value mapped, default made explicit, or no
equivalent. Without -o the configuration goes to standard output.
"""


def run(argv: list[str]) -> int:
    """Convert, report on stderr, and return 0."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    from tunewright.dialects.read import read_config
    from tunewright.dialects.translate import to_text, translate

    rest = list(argv)
    target = _option(rest, "--to")
    output = _option(rest, "-o") or _option(rest, "--output")
    if target is None:
        raise UsageError("convert needs a target", mend="add --to native or --to llamafactory")
    if output is not None and Path(output).exists():
        refuse("exists already, and convert overwrites nothing", where=output, mend="name another file")
    translation = translate(read_config(rest), target)
    text = to_text(translation, suffix=Path(output).suffix if output else ".yaml")
    sys.stderr.write("".join(f"{line.text()}\n" for line in translation.report))
    if output is None:
        sys.stdout.write(text)
    else:
        Path(output).write_text(text, encoding="utf-8")
    return 0


def _option(words: list[str], name: str) -> str | None:
    """Take `name VALUE` or `name=VALUE` out of the words."""
    for position, word in enumerate(words):
        if word == name:
            if position + 1 >= len(words):
                raise UsageError(f"{name}: a value is missing", mend=f"write {name} VALUE")
            del words[position]
            return words.pop(position)
        if word.startswith(f"{name}="):
            return words.pop(position).partition("=")[2]
    return None
