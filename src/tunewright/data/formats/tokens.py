"""Rows that were tokenised before: input_ids, labels, and perhaps attention_mask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

from tunewright.data.formats.fields import MEND, Converted, Outcome, Refusal, required_list, wrong_type
from tunewright.data.formats.layout import Layout
from tunewright.data.json_rows import Row, json_type
from tunewright.data.records import IGNORE_INDEX, Origin, TokenIds
from tunewright.errors import InputError

NO_TOKENS = "no tokens"
HOLE = "attention_mask hides tokens between others"
_ID_LIMIT = 2**31


def convert(row: Row, layout: Layout) -> Outcome:
    """Ids and labels as they are, without the padding that attention_mask marks; without labels every token is trained.

    A label must be -100 or the id at its own place: labels that were shifted before would train every token on the one after the next.
    """
    ids = _whole_numbers(row, layout.columns["ids"])
    if not ids:
        return Refusal(NO_TOKENS)
    _check_ids(ids, layout.columns["ids"], row.origin)
    column = layout.column("labels")
    labels = ids if column is None or row.values.get(column) is None else _labels(row, column, ids)
    mask_column = layout.column("mask")
    if mask_column is None or row.values.get(mask_column) is None:
        return Converted(TokenIds(ids, labels, row.origin))
    return _without_padding(_mask(row, mask_column, ids), ids, labels, row.origin)


def _labels(row: Row, column: str, ids: Sequence[int]) -> Sequence[int]:
    labels = _whole_numbers(row, column)
    _check_length(column, labels, ids, row.origin)
    if labels != ids:
        for position, (label, token) in enumerate(zip(labels, ids, strict=True)):
            if label not in (token, IGNORE_INDEX):
                mend = "labels stand at the place of their own token; undo the shift" if labels[:-1] == ids[1:] else MEND
                raise InputError(f"{column}[{position}]: {label} is neither {IGNORE_INDEX} nor the token there, {token}",
                                 where=str(row.origin), mend=mend)
    return labels


def _mask(row: Row, column: str, ids: Sequence[int]) -> Sequence[int]:
    mask = _whole_numbers(row, column)
    _check_length(column, mask, ids, row.origin)
    if not set(mask) <= {0, 1}:
        position = next(at for at, value in enumerate(mask) if value not in (0, 1))
        raise InputError(f"{column}[{position}]: 0 or 1 wanted, found {json_type(mask[position])}", where=str(row.origin), mend=MEND)
    return mask


def _without_padding(mask: Sequence[int], ids: Sequence[int], labels: Sequence[int], origin: Origin) -> Outcome:
    seen = sum(mask)
    if seen == len(ids):
        return Converted(TokenIds(ids, labels, origin))
    if not seen:
        return Refusal(NO_TOKENS, "attention_mask hides all of them")
    begin = mask.index(1)
    if sum(mask[begin : begin + seen]) != seen:
        return Refusal(HOLE)
    kept = TokenIds(list(compress(ids, mask)), list(compress(labels, mask)), origin)
    return Converted(kept, (f"padding taken out: {len(ids) - seen} tokens that attention_mask hides",))


def _whole_numbers(row: Row, column: str) -> list[int]:
    values = required_list(row, column)
    if not set(map(type, values)) <= {int}:
        position, value = next((at, value) for at, value in enumerate(values) if type(value) is not int)
        wrong_type(f"{column}[{position}]", "integer", value, row.origin)
    return values


def _check_ids(ids: list[int], column: str, origin: Origin) -> None:
    if min(ids) >= 0 and max(ids) < _ID_LIMIT:
        return
    position, value = next((at, one) for at, one in enumerate(ids) if not 0 <= one < _ID_LIMIT)
    raise InputError(f"{column}[{position}]: {value} is no token id", where=str(origin), mend=MEND)


def _check_length(column: str, values: list[Any], ids: Sequence[int], origin: Origin) -> None:
    if len(values) != len(ids):
        raise InputError(f"{column}: {len(values)} entries for {len(ids)} tokens", where=str(origin), mend=MEND)
