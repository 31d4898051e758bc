"""A run -> the settings of a vocabulary, with a report for every key: what changed its name or form, and what has no equivalent.

What the settings mean there is not guessed but read: the vocabulary reads them back, and what it reads is compared with the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final

from tunewright.config.derive import derived
from tunewright.config.literals import show, split_commas
from tunewright.config.rules.unread import UNREAD
from tunewright.config.run import RunConfig
from tunewright.config.table import Row, build, defaults, table, values
from tunewright.dialects.converters import CONVERTERS
from tunewright.dialects.dialect import Dialect, Written
from tunewright.dialects.interpret import find_name, interpret
from tunewright.dialects.known import get_dialect
from tunewright.dialects.loss import does_not_matter, lost, misread
from tunewright.dialects.read import Reading
from tunewright.dialects.refusals import TOKEN_VARIABLES, looks_secret
from tunewright.dialects.report import Line, Translation


def translate(reading: Reading, target: str, written: Sequence[Written] = ()) -> Translation:
    """The settings that make `target` mean the same run: what was written, and every default that differs there.

    `written`: what the reading was made from, so that the report has a line for every key and knows the values in their own form.
    """
    goal = _goal(reading, get_dialect(target), {(one.where, one.key): one.value for one in written})
    stated = _settled(goal)
    there = stated.there()
    report: list[Line] = []
    settings: dict[str, Any] = {}
    for name in table():
        line = _line(goal, stated, there, name)
        if line is not None:
            report.append(line)
        if name in stated.said:
            settings[goal.keys[name]] = stated.said[name]
    return Translation(target, settings, (*report, *_left_out(reading, written)))


@dataclass(frozen=True, slots=True)
class _Goal:
    """What is to be said, and how it can be: `keys` are the names in the target of what may be written down there. `wanted` are the
    values of the run, and `filled` those with open ones filled in; `raw` those in the form of the file."""

    reading: Reading
    dialect: Dialect
    keys: Mapping[str, str]
    wanted: Mapping[str, Any]
    filled: Mapping[str, Any]
    given: Set[str]
    unread: Mapping[str, str]
    raw: Mapping[tuple[str | None, str | None], Any]

    def form(self, name: str) -> Any:
        """The run's value in the form of the target."""
        return form_in(table()[name], self.wanted[name], self.dialect)

    def agrees(self, there: _There, name: str) -> bool:
        """Whether the target means the same, as it stands or after open values are filled in."""
        return bool(self.wanted[name] == there.values[name] or self.filled[name] == there.filled[name]
                    or (name in _ONE_MEANING and {self.filled[name], there.filled[name]} == _ONE_MEANING[name]))

    def differs(self, there: _There, name: str) -> bool:
        """Whether a default is to be stated: in our vocabulary, what is open stays open."""
        is_same = self.wanted[name] == there.values[name] if self.dialect.name == "native" else self.agrees(there, name)
        return not is_same


def _goal(reading: Reading, dialect: Dialect, raw: Mapping[tuple[str | None, str | None], Any]) -> _Goal:
    keys = {name: key for name, row in table().items() if (key := key_in(row, dialect)) is not None}
    return _Goal(reading, dialect, keys, values(reading.config), values(derived(reading.config)[0]), reading.given,
                 unread_in(reading.config), raw)


@dataclass(frozen=True, slots=True)
class _There:
    """What the target reads: the values, those with open ones filled in, and the fields whose stated value it does not accept."""

    values: Mapping[str, Any]
    filled: Mapping[str, Any]
    bad: Set[str]


