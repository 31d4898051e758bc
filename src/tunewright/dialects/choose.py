"""Which vocabulary a configuration is written in: given, or recognised by its distinctive keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """The vocabulary: the one given, the `dialect:` key, or the recognised one; ours where nothing speaks for another.

    Names of ours that the other vocabulary has no name for may be used on the command line with any file.
    """
    if given is not None:
        return Choice(get_dialect(given, where="command line"))
    keys = [one for one in in_files if one.name == "dialect"]
    if keys:
        return Choice(_from_keys(keys))
    return _recognised(list(in_files), [*in_files, *in_arguments])


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


def _recognised(in_files: list[Written], everything: list[Written]) -> Choice:
    native, factory = READABLE["native"], READABLE["llamafactory"]
    ours, theirs = native.recognise(in_files).strong, factory.recognise(everything).strong
    if ours and theirs:
        problem = Problem(
            f"{theirs[0].key}: is a name of the llamafactory vocabulary, but {ours[0].key} at {ours[0].where} is one of native",
            where=theirs[0].where, mend="keep to one vocabulary", rule="mixed-vocabularies")
        fewer = ours if len(ours) < len(theirs) else theirs
        return Choice(factory if fewer is ours else native, (problem,), foreign=frozenset(one.name for one in fewer))
    if theirs:
        return Choice(factory)
    weak = factory.recognise(in_files).weak
    if ours or not weak:
        return Choice(native)
    note = (f"{weak[0].where}: {weak[0].key}: read in the llamafactory vocabulary, with its defaults, because of this key; "
            "write `dialect: native` for ours, or `dialect: llamafactory` to be silent")
    return Choice(factory, notes=(note,))
