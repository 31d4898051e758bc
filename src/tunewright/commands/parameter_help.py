"""The help of commands that take a configuration: every parameter, grouped, from the declarations."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Collection

from tunewright.config.coerce import range_of
from tunewright.config.literals import show
from tunewright.config.table import Row, group_types, table


def print_help(verb: str, summary: str, *, options: str = "", groups: Collection[str] | None = None) -> None:
    """Print usage, the command's own `options`, and the parameters of `groups` (all by default)."""
    print(f"usage: tunewright {verb} [CONFIG.yaml|CONFIG.json] [key=value ...] [--key value ...]\n\n{summary}\n")
    if options:
        print(f"options:\n{options}\n")
    print("--dialect native|llamafactory names the vocabulary where it cannot be recognised. `tunewright explain NAME` says more.")
    for group, kind in group_types().items():
        if groups is None or group in groups:
            print(f"\n{group}: {inspect.cleandoc(kind.__doc__ or '')}")
            print("\n".join(_lines(row) for row in table().values() if row.group == group))


def _lines(row: Row) -> str:
    facts = [row.words if row.param.choices is None else "one of " + ", ".join(show(one) for one in row.param.choices)]
    bounds = range_of(row)
    facts += [bounds] if bounds else []
    facts += [row.param.unit] if row.param.unit else []
    meaning = f"{row.param.meaning} [{'; '.join(facts)}; default {show(row.param.default)}]"
    return f"  --{row.field}\n" + textwrap.fill(meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