@dataclass(frozen=True, slots=True)
class _Stated:
    """What is stated in the target: field -> value in its form. `chosen`: values that are said otherwise than the run has them;
    `barred`: fields that are better left out."""

    goal: _Goal
    said: Mapping[str, Any]
    chosen: Mapping[str, Any]
    barred: Set[str]

    def there(self) -> _There:
        """What the target reads from it."""
        config, bad = meaning(self.goal.dialect, {self.goal.keys[name]: value for name, value in self.said.items()})
        return _There(values(config), values(derived(config)[0]), bad)

    def harm(self) -> int:
        """The number of fields that the run reads and that the target means differently."""
        there = self.there()
        return sum(name not in self.goal.unread and not self.goal.agrees(there, name) for name in table())

    def alternatives(self) -> Iterable[_Stated]:
        """What may be said otherwise: what the run never reads, left out or at our default; the value that fills in an open one; and
        what the target says together."""
        goal = self.goal
        for name in (*self.said, *self.barred):
            row, is_open = table()[name], goal.wanted[name] is None and goal.filled[name] is not None
            if name in goal.unread:
                yield _stated(goal, self.chosen, self.barred | {name})
                yield _stated(goal, {**self.chosen, name: form_in(row, row.param.default, goal.dialect)}, self.barred - {name})
            elif is_open:
                yield _stated(goal, {**self.chosen, name: form_in(row, goal.filled[name], goal.dialect)}, self.barred - {name})
        for dialect, when, said in _TOGETHER:
            if dialect == goal.dialect.name and all(goal.wanted.get(name) == value for name, value in when.items()):
                yield _stated(goal, {**self.chosen, **said}, self.barred)


def _stated(goal: _Goal, chosen: Mapping[str, Any], barred: Set[str]) -> _Stated:
    """What was written and what is chosen, and every default that differs, until stating one changes no other; what the target does
    not accept left out."""
    given = {**{name: goal.form(name) for name in goal.keys if name in goal.given}, **chosen}
    found = _Stated(goal, {name: value for name, value in given.items() if name not in barred}, chosen, barred)
    while True:
        there = found.there()
        out = found.barred | there.bad
        said = {name: value for name, value in found.said.items() if name not in out}
        said.update({name: goal.form(name) for name in goal.keys if name not in said and name not in out and goal.differs(there, name)})
        if said.keys() == found.said.keys():
            return found
        found = replace(found, said=said, barred=out)


def _settled(goal: _Goal) -> _Stated:
    """What is said plainly, and then whatever else makes the target read less differently."""
    best = _stated(goal, {}, frozenset())
    harm = best.harm()
    is_better = harm > 0
    while is_better:
        is_better = False
        for found in best.alternatives():
            if (less := found.harm()) < harm:
                best, harm, is_better = found, less, less > 0
                break
    return best


_TOGETHER: Final[tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...]] = (
    ("sft_json", {"finetuning_type": "lora", "quantization_bit": 4}, {"finetuning_type": "qlora"}),
)
"""A vocabulary, values of ours, and the value of one of its names that says them together."""


_ONE_MEANING: Final[Mapping[str, Set[Any]]] = {"min_lr": {None, 0.0}}
"""Two values of a parameter that mean one thing."""


def meaning(dialect: Dialect, settings: Mapping[str, Any]) -> tuple[RunConfig, Set[str]]:
    """The run that settings of a vocabulary mean, and the fields whose value it does not accept."""
    written = {key: Written(key, key, value, "converted", "file", next(iter(dialect.sections.get(key, ())), None))
               for key, value in settings.items()}
    found = interpret(dialect.restructure(written).values.values(), dialect)
    adjusted = {name: one.value for name, one in dialect.adjust(found.values).items()}
    return build({**defaults(dialect.name), **adjusted, **found.values}), found.bad


def key_in(row: Row, dialect: Dialect) -> str | None:
    """The preferred name of a parameter in a vocabulary; None where it has none, and for secrets, which are never written."""
    if row.param.secret:
        return None
    if dialect.name == "native":
        return row.field
    aliases = row.param.names.get(dialect.name)
    return aliases[0].name if aliases else None


def form_in(row: Row, value: Any, dialect: Dialect) -> Any:
    """Our value in the form of a vocabulary."""
    converter = None if dialect.name == "native" else row.param.names[dialect.name][0].convert
    return plain(CONVERTERS[converter].theirs(value) if converter else value)


def unread_in(config: RunConfig) -> dict[str, str]:
    """The fields that this run never reads, with the reason."""
    return {name: entry.why for entry in reversed(UNREAD) if entry.when(config) for name in entry.fields}


