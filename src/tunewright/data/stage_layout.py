"""Which layout a data set is read with in a stage, and the line that says so. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from tunewright.data.formats.detect import PROMPT_STAGES, detect
from tunewright.data.formats.layout import MEDIA_COLUMNS, Kind, Layout
from tunewright.data.formats.layout import layout as make_layout
from tunewright.data.formats.messages import read_keys, unread_keys
from tunewright.data.formats.table import PAIRS
from tunewright.data.json_rows import Row, json_type
from tunewright.errors import InputError

_TRAINS_ON: Final[Mapping[str, tuple[Kind, ...]]] = {
    "pt": ("text", "tokens"), "sft": ("conversation", "tokens"), "rm": ("preference",), "dpo": ("preference",), "kto": ("feedback",),
    **{stage: ("prompt",) for stage in PROMPT_STAGES},
}
_WORDS: Final[Mapping[Kind, str]] = {
    "conversation": "conversations", "preference": "pairs of answers", "feedback": "answers that are called good or bad",
    "prompt": "prompts without answers", "text": "documents", "tokens": "tokens",
}
_MENDS: Final[Mapping[Kind, str]] = {
    "conversation": "set stage: sft, or give rows of that kind",
    "preference": "set stage: dpo or rm, or name the better answers alone: {file_name: ..., formatting: alpaca, columns: {prompt: ..., "
                  "response: chosen}}",
    "feedback": "set stage: kto, or declare the formatting without kto_tag",
    "prompt": "set stage: ppo, or give rows with answers",
    "text": "set stage: pt, or give rows with questions and answers",
    "tokens": "set stage: sft or pt, or give rows of text",
}


def kind_of(stage: str) -> Kind:
    """What the rows of a stage are, unless they are tokens."""
    return _TRAINS_ON[stage][0]


def rows_each(stage: str) -> int:
    """How many training rows one example of the stage has: a pair of answers has two."""
    return 2 if kind_of(stage) == "preference" else 1


def segment_names(stage: str) -> tuple[str, ...]:
    """What the rows of one example are called, if they have names."""
    return ("chosen", "rejected") if kind_of(stage) == "preference" else ()


def noun_of(stage: str) -> str:
    """What the examples of a stage are called in reports."""
    return {"preference": "pairs", "prompt": "prompts"}.get(kind_of(stage), "rows")


def stage_layout(declared: Layout | None, first: Row, stage: str, name: str) -> Layout:
    """The declared layout, or that of the first row. Raises `InputError` for one that the stage does not train on, or a wrong mapping."""
    chosen = _document_layout(declared, first, name) if stage == "pt" else _declared_or_detected(declared, first, stage)
    if stage in PROMPT_STAGES and chosen.kind == "conversation":
        chosen = replace(chosen, kind="prompt")
    if chosen.kind not in _TRAINS_ON[stage]:
        raise InputError(f"stage {stage} trains on {_WORDS[_TRAINS_ON[stage][0]]}, but these rows are {_WORDS[chosen.kind]}",
                         where=str(first.origin), mend=_MENDS[chosen.kind])
    if chosen.kind == "tokens":
        chosen = _token_layout(chosen, first, stage)
    _check_first_row(name, chosen, first, stage)
    return chosen


def with_told(chosen: Layout, head: Sequence[Row], *, is_declared: bool) -> Layout:
    """The layout with the columns, and the keys of messages, that `line_of` names, beside those that are read: of a row further on that
    has others, it is said in the audit. Who declares columns may leave pictures unread; nobody else may."""
    unread, keys = _unread(chosen, head)
    known = read_keys(chosen)
    told = _read(chosen) | (set(unread) if is_declared else set(unread) - set(MEDIA_COLUMNS))
    return replace(chosen, told=frozenset(told), told_keys=known | set(keys) if known else None)


def line_of(name: str, chosen: Layout, head: Sequence[Row], *, detected: Row | None) -> str:
    """How the rows are understood, from which row that was detected, and what of the first rows is not read."""
    unread, keys = _unread(chosen, head)
    which = "the first row" if detected is head[0] else str(detected.origin) if detected else ""
    line = f"{name}: {chosen.described()}, {f'detected from {which}' if which else 'as declared'}"
    if chosen.kind not in ("conversation", "text", "tokens"):
        line += f"; rows are {_WORDS[chosen.kind]}"
    if unread:
        line += f"; columns {'for reward functions alone' if chosen.kind == 'prompt' else 'not read'}: {', '.join(unread)}"
    return f"{line}; keys of messages not read: {', '.join(keys)}" if keys else line


def _read(chosen: Layout) -> set[str]:
    return {*chosen.columns.values(), *((PAIRS,) if chosen.formatting == "table" else ())}


def _unread(chosen: Layout, head: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Columns of the first row that are not read, and those of the others that are not null; and keys of their messages."""
    read = _read(chosen)
    columns = dict.fromkeys(name for row in head for name, value in row.values.items()
                            if name not in read and (row is head[0] or value is not None))
    column = chosen.columns.get("messages", "")
    keys = {key for row in head for key in unread_keys(row.values.get(column), chosen)}
    return list(columns), sorted(keys)


