"""`tunewright schema`: the JSON Schema of configuration files."""

from __future__ import annotations

import sys

from tunewright.errors import UsageError

USAGE = "usage: tunewright schema [native|llamafactory]\n\nPrint the JSON Schema of configuration files, for editors.\n"


def run(argv: list[str]) -> int:
    """Print the schema of a vocabulary, ours by default."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if len(argv) > 1:
        raise UsageError(f"schema takes one vocabulary, not {' '.join(argv)}")
    from tunewright.dialects.known import get_dialect
    from tunewright.dialects.reference import schema_text

    sys.stdout.write(schema_text(get_dialect(argv[0]).name if argv else "native"))
    return 0