def _line(goal: _Goal, stated: _Stated, there: _There, name: str) -> Line | None:
    """The report on one field; None where there is nothing to say."""
    row, key, is_given = table()[name], goal.keys.get(name), name in goal.given
    value, unread, said = goal.filled[name], goal.unread.get(name), _as_written(goal, name)
    if goal.agrees(there, name):
        if name in stated.said and key is not None:
            return _said(goal, row, key, stated.said[name])
        return Line(name, "exact", None, f"{said} {show(value)}: so in {goal.dialect.name} too, without being said") if is_given else None
    if unread is not None:
        instead = f"{key} {show(stated.said[name])}" if name in stated.said else None
        return Line(name, "no equivalent", None, does_not_matter(said, value, unread, instead)) if is_given or instead else None
    sentence = lost if key is None else misread
    detail = sentence(said, row, value, there.filled[name], goal.dialect.name)
    return Line(name, "no equivalent", None, detail + _mend(goal, row, there.filled[name]), is_lost=True)


def _mend(goal: _Goal, row: Row, there: Any) -> str:
    """What to write so that a default that nobody wrote is the target's; nothing where it was written, or cannot be."""
    ours = key_in(row, get_dialect(goal.reading.dialect))
    is_sayable = row.field not in goal.given and row.field not in goal.keys and there is not None
    return f"; to have that here too, write {ours}: {show(there)}" if is_sayable and ours is not None else ""


def _as_written(goal: _Goal, name: str) -> str:
    key = _key(goal, name)
    return key if key == name else f"{key} (our {name})"


def _key(goal: _Goal, name: str) -> str:
    """The key as it was written, without dashes and section."""
    origin = goal.reading.origins[name]
    return (origin.key or name).lstrip("-").replace("-", "_").rpartition(".")[2] if origin.is_given else name


def _said(goal: _Goal, row: Row, key: str, theirs: Any) -> Line:
    origin, written = goal.reading.origins[row.field], _key(goal, row.field)
    if not origin.is_given:
        return Line(row.field, "default made explicit", key, f"{key} {show(theirs)}")
    before = goal.raw.get((origin.where, origin.key), plain(goal.wanted[row.field]))
    if not _same(before, theirs):
        # What a list or mapping of another program holds is not shown: it may be a secret.
        shown = "" if isinstance(before, list | tuple | Mapping) and before else f" {show(before)}"
        return Line(row.field, "value mapped", key, f"{written}{shown} -> {key} {show(theirs)}")
    if written != key:
        return Line(row.field, "renamed", key, f"{written} -> {key}")
    return Line(row.field, "exact", key, key)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one value in two spellings: 1e-4 and 0.0001, `a,b` and [a, b], null and nothing."""
    if _empty(one) and _empty(other):
        return True
    if isinstance(one, bool) or isinstance(other, bool):
        return show(one).lower() == show(other).lower()
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return bool(_parts(one) == _parts(other))


def _empty(value: Any) -> bool:
    return value in (None, "", [], (), {}) and not isinstance(value, bool | int | float)


def _parts(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(show(plain(one)) for one in value)
    return split_commas(value) if isinstance(value, str) else (show(value),)


def _left_out(reading: Reading, written: Sequence[Written]) -> list[Line]:
    """A line for each key that was written, says what is done without it, and therefore is no value of the run."""
    source = get_dialect(reading.dialect)
    found = []
    for one in {one.name: one for one in written if one.name != "dialect" and one.source in ("file", "command line")}.values():
        target = find_name(one, source)
        if target is not None and target[0].field in reading.given:
            continue
        is_secret = one.name in TOKEN_VARIABLES or looks_secret(one.name)
        value = "" if is_secret else f" {show(one.value)}"
        found.append(Line(one.name, "no equivalent", None, f"{one.key}{value}: changes nothing in the run, and is left out"))
    return found


def plain(value: Any) -> Any:
    """A value as YAML and JSON have it; whole numbers without a fraction."""
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
