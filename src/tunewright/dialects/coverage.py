"""How much of the ledger is honoured, and the table of what is not: `python -m tunewright.dialects.coverage LEDGER [CONCEPTS]`.

With a ledger it prints one line per vocabulary; with the concepts too it rewrites `llamafactory_pending.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.config.param import DIALECTS
from tunewright.config.table import Row, names_in
from tunewright.dialects.known import READABLE

_BY_THE_COMMAND_LINE = ("help",)
"""Names that the command line itself honours."""

_INERT_BESIDE_DEFAULT: Mapping[str, tuple[Any, ...]] = {
    # LLaMA-Factory forces False for every stage but pre-training; rows are always read by column here.
    "remove_unused_columns": (False,),
}


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file of the specification."""
    import yaml

    # The C parser is as safe as SafeLoader and ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    return found


def parameters(ledger: Mapping[str, Any], dialect: str) -> dict[str, dict[str, Any]]:
    """The ledger's entries of a vocabulary by name."""
    entries = ledger["dialects"][dialect.replace("_", "-")]["parameters"]
    return {entry["name"]: entry for entry in entries}


def is_declared(name: str, entry: Mapping[str, Any], dialect: str) -> bool:
    """Whether a parameter of ours has this name, or the one it negates, in the vocabulary."""
    return name in _BY_THE_COMMAND_LINE or name in names_in(dialect) or entry.get("negation_of") in names_in(dialect)


def lines(ledger: Mapping[str, Any]) -> list[str]:
    """One line per vocabulary: how many of its names are honoured, or declared where it cannot be read yet."""
    found = []
    for dialect in DIALECTS:
        entries = parameters(ledger, dialect)
        declared = sum(is_declared(name, entry, dialect) for name, entry in entries.items())
        readable = dialect in READABLE
        rest = len(entries) - declared
        state = (f"honoured, {rest} refused as not built yet" if readable else
                 f"declared, {rest} not; the vocabulary itself cannot be read yet")
        found.append(f"ledger coverage: {dialect} {declared}/{len(entries)} {state}")
    return found


def pending_table(ledger: Mapping[str, Any], concepts: Mapping[str, Any], dialect: str) -> dict[str, Any]:
    """The names that are not honoured yet with their inert values and areas, and the values that are not."""
    areas = {name: concept["area"] for concept in concepts["concepts"].values() for name in concept["names"].get(dialect, [])}
    entries = parameters(ledger, dialect)
    names = {
        name: {"inert": [entry.get("default"), *_INERT_BESIDE_DEFAULT.get(name, ())], "area": areas[name]}
        for name, entry in sorted(entries.items())
        if not is_declared(name, entry, dialect) and "negation_of" not in entry}
    values = {}
    for name, (row, alias) in sorted(names_in(dialect).items()):
        unbuilt = _unbuilt_choices(row, entries.get(name, {})) if alias.convert in (None, "trackers") else []
        if unbuilt:
            values[row.field] = unbuilt
    return {"names": names, "values": values}


def _unbuilt_choices(row: Row, entry: Mapping[str, Any]) -> list[str]:
    ours = row.param.choices
    return [] if ours is None else [one for one in entry.get("choices", []) if isinstance(one, str) and one not in ours]


def pending_text(ledger: Mapping[str, Any], concepts: Mapping[str, Any], dialect: str) -> str:
    """The text of `<dialect>_pending.json`."""
    return json.dumps(pending_table(ledger, concepts, dialect), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Print the coverage; with the concepts' path too, rewrite the table of pending names."""
    ledger = load_yaml(arguments[0])
    if len(arguments) > 1:
        target = Path(__file__).with_name("llamafactory_pending.json")
        target.write_text(pending_text(ledger, load_yaml(arguments[1]), "llamafactory"), encoding="utf-8")
    print("\n".join(lines(ledger)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
