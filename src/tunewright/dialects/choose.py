"""Which vocabulary a configuration is written in: given, or recognised by its distinctive keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.config.table import group_types, table
from tunewright.dialects.dialect import Dialect, Written
from tunewright.dialects.known import READABLE, get_dialect
from tunewright.errors import InputError, Problem, refuse


@dataclass(frozen=True, slots=True)
class Choice:
    """The vocabulary, what is wrong with the choice, notes, and the keys of another vocabulary that were reported."""

    dialect: Dialect
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    foreign: frozenset[str] = frozenset()


def choose(in_files: Sequence[Written], in_arguments: Sequence[Written], given: str | None) -> Choice:
    """The vocabulary: the one given, the `dialect:` key, or the recognised one; ours where nothing speaks for another."""
    if given is not None:
        return Choice(get_dialect(given, where="command line"))
    keys = [one for one in in_files if one.name == "dialect"]
    if keys:
        return Choice(_from_keys(keys))
    return _recognised(in_files, in_arguments)


def _from_keys(keys: list[Written]) -> Dialect:
    names = {str(one.value): one for one in keys}
    if len(names) > 1:
        first, second = list(names.values())[:2]
        refuse(f"dialect: '{second.value}' here, but '{first.value}' at {first.where}", where=second.where,
               mend="keep to one vocabulary")
    try:
        return get_dialect(str(keys[0].value))
    except InputError as error:
        refuse(f"dialect: {error.message}", where=keys[0].where, mend=error.mend)


def _recognised(in_files: Sequence[Written], in_arguments: Sequence[Written]) -> Choice:
    """The vocabulary that has every name of the files; several are told apart by the command line, and ours wins among them.

    Our own names may follow any file on the command line.
    """
    fitting = [one for one in READABLE.values() if all(_fits(one, key) for key in in_files)]
    if not fitting:
        return _closest(in_files)
    narrowed = [one for one in fitting if all(one.knows(key.name) or key.name in table() for key in in_arguments)]
    own = [one for one in narrowed if all(one.knows(key.name) for key in in_arguments)] if not in_files else narrowed
    candidates = own or narrowed or fitting
    if candidates[0].name == "native":
        return _usual(in_files, candidates)
    if len(candidates) == 1:
        return Choice(candidates[0])
    return _ambiguous(candidates, [*in_files, *in_arguments])


def _fits(dialect: Dialect, one: Written) -> bool:
    """Whether the vocabulary has the name, where it stands."""
    if one.group is None:
        return dialect.knows(one.name)
    if dialect.name == "native":
        return one.group in group_types()
    return one.group in dialect.sections.get(one.name, ())


def _usual(in_files: Sequence[Written], candidates: Sequence[Dialect]) -> Choice:
    """Ours, or another whose files usually have a name that ours have no use for."""
    for dialect in candidates[1:]:
        usual = [one for one in in_files if one.name in dialect.usual]
        if usual:
            note = (f"{usual[0].where}: {usual[0].key}: read in the {dialect.name} vocabulary, with its defaults, because of this key; "
                    f"write `dialect: native` for ours, or `dialect: {dialect.name}` to be silent")
            return Choice(dialect, notes=(note,))
    return Choice(READABLE["native"])


def _ambiguous(candidates: Sequence[Dialect], written: Sequence[Written]) -> Choice:
    native = READABLE["native"]
    telling = next(one for one in written if not _fits(native, one))
    names = [one.name for one in candidates]
    problem = Problem(f"{telling.key}: is a name of {', '.join(names[:-1])} and {names[-1]}, whose defaults differ", where=telling.where,
                      mend=f"say which: dialect: {names[0]}", rule="ambiguous-vocabulary")
    return Choice(candidates[0], (problem,))


def _closest(in_files: Sequence[Written]) -> Choice:
    """No vocabulary has all the names: the one that has most of them; names that only another has are a mixture."""
    best = max(READABLE.values(), key=lambda dialect: sum(_fits(dialect, one) for one in in_files))
    strange = [one for one in in_files if not _fits(best, one)]
    for other in READABLE.values():
        foreign = [one for one in strange if _fits(other, one)]
        own = [one for one in in_files if _fits(best, one) and not _fits(other, one)]
        if foreign and own:
            problem = Problem(f"{foreign[0].key}: is a name of the {other.name} vocabulary, but {own[0].key} at {own[0].where} is one of "
                              f"{best.name}", where=foreign[0].where, mend="keep to one vocabulary", rule="mixed-vocabularies")
            return Choice(best, (problem,), foreign=frozenset(one.name for one in foreign))
    return _usual(in_files, [best, *(one for one in READABLE.values() if one.usual)]) if best.name == "native" else Choice(best)
