"""Bad configurations made from the ledger of the five documents: each is a good file with one thing spoilt.

Which key and which line must be told follows from how the file was spoilt; the ledger says which types, bounds, choices and names there
are, `concepts.yaml` what a name of one vocabulary is called in another.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.spec.test_ledger import coverage_concepts, parameters
from tunewright.config.param import DIALECTS, REQUIRED
from tunewright.config.refused.table import refused_in
from tunewright.config.table import Row, names_in, table

VOCABULARIES: Final = ("native", *DIALECTS)
BASES: Final[Mapping[str, Mapping[str, Any]]] = {
    "native": {"model_name_or_path": "model", "dataset": "rows.jsonl", "output_dir": "out", "max_steps": 1, "lora_rank": 4},
    "llamafactory": {"stage": "sft", "do_train": True, "model_name_or_path": "model", "dataset": "rows.jsonl", "output_dir": "out",
                     "finetuning_type": "lora", "plot_loss": True},
    "cli_reference": {"model_name_or_path": "model", "dataset": "rows.jsonl", "output_dir": "out", "finetuning_type": "lora",
                      "lora_bias": "none", "val_size": 0},
    "sft_json": {"model_name_or_path": "model", "train_file_path": ".", "train_file_name": "rows.jsonl", "output_dir": "out",
                 "train_mode": "lora", "max_seq_length": 512},
    "qlora_script": {"model_name": "model", "data_path": "rows.jsonl", "output_dir": "out", "n_epochs": 1, "lora_r": 4},
    "mindspeed_fsdp2": {"model_name_or_path": "model", "dataset": "rows.jsonl", "output_dir": "out", "lr": 1e-5, "seed": 1},
}
"""A run that is ready, in each vocabulary."""

SECTIONS: Final = {"ModelArguments": "model", "DataArguments": "data", "ParallelArguments": "parallel", "TrainingArguments": "training",
                   "Profiling": "training", "Fused operators": "model"}
"""The sections of a file in the vocabulary of document 004, by the groups of its parameters in the ledger."""

WRONG: Final[Mapping[str, Any]] = {"int": "many", "bool": "maybe", "float": "fast", "str": 7, "list[str]": {"a": 1}}
"""By the type that the ledger states, a value of another."""

OUTSIDE: Final[Mapping[str, tuple[Any, ...]]] = {
    ">0": (0, -1), ">0, in GB": (0, -2), ">0 or null": (0, -3), ">=0": (-1,), "(0,1]": (0, 1.5), "[0,1)": (-0.5, 1), "0 to 1": (-0.5, 1.5),
    "[0,1) or integer": (-1, 1.5), "an integer, or a float in 0-1": (-1, 1.5), "-1 means ignored": (-2, 0), "-1 disables": (-2,),
    "integer steps, or float in (0,1) as a share of total steps": (0, 1.5), "integer steps, float in (0,1) as a share, or null": (0, 2.5),
    "0, 1 or 2": (3, -1), "same values as log_level": ("loud",), "seconds": (-1, 0),
}
"""By the range that the ledger states, values outside."""


@dataclass(frozen=True)
class Bad:
    """One bad file: what is in it, and where the answer must point, `line` None for the whole. `says`: what stands in that answer.
    `instead`: further places (line and key) of which one may be pointed at, where a rule judges several keys."""

    name: str
    file: str
    content: bytes
    line: int | None
    key: str = ""
    says: tuple[str, ...] = ()
    instead: tuple[tuple[int, str], ...] = ()


class Plain(str):
    """A text that stands in the file without quotes."""


def bad(name: str, dialect: str, settings: Mapping[str, Any], key: str, *says: str) -> Bad:
    """The run that is ready with the settings put in, seeded by the case's name, and the answer at one of their keys."""
    chance = random.Random(name)
    items = [(each, value) for each, value in BASES[dialect].items() if each not in settings]
    for each, value in settings.items():
        items.insert(chance.randrange(len(items) + 1), (each, value))
    if dialect == "sft_json":
        text = "{\n" + ",\n".join(f'"{each}": {json.dumps(value)}' for each, value in [("dialect", dialect), *items]) + "\n}\n"
        return Bad(f"{dialect}: {name}", "c.json", text.encode(), _line(text, f'"{key}":'), key, says)
    if dialect == "mindspeed_fsdp2":
        text = _sections(items)
        line = _line(text, f"  {key}:")
        section = next(row[:-1] for row in reversed(text.splitlines()[:line]) if row.endswith(":") and not row.startswith(" "))
        return Bad(f"{dialect}: {name}", "c.yaml", text.encode(), line, f"{section}.{key}", says)
    text = f"dialect: {dialect}\n" + "".join(f"{each}: {_yaml(value)}\n" for each, value in items)
    return Bad(f"{dialect}: {name}", "c.yaml", text.encode(), _line(text, f"{key}:"), key, says)