def _declared_or_detected(declared: Layout | None, first: Row, stage: str) -> Layout:
    chosen = declared or detect(first.values, stage)
    if chosen is None:
        _refuse_lists(first)
        _refuse_steps(first)
        raise InputError(
            f"no format fits the columns {', '.join(first.values)}", where=str(first.origin),
            mend=_rows_below(first) or "say what they are in a mapping: {file_name: ..., formatting: alpaca, columns: {prompt: ..., "
                                       "response: ...}}")
    return chosen


def _rows_below(first: Row) -> str | None:
    """What to do about a file that is one object with the rows in it."""
    lists = [name for name, value in first.values.items() if isinstance(value, list) and value and isinstance(value[0], Mapping)]
    return f"if the rows are those below `{lists[0]}`, write that array alone" if len(lists) == 1 else None


def _refuse_steps(first: Row) -> None:
    """Refuse TRL's rows of steps with a mark each."""
    if {"completions", "labels"} <= first.values.keys():
        raise InputError("steps with a mark each (completions, labels) train process reward models, which are not trained here",
                         where=str(first.origin), mend="write a row for each step, with prompt, completion and label, and set stage: kto")


def _refuse_lists(first: Row) -> None:
    """Refuse a column whose name is that of a list of messages, and whose content is none."""
    for column in ("messages", "conversations"):
        value = first.values.get(column)
        if value is not None and not isinstance(value, list):
            raise InputError(f"{column}: array of messages wanted, found {json_type(value)}", where=str(first.origin),
                             mend="write the messages as JSON, not as text that holds JSON" if isinstance(value, str) else None)


def _document_layout(declared: Layout | None, first: Row, name: str) -> Layout:
    """The layout for pre-training: tokens, the column that `columns.prompt` names (LLaMA-Factory's way), or `text`."""
    if declared is not None and declared.formatting == "tokens":
        return declared
    if declared is not None and declared.formatting not in ("alpaca", "text"):
        raise InputError(f"stage pt trains on documents, but the data set is declared as {declared.formatting}",
                         where=name,
                         mend="set stage: sft, or formatting: text")
    found = detect(first.values) if declared is None else None
    if found is not None and found.kind == "tokens":
        return found
    column = declared.columns["prompt"] if declared is not None and "prompt" in declared.given else "text"
    if column not in first.values:
        raise InputError(
            f"{column}: missing; columns present: {', '.join(first.values)}", where=str(first.origin),
            mend="name the column of the documents in a mapping: {file_name: ..., formatting: text, columns: {prompt: ...}}")
    return make_layout("text", {"prompt": column})


def _token_layout(chosen: Layout, first: Row, stage: str) -> Layout:
    """The layout with the columns that rows have; without labels a document is trained in full, and a conversation cannot be."""
    columns = {key: name for key, name in chosen.columns.items() if key in chosen.given or key == "ids" or name in first.values}
    if stage != "pt" and "labels" not in columns:
        raise InputError(f"labels: missing; columns present: {', '.join(first.values)}", where=str(first.origin),
                         mend="give labels, -100 for tokens that are not trained, or set stage: pt to train on every token")
    return replace(chosen, columns=columns)


def _check_first_row(name: str, chosen: Layout, first: Row, stage: str) -> None:
    """A required column that the first row lacks is a wrong mapping rather than a wrong row: say what would fit."""
    for key in ("prompt", "response", "messages", "chosen", "rejected", "kto_tag", "ids"):
        column = chosen.columns.get(key)
        if column is None or column in first.values or _may_lack(key, chosen, first):
            continue
        fitting = detect(first.values, stage)
        mend = f"the rows look like formatting: {fitting.formatting}" if fitting else f"set columns.{key} to one of them"
        raise InputError(f"{column} (columns.{key} of {name}): missing; columns present: {', '.join(first.values)}",
                         where=str(first.origin), mend=mend)


def _may_lack(key: str, chosen: Layout, first: Row) -> bool:
    if key in ("prompt", "response") and chosen.formatting == "table":
        return PAIRS in first.values
    if key == "response" and chosen.kind == "prompt":
        return True
    return key == "prompt" and chosen.formatting == "preference"
