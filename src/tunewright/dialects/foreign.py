"""Files of axolotl and of TRL (or Hugging Face TrainingArguments): recognised, and read into our names. Never written, never trained from.

What is understood is in the tables of `axolotl` and `trl`; every other key is reported, and the values of unknown keys are never
shown, because they may be secrets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tunewright.config.literals import show
from tunewright.config.refused.table import refused_in
from tunewright.config.table import table
from tunewright.dialects.axolotl import AXOLOTL
from tunewright.dialects.dialect import Written
from tunewright.dialects.document import Document
from tunewright.dialects.interpret import interpret
from tunewright.dialects.known import READABLE
from tunewright.dialects.native import NATIVE
from tunewright.dialects.refusals import TOKEN_VARIABLES, looks_secret, name_refusal
from tunewright.dialects.report import Line
from tunewright.dialects.spelling import Foreign, Meant
from tunewright.dialects.trl import TRL
from tunewright.errors import refuse

FOREIGN: Final[Mapping[str, Foreign]] = {one.name: one for one in (AXOLOTL, TRL)}
"""The programs whose files are read by `tunewright convert` only."""

_TELLING: Final = 2
"""So many keys that only the other program has make a file one of its files."""


@dataclass(frozen=True, slots=True)
class Understood:
    """The settings of a foreign file in our names, each at its own line, and the defaults of the program that wrote it; the same with
    the values as they stand in the file; and a line about each key that is no setting of ours."""

    settings: tuple[Written, ...]
    originals: tuple[Written, ...]
    report: tuple[Line, ...]


def recognised(names: Collection[str]) -> str | None:
    """The program that the top-level keys of a file speak for; None for files of ours, and where two programs could have written it."""
    ours = [name for name in names if any(dialect.knows(name) for dialect in READABLE.values())]
    strange = set(names) - set(ours)
    found = {one.name: len(strange & one.names()) for one in FOREIGN.values()}
    best = max(found, key=lambda name: found[name])
    is_alone = list(found.values()).count(found[best]) == 1
    return best if found[best] >= _TELLING and is_alone and "dialect" not in names else None


def refuse_foreign(documents: Sequence[Document]) -> None:
    """Raise InputError for a file that another program wrote, and say how it is converted."""
    for document in documents:
        name = recognised(document.values)
        if name is not None:
            title, article = FOREIGN[name].title, FOREIGN[name].article
            refuse(f"this looks like {article} {title} file", where=document.path,
                   mend=f"run `tunewright convert {document.path} --to native -o NEW.yaml`")


def understand(document: Document, name: str) -> Understood:
    """Every key of a file of that program, in our names or in the report."""
    foreign = FOREIGN[name]
    values = {key.replace("-", "_"): value for key, value in document.values.items()}
    written: dict[str, Written] = {}
    originals: list[Written] = []
    report: list[Line] = []
    for key in document.values:
        where = document.where(key)
        for meant in foreign.meant(key.replace("-", "_"), values):
            outcome = _outcome(Written(key, key.replace("-", "_"), document.values[key], where, "file"), meant)
            if isinstance(outcome, Line):
                report.append(outcome)
            else:
                written[outcome.name] = outcome
                originals.append(replace(outcome, value=document.values[key]))
    for ours, value in foreign.defaults(values).items():
        if ours in table() and ours not in written and not _refused(Written(ours, ours, value, foreign.title, "dialect default")):
            written[ours] = Written(ours, ours, value, f"default of {foreign.title}", "dialect default")
    report += [Line("", "no equivalent", None, remark, is_lost=True) for remark in foreign.remarks(values)]
    return Understood(tuple(written.values()), tuple(originals), tuple(report))


def _outcome(given: Written, meant: Meant) -> Written | Line:
    """A setting of ours, or the line that says why there is none."""
    label = f"{given.where}: {meant.label or given.key}"
    if _is_secret(given.name) and given.value not in (None, "", False):
        variable = TOKEN_VARIABLES.get(given.name)
        mend = f"set the environment variable {variable}" if variable else "set it as an environment variable"
        return Line(given.name, "no equivalent", None, f"{label}: a secret is not copied; {mend}", is_lost=True)
    if meant.name is None:
        return Line(given.name, "no equivalent", None, f"{label}: {meant.why}", is_lost=meant.is_lost)
    one = replace(given, name=meant.name, value=meant.value)
    why = _refused(one)
    if why is None:
        return one
    # What a list or mapping holds is not shown: it may be a secret.
    shown = "" if isinstance(given.value, list | dict) else f" {show(given.value)}"
    if why == _INERT:
        return Line(given.name, "no equivalent", None, f"{label}{shown}: changes nothing in the run, and is left out")
    return Line(given.name, "no equivalent", None, f"{label}{shown}: {why}", is_lost=True)


_INERT: Final = "inert"


def _refused(one: Written) -> str | None:
    """Why our vocabulary does not take the setting, and what there is instead; None if it does."""
    known = refused_in("native")
    if one.name in known:
        refusal = name_refusal(one, NATIVE)
        return _INERT if refusal is None else f"our {one.name}: {refusal.what}; left out is: {known[one.name][0].meaning.rstrip('.')}"
    if one.name not in table():
        return f"we have no {one.name}"
    found = interpret([one], NATIVE)
    if not found.problems:
        return None
    return f"{found.problems[0].message.partition(': ')[2]}; here it is {show(table()[one.name].param.default)}"


def _is_secret(name: str) -> bool:
    return name in TOKEN_VARIABLES or (looks_secret(name) and not any(name in one.keys for one in FOREIGN.values())
                                       and name not in _TEXTS_OF_A_TOKENIZER)


_TEXTS_OF_A_TOKENIZER: Final = ("bos_token", "eos_token", "pad_token", "unk_token")
