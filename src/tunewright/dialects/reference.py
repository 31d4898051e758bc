"""Documents generated from the declarations: the JSON Schema and docs/parameters.md. `python -m tunewright.dialects.reference DIR`."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunewright.config.coerce import range_of
from tunewright.config.literals import show
from tunewright.config.param import DIALECTS
from tunewright.config.table import Row, group_types, names_in, table
from tunewright.dialects.known import READABLE

_TYPES: Mapping[str, list[str]] = {
    "bool": ["boolean"], "int": ["integer"], "float": ["number"], "str": ["string"], "mapping": ["object", "string"],
}
_ITEMS: Mapping[str, Any] = {"names": "string", "numbers": "number", "datasets": ["string", "object"]}
"""What a list of each kind holds."""


def json_schema(dialect: str = "native") -> dict[str, Any]:
    """The JSON Schema (2020-12) of configuration files in a vocabulary, for editors."""
    properties: dict[str, Any] = {"dialect": {"enum": list(READABLE), "description": "The vocabulary of this file."}}
    for name, (row, alias) in names_in(dialect).items():
        is_plain = alias.convert in (None, "comma_list", "mapping", "trackers", "null_is_auto", "null_is_false", "resume_path")
        properties[name] = _property(row, row.default_in(dialect)) if is_plain else {"description": row.param.meaning}
    if dialect == "native":
        for group in group_types():
            fields = {row.field: _property(row, row.param.default) for row in table().values() if row.group == group}
            nested = {"type": "object", "properties": fields, "additionalProperties": False}
            properties[group] = {"anyOf": [properties[group], nested]} if group in properties else nested
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"tunewright configuration ({dialect} vocabulary)",
        "type": "object", "properties": properties, "additionalProperties": dialect != "native",
    }


def _property(row: Row, default: Any) -> dict[str, Any]:
    param = row.param
    facts: dict[str, Any] = {"description": param.meaning + (f" Unit: {param.unit}." if param.unit else "")}
    if row.base in _ITEMS:
        item: dict[str, Any] = {"type": _ITEMS[row.base]}
        if param.choices:
            item["enum"] = list(param.choices)
        alone = "string" if row.base == "names" else [*_ITEMS["datasets"], *(["number"] if row.base == "numbers" else [])]
        facts["anyOf"] = [{"type": "array", "items": item}, {"type": alone}, {"type": "null"}]
        facts["default"] = list(default)
        return facts
    facts["type"] = _TYPES[row.base] + (["null"] if row.nullable or row.field in ("disable_tqdm", "template") else [])
    if param.choices:
        facts["enum"] = [*param.choices, *([None] if row.nullable else [])]
        del facts["type"]
    if row.field == "gradient_checkpointing":  # `auto` stands for a parameter of its own
        facts["enum"] = [True, False, "auto"]
        del facts["type"]
    bounds = {"minimum": param.minimum, "maximum": param.maximum, "exclusiveMinimum": param.above, "exclusiveMaximum": param.below}
    facts |= {key: bound for key, bound in bounds.items() if bound is not None}
    return facts | {"default": default}


def schema_text(dialect: str = "native") -> str:
    """The text of docs/schema.json."""
    return json.dumps(json_schema(dialect), indent=2, ensure_ascii=False) + "\n"


def parameters_text() -> str:
    """The text of docs/parameters.md."""
    parts = ["# Parameters\n\nGenerated from the declarations in `src/tunewright/config`; do not edit. "
             "`tunewright explain NAME` says the same of one parameter,\nand `tunewright explain CONFIG` what a run uses and why. "
             "Where a vocabulary's cell is empty it has no such parameter.\n"]
    for group, kind in group_types().items():
        parts.append(f"\n## {group}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n")
        parts += [_section(row) for row in table().values() if row.group == group]
    return "".join(parts)


def _section(row: Row) -> str:
    param = row.param
    facts = [row.words, range_of(row), param.unit, None if not param.choices else
             "one of " + ", ".join(f"`{show(choice)}`" for choice in param.choices), f"default `{show(param.default)}`"]
    example = f" Example: `{param.example}`." if param.example else ""
    chinese = f"\n\n{meanings_zh()[row.field]}" if row.field in meanings_zh() else ""
    text = f"\n### {row.field}\n\n{param.meaning}{example}{chinese}\n\n{'; '.join(fact for fact in facts if fact)}.\n"
    rows = [f"| {dialect} | {', '.join(f'`{alias.name}`' for alias in param.names[dialect])} | `{show(row.default_in(dialect))}` |"
            for dialect in DIALECTS if dialect in param.names]
    return text + ("\n| vocabulary | names | default |\n|---|---|---|\n" + "\n".join(rows) + "\n" if rows else "")


@cache
def meanings_zh() -> Mapping[str, str]:
    """What each parameter means, in Chinese."""
    found: dict[str, str] = json.loads(files("tunewright.config").joinpath("meanings_zh.json").read_text(encoding="utf-8"))
    return found


def main(arguments: list[str]) -> int:
    """Write schema.json and parameters.md into a directory."""
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "schema.json").write_text(schema_text(), encoding="utf-8")
    (directory / "parameters.md").write_text(parameters_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