def _line(text: str, beginning: str) -> int:
    return next(number for number, row in enumerate(text.splitlines(), start=1) if row.startswith(beginning))


def _yaml(value: Any) -> str:
    return value if isinstance(value, Plain) else json.dumps(value)


def _sections(items: list[tuple[str, Any]]) -> str:
    """A file of document 004: a name that it does not have stands in the section `training`."""
    found: dict[str, list[str]] = {}
    for key, value in items:
        group = parameters("mindspeed_fsdp2").get(key, {}).get("group", "TrainingArguments")
        found.setdefault(SECTIONS[group], []).append(f"  {key}: {_yaml(value)}\n")
    return "".join(f"{section}:\n{''.join(rows)}" for section, rows in found.items())


def ours(dialect: str, name: str) -> tuple[str, ...]:
    """What an answer must name besides the key: the canonical name, where the vocabulary has another."""
    field = names_in(dialect)[name][0].field
    return () if field == name else (f"(our {field})",)


def honoured(dialect: str, *types: str) -> list[str]:
    """The honoured names of a vocabulary whose values are of these types and are read as they stand."""
    if dialect == "native":
        bases = {"list[str]": "names"}
        return [field for field, row in table().items() if row.base in [bases.get(one, one) for one in types] and row.param.choices is None]
    known = names_in(dialect)
    return [name for name, entry in parameters(dialect).items() if name in known and known[name][1].convert is None
            and entry["type"] in types and name not in BASES[dialect]]


def some(kind: str, dialect: str, names: list[str], count: int) -> list[str]:
    """A seeded choice among names."""
    return random.Random(f"{kind} {dialect}").sample(names, min(count, len(names)))


def wrong_types(dialect: str) -> Iterator[Bad]:
    """A word for a number, a number for a text, and so on."""
    for kind, value in WRONG.items():
        names = [name for name in honoured(dialect, kind) if kind != "str" or names_in(dialect)[name][0].param.choices is None]
        for name in some(kind, dialect, names, 3):
            yield bad(f"{kind} {name}", dialect, {name: value}, name, "is not ", *ours(dialect, name))


def wrong_forms(dialect: str) -> Iterator[Bad]:
    """Nothing, a list, or something that only looks like a number where one number is wanted; words that only look like a truth."""
    numbers = [name for name in honoured(dialect, "int", "float") if not names_in(dialect)[name][0].nullable]
    forms: list[tuple[str, Any]] = [("empty", Plain("")), ("list", [4, 5]), ("mapping", {"a": 4}), ("unit", "8 rows"), ("comma", "0,001"),
                                    ("base", Plain("1:30")), ("zero", "010"), ("nan", "nan")]
    for (kind, value), name in zip(forms, some("form", dialect, numbers, len(forms)), strict=False):
        shown = None if value == "" and dialect == "sft_json" else value
        yield bad(f"{kind} {name}", dialect, {name: shown}, name, *ours(dialect, name))
    truths = [name for name in honoured(dialect, "bool") if not names_in(dialect)[name][0].nullable]
    for word, name in zip(("yes", "on", 1), some("truth", dialect, truths, 3), strict=False):
        yield bad(f"truth {word} {name}", dialect, {name: word}, name, "is not true or false", *ours(dialect, name))


