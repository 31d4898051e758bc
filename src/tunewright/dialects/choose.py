"""Which vocabulary a configuration is written in: given, or recognised by its distinctive keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Final

from tunewright.config.refused.table import refused_in
from tunewright.config.table import nearest, table
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
    """The vocabulary that has every name of the files, or of the command line where there are none.

    Several are told apart by the command line, and ours wins among them. Our own names may follow any file on the command line.
    """
    evidence = in_files or in_arguments
    fitting = [one for one in READABLE.values() if all(_fits(one, key) for key in evidence)]
    fitting = fitting or [one for one in READABLE.values() if all(_accepts(one, key) for key in evidence)]
    if not fitting:
        return _closest(evidence)
    narrowed = [one for one in fitting if all(_accepts(one, key) for key in in_arguments)]
    candidates = narrowed or fitting
    if candidates[0].name == "native":
        return _usual(evidence, candidates)
    if len(candidates) == 1:
        return Choice(candidates[0])
    return _ambiguous(candidates, [*in_files, *in_arguments])


def _fits(dialect: Dialect, one: Written) -> bool:
    """Whether the vocabulary has the name, where it stands."""
    if one.group is None:
        return dialect.knows(one.name)
    positive = one.name.removeprefix("no_")
    if dialect.name == "native":
        row = table().get(one.name) or table().get(positive)
        return row is not None and row.group == one.group
    return one.group in dialect.sections.get(one.name, dialect.sections.get(positive, ()))


def _accepts(dialect: Dialect, one: Written) -> bool:
    """Whether the vocabulary has the name, or it is ours, on the command line, for what the vocabulary has no name for."""
    row = table().get(one.name)
    is_own = one.source == "command line" and row is not None and dialect.name not in row.param.names
    return is_own or _fits(dialect, one)


def _usual(evidence: Sequence[Written], candidates: Sequence[Dialect]) -> Choice:
    """Ours, or another whose files, or options, usually have a name that ours have no use for."""
    names = {one.name for one in evidence}
    for dialect in candidates[1:]:
        speaking = {*dialect.usual, *(name for name, missing in dialect.usual_without.items() if missing not in names)}
        usual = [one for one in evidence if one.name in speaking and (one.source == "file" or one.key.startswith("--"))]
        if usual:
            note = (f"{usual[0].where}: {usual[0].key}: read in the {dialect.name} vocabulary, with its defaults, because of this key; "
                    f"{_how_to_say(usual[0])}")
            return Choice(dialect, notes=(note,))
    return Choice(READABLE["native"])


def _how_to_say(one: Written) -> str:
    if one.source == "file":
        return "write `dialect: native` for ours, or `dialect: llamafactory` to be silent"
    return "write --dialect native for ours, or --dialect llamafactory to be silent"


def _ambiguous(candidates: Sequence[Dialect], written: Sequence[Written]) -> Choice:
    telling = next(one for one in written if not _fits(READABLE["native"], one))
    names = [one.name for one in candidates]
    where = f"dialect: {names[0]}" if telling.source == "file" else f"--dialect {names[0]}"
    problem = Problem(f"{telling.key}: is a name of {', '.join(names[:-1])} and {names[-1]}, whose defaults differ", where=telling.where,
                      mend=f"say which: {where}", rule="ambiguous-vocabulary")
    return Choice(candidates[0], (problem,))


def _closest(evidence: Sequence[Written]) -> Choice:
    """No vocabulary has all the names: the one that has most of them, a likely typo counting almost as much as a name; names that only
    another has are a mixture."""
    scores = _scores(evidence)
    best = [one for one in READABLE.values() if scores[one.name] == max(scores.values())]
    telling = [one for one in evidence if _fits(best[0], one) and not _fits(READABLE["native"], one)]
    if best[0].name == "native" or (len(best) > 1 and not telling):
        chosen = _usual(evidence, best)
    else:
        chosen = Choice(best[0]) if len(best) == 1 else _ambiguous(best, telling)
    problems, foreign = _mixture(evidence, chosen.dialect)
    return replace(chosen, problems=(*chosen.problems, *problems), foreign=foreign)


def _scores(evidence: Sequence[Written]) -> dict[str, float]:
    """For each vocabulary, how many of the names it has; a name that none has counts by its likeness to the nearest."""
    scores = {name: float(sum(_fits(dialect, one) for one in evidence)) for name, dialect in READABLE.items()}
    unknown = [one for one in evidence if not any(dialect.knows(one.name) for dialect in READABLE.values())]
    for one in unknown[:_TYPOS]:
        for name, dialect in READABLE.items():
            close = nearest(one.name, [*dialect.names(), *refused_in(name)], 1)
            likeness = SequenceMatcher(None, one.name, close[0]).ratio() if close else 0.0
            scores[name] += likeness if likeness > _LIKELY else 0.0
    return scores


_LIKELY: Final = 0.8
_TYPOS: Final = 20
"""Unknown names that are compared; a file with more of them is no configuration of anyone's."""


def _mixture(evidence: Sequence[Written], chosen: Dialect) -> tuple[tuple[Problem, ...], frozenset[str]]:
    """A problem for each other vocabulary that alone has some of the names, with a key of either side; and those names."""
    problems: list[Problem] = []
    foreign: set[str] = set()
    for other in READABLE.values():
        theirs = [one for one in evidence if one.name not in foreign and not _accepts(chosen, one) and _fits(other, one)]
        own = [one for one in evidence if _fits(chosen, one) and not _fits(other, one)]
        if theirs and own:
            foreign |= {one.name for one in theirs}
            problems.append(Problem(
                f"{theirs[0].key}: is a name of the {other.name} vocabulary, but {own[0].key} at {own[0].where} is one of {chosen.name}",
                where=theirs[0].where, mend="keep to one vocabulary", rule="mixed-vocabularies"))
    return tuple(problems), frozenset(foreign)
