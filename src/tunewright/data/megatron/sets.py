"""`dataset` under `data_manager_type: mg`: prefixes, with weights or without, opened and looked through."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tunewright.config.data import DataConfig, DatasetSpec
from tunewright.config.proportions import borders, read_proportions
from tunewright.data.audit import Note, SetAudit
from tunewright.data.megatron.layout import bin_path, idx_path, prefix_of
from tunewright.data.megatron.reader import IndexedTokens, open_tokens
from tunewright.data.records import Origin
from tunewright.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCAN: Final = 1 << 22
_WHOLE: Final = 1 << 27
_BLOCK: Final = 1 << 15
_BLOCKS: Final = 512


class Weighed(NamedTuple):
    """A prefix as the user wrote it, and its weight in a blend, None where none is written."""

    name: str
    weight: float | None


class OpenSet(NamedTuple):
    """An opened pair of files. `documents`: how many of them, from the first on, are used."""

    name: str
    weight: float | None
    tokens: IndexedTokens
    documents: int

    def audit(self) -> SetAudit:
        """Its documents; one without a token is left out."""
        sizes = self.sizes()
        notes = tuple(Note(Origin(self.tokens.file, document), "dropped", "the document holds no token")
                      for document in np.flatnonzero(sizes == 0).tolist())
        return SetAudit(self.name, self.documents, notes)

    def sizes(self) -> NDArray[np.int64]:
        """[documents] tokens of each document that is used."""
        ends = np.concatenate([[0], np.cumsum(self.tokens.lengths, dtype=np.int64)])
        found: NDArray[np.int64] = np.diff(ends[self.tokens.documents[: self.documents + 1]])
        return found


class Parts(NamedTuple):
    """The documents of one set that are for training, validation and test."""

    training: range
    validation: range
    test: range


def weighed(specs: Sequence[DatasetSpec], key: str) -> list[Weighed]:
    """`[0.3, a, 0.7, b]`, `[a, b]`, or the same as one text with blanks between. Weights stand before all prefixes or before none."""
    words = [word for spec in specs for word in _words(spec, key)]
    found: list[Weighed] = []
    weight: float | None = None
    for word in words:
        number = _as_number(word)
        if number is None:
            found.append(Weighed(word, weight))
            weight = None
            continue
        if weight is not None:
            raise InputError(f"{key}: the weights {weight:g} and {number:g} follow one another", mend="write a prefix after each weight")
        if not (math.isfinite(number) and number > 0):
            raise InputError(f"{key}: the weight {word} is not above 0", mend="take the set out, or give it a part of the whole")
        weight = number
    if weight is not None:
        raise InputError(f"{key}: no prefix follows the weight {weight:g}", mend="write a prefix after each weight")
    without = [one.name for one in found if one.weight is None]
    if without and len(without) < len(found):
        raise InputError(f"{key}: {without[0]} has no weight, others have one", mend="write a weight before each prefix, or before none")
    return found


def open_sets(data: DataConfig, specs: Sequence[DatasetSpec], key: str) -> list[OpenSet]:
    """Every set that `key` names, opened and checked. Raises `InputError` for the first that cannot be trained on."""
    return [open_set(one, data, key) for one in weighed(specs, key)]


def parts_of(opened: OpenSet, split: str) -> Parts:
    """Documents in their order, cut at `split`'s borders."""
    first, second, third, last = borders(read_proportions(split), opened.documents)
    return Parts(range(first, second), range(second, third), range(third, last))


def demand_vocabulary(opened: OpenSet, vocab_size: int) -> None:
    """Raise `InputError` naming the document of a token id that is not below `vocab_size`.

    Looks at all tokens of files up to 134 million tokens; of larger ones at 512 blocks spread evenly - of those, every sequence
    is looked at again when it is read.
    """
    tokens = opened.tokens.tokens
    if len(tokens) <= _WHOLE:
        spans = [(start, start + _SCAN) for start in range(0, len(tokens), _SCAN)]
    else:
        spans = [(start, start + _BLOCK) for start in np.linspace(0, len(tokens) - _BLOCK, _BLOCKS).astype(np.int64).tolist()]
    for start, stop in spans:
        block = tokens[start:stop]
        if len(block) and not (int(block.min()) >= 0 and int(block.max()) < vocab_size):
            _refuse_first(opened, start, block, vocab_size)


def foreign_token(where: Origin, token: int, vocab_size: int) -> InputError:
    """The error for a token id that the tokenizer does not have."""
    return InputError(f"token id {token} is none of the tokenizer, which has {vocab_size} tokens", where=str(where),
                      mend="use the tokenizer that the file was written with")


def _words(spec: DatasetSpec, key: str) -> list[str]:
    if not isinstance(spec, str):
        raise InputError(f"{key}: data_manager_type mg reads prefixes of .bin and .idx files, not mappings",
                         mend="write the path of the two files without their endings")
    words = spec.split()
    return words if len(words) > 1 and _as_number(words[0]) is not None else [spec]


def _as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def open_set(one: Weighed, data: DataConfig, key: str) -> OpenSet:
    """One set, opened and checked. Raises `InputError` if it cannot be trained on."""
    tokens = open_tokens(_located(one.name, Path(data.dataset_dir), key))
    if tokens.dtype.kind == "f":
        raise InputError(f"the numbers are {tokens.dtype.name}, not token ids", where=str(idx_path(tokens.prefix)))
    if tokens.modes is not None and (other := tokens.modes != 0).any():
        at = int(np.argmax(other))
        raise InputError(f"sequence {at} is of mode {tokens.modes[at]}, which is not text", where=str(idx_path(tokens.prefix)),
                         mend="use files of text alone")
    used = tokens.num_documents if data.max_samples is None else min(tokens.num_documents, data.max_samples)
    return OpenSet(one.name, one.weight, tokens, used)


def _located(name: str, folder: Path, key: str) -> Path:
    """The prefix from the working directory, else from `dataset_dir`; naming one of the two files is as good."""
    places = [prefix_of(place / os.path.expanduser(name)) for place in (Path(), folder)]
    for prefix in places:
        if bin_path(prefix).exists() or idx_path(prefix).exists():
            return prefix
    parent = places[0].parent
    beside = sorted(path.stem for path in parent.glob("*.idx")) if parent.is_dir() else []
    raise InputError(f"{key}: neither {idx_path(places[0])} nor {bin_path(places[0])} is there, nor in {folder}",
                     mend=f"prefixes there: {', '.join(beside[:5])}" if beside else "write the path of the two files without their endings")


def _refuse_first(opened: OpenSet, start: int, block: NDArray[Any], vocab_size: int) -> None:
    """The first wrong token of the block that is in a sequence that is used; between sequences anything may lie."""
    tokens = opened.tokens
    for offset in np.flatnonzero((block < 0) | (block >= vocab_size)).tolist():
        inside = (tokens.starts <= start + offset) & (start + offset < tokens.starts + tokens.lengths)
        if not inside.any():
            continue
        document = int(np.searchsorted(tokens.documents, int(np.argmax(inside)), side="right")) - 1
        if document < opened.documents:
            raise foreign_token(Origin(tokens.file, document), int(block[offset]), vocab_size)
