"""`tunewright coverage`: what becomes of every name of every vocabulary."""

from __future__ import annotations

import json
import sys

from tunewright.errors import UsageError

USAGE = """usage: tunewright coverage [--json]

Count the names of each vocabulary by status: honoured, an alias of another name, honoured only on some hardware, refused for a reason,
not built yet. --json lists every name: {vocabulary: {name: {status, concept, effect, detail, today}}}; `effect` is the test that shows
what changing the parameter changes. docs/coverage.md is the same as a page.
"""


def run(argv: list[str]) -> int:
    """Print the summary or the JSON."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if argv not in ([], ["--json"]):
        raise UsageError(f"coverage takes nothing but --json, not {' '.join(argv)}")
    from tunewright.dialects.coverage import as_json, summary

    sys.stdout.write(json.dumps(as_json(), indent=1, ensure_ascii=False) + "\n" if argv else summary())
    return 0
