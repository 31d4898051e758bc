"""`tunewright explain`: one parameter in every vocabulary, or the values of a run and where they come from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tunewright.config.coerce import range_of
from tunewright.config.literals import show
from tunewright.config.param import DIALECTS, Alias
from tunewright.config.refused.table import refusers
from tunewright.config.spelling import did_you_mean, nearest
from tunewright.config.table import Row, group_types, owners, table, values
from tunewright.dialects.refusals import reason
from tunewright.errors import UsageError, refuse

USAGE = """usage: tunewright explain                          every parameter in one line
       tunewright explain NAME                     one parameter, by its name in any vocabulary
       tunewright explain CONFIG [key=value ...] [NAME]   the values of a run, and where each comes from
"""


def run(argv: list[str]) -> int:
    """Print the explanation."""
    if argv and argv[0] in ("-h", "--help"):
        text = USAGE
    elif not argv:
        text = everything()
    elif len(argv) == 1 and not _is_config(argv[0]):
        text = one(*find(argv[0]))
    else:
        text = of_run(argv)
    sys.stdout.write(text)
    return 0


def _is_config(word: str) -> bool:
    return "=" in word or word.endswith((".yaml", ".yml", ".json")) or Path(word).is_file()


def find(word: str) -> tuple[str, Row]:
    """The name without dashes and group, and the parameter it stands for; raises InputError with the nearest names."""
    name = word.lstrip("-").replace("-", "_")
    name = name.rpartition(".")[2] if name.partition(".")[0] in group_types() else name
    known = owners(name)
    if not known and name.startswith("no_"):
        known = owners(name[3:])
    if known:
        return name, known[0][1]
    refused = refusers(name)
    if refused:
        _, parameter, inert = refused[0]
        refuse(f"{name}: {parameter.meaning} A name of {', '.join(parameter.names)}; {reason(parameter)}",
               mend=parameter.mend or (f"its default {show(inert.values[0])} is accepted" if inert.values else None))
    every = [*table(), *(alias.name for row in table().values() for several in row.param.names.values() for alias in several)]
    close = nearest(name, every)
    refuse(f"{word}: no parameter has this name", mend=did_you_mean(close) or "`tunewright explain` lists them all")


def everything() -> str:
    """Every parameter by group: its name and meaning."""
    width = max(map(len, table()))
    found = []
    for group in group_types():
        found.append(f"{group}\n")
        found += [f"  {row.field:<{width}}  {row.param.meaning}\n" for row in table().values() if row.group == group]
    return "".join(found)


def one(name: str, row: Row) -> str:
    """Meaning, type, range, choices, default, and names and defaults in every vocabulary."""
    title = f"{row.field} ({row.path})" if name == row.field else f"{name}: our {row.field} ({row.path})"
    param = row.param
    facts = [("type", row.words), ("unit", param.unit), ("range", range_of(row)),
             ("choices", ", ".join(map(show, param.choices)) if param.choices else None),
             ("example", param.example), ("default", show(param.default)),
             ("on resume", None if param.recorded else "may differ from the interrupted run")]
    lines = [title, f"  {param.meaning}", *(f"  {label:<10}{value}" for label, value in facts if value is not None),
             "  names and defaults"]
    lines += [f"    {dialect:<16}{known:<33} {default}" for dialect, known, default in vocabulary(row)]
    return "\n".join(lines) + "\n"


def vocabulary(row: Row) -> list[tuple[str, str, str]]:
    """(vocabulary, names, default) for ours and each vocabulary that has the parameter."""
    found = [("native", row.field, show(row.param.default))]
    for dialect in DIALECTS:
        aliases = row.param.names.get(dialect)
        if aliases:
            names = ", ".join(alias.name + _remark(alias) for alias in aliases)
            found.append((dialect, names, show(row.default_in(dialect))))
    return found


def _remark(alias: Alias) -> str:
    """What sets one name of a parameter apart from its others."""
    return " (old)" if alias.deprecated else " (the opposite)" if alias.convert == "negate" else ""


def of_run(argv: Sequence[str]) -> str:
    """The effective values of a run with their origins; of one parameter if a name follows."""
    from tunewright.dialects.arguments import parse_arguments
    from tunewright.dialects.read import read_config

    names = [word for word in parse_arguments(argv).files if not _is_config(word)]
    if len(names) == 1:
        name, row = find(names[0])
        reading = read_config([word for word in argv if word != names[0]]).resolve()
        value = show(values(reading.config)[row.field])
        return one(name, row) + f"  in this run\n    {value}  <- {reading.origins[row.field].describe()}\n"
    if len(names) > 1:
        raise UsageError(f"explain takes one name, not {', '.join(names)}")
    reading = read_config(argv).resolve()
    found = "".join(f"note: {note}\n" for note in reading.notes) + f"vocabulary: {reading.dialect}\n"
    current = values(reading.config)
    width = max(map(len, table()))
    for group in group_types():
        found += f"{group}\n"
        for row in (row for row in table().values() if row.group == group):
            found += f"  {row.field:<{width}}  {show(current[row.field]):<24}  {reading.origins[row.field].describe()}\n"
    return found