def out_of_range(dialect: str) -> Iterator[Bad]:
    """Each bound that the ledger states, or in our own vocabulary the declaration."""
    if dialect == "native":
        for field, row in table().items():
            yield from (bad(f"range {field} {value}", dialect, {field: value}, field, "write") for value in _beyond(row))
        return
    for name, entry in parameters(dialect).items():
        if name in names_in(dialect):
            for value in OUTSIDE.get(entry.get("range", ""), ()):
                yield bad(f"range {name} {value}", dialect, {name: value}, name, *ours(dialect, name))


def _beyond(row: Row) -> list[float]:
    param = row.param
    found = [param.above, param.below, None if param.minimum is None else param.minimum - 1,
             None if param.maximum is None else param.maximum * 2 + 1]
    return [one for one in found if one is not None]


def bad_choices(dialect: str) -> Iterator[Bad]:
    """A misspelt value of each closed list, and each listed value that is refused."""
    if dialect == "native":
        for field, row in table().items():
            if row.param.choices and all(isinstance(one, str) for one in row.param.choices) and row.param.default is not REQUIRED:
                yield bad(f"choice {field}", dialect, {field: "zzzz"}, field, "'zzzz' is not one of", row.param.choices[0])
        return
    for name, entry in parameters(dialect).items():
        choices = [one for one in entry.get("choices") or () if isinstance(one, str)]
        if name in names_in(dialect) and choices and not entry.get("choices_open"):
            yield bad(f"choice {name}", dialect, {name: "zzzz"}, name, "'zzzz' is not one of", *ours(dialect, name))
            refused = names_in(dialect)[name][0].param.refused_values
            for value in choices:
                if value in refused:
                    yield bad(f"refused {name} {value}", dialect, {name: value}, name, f"'{value}' is", refused[value])


def unknown_names(dialect: str) -> Iterator[Bad]:
    """Names without a letter from their middle."""
    known = [*names_in(dialect), *refused_in(dialect)]
    for name in some("unknown", dialect, [one for one in known if len(one) > 8 and "token" not in one], 5):
        typo = name[:len(name) // 2] + name[len(name) // 2 + 1:]
        yield bad(f"unknown {typo}", dialect, {typo: 1}, typo, "unknown key; did you mean", name)


def refused_names(dialect: str) -> Iterator[Bad]:
    """Names that are known and not honoured, at a value that nobody has for a default."""
    names = [name for name in refused_in(dialect) if dialect == "native" or (name in parameters(dialect) and "token" not in name)]
    for name in some("refused", dialect, [one for one in names if not one.startswith("no_")], 5):
        because = refused_in(dialect)[name][0].because
        yield bad(f"refused {name}", dialect, {name: "something else"}, name, because if "secret" not in because else "")


def foreign_names(dialect: str) -> Iterator[Bad]:
    """Names that only another vocabulary has, for what this one has under a name of its own."""
    found = []
    for facts in coverage_concepts().values():
        mine = facts["names"].get(dialect.replace("_", "-"), ())
        theirs = {name for other, names in facts["names"].items() if other != dialect.replace("_", "-") for name in names} - set(mine)
        if mine and mine[0] in names_in(dialect):
            found += [(name, mine[0]) for name in sorted(theirs) if not name.startswith("no_") and name not in table()
                      and name not in names_in(dialect) and _is_honoured(name)]
    for name, wanted in random.Random(f"foreign {dialect}").sample(found, min(5, len(found))):
        yield bad(f"foreign {name}", dialect, {name: 1}, name, "is a name of the", f"write {wanted}")


def _is_honoured(name: str) -> bool:
    return not any(name in refused_in(dialect) for dialect in DIALECTS) and any(name in names_in(dialect) for dialect in DIALECTS)
