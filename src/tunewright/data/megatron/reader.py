"""Reads Megatron's indexed token files through memory maps; nothing is copied until a sequence is asked for."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tunewright.data.megatron.layout import (
    DTYPES,
    HEADER,
    LENGTH,
    MAGIC,
    MODE,
    OLD_MAGIC,
    POINTER,
    VERSION,
    bin_path,
    idx_path,
)
from tunewright.errors import InputError, StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AGAIN: Final = "write or copy both files anew"
_WHOLE_BYTES: Final = 64 << 20
_BLOCK: Final = 1 << 16
_BLOCKS: Final = 512


class _Counts(NamedTuple):
    """What the header of an index says."""

    dtype: np.dtype[Any]
    sequences: int
    entries: int


@dataclass(frozen=True, eq=False)
class IndexedTokens:
    """The sequences of one pair of files. Sequence s is tokens[starts[s] : starts[s] + lengths[s]].

    tokens [T] of `dtype`; lengths [N] int32, starts [N] int64 in tokens, documents [D + 1] int64: document d is the sequences
    documents[d] to documents[d + 1] - 1; modes [N] int8 or None. All are memory maps or views of them, but for `starts`.
    """

    prefix: Path
    tokens: NDArray[Any]
    lengths: NDArray[np.int32]
    starts: NDArray[np.int64]
    documents: NDArray[np.int64]
    modes: NDArray[np.int8] | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number format of the tokens."""
        return self.tokens.dtype

    @property
    def num_documents(self) -> int:
        """Documents, empty ones included."""
        return len(self.documents) - 1

    @property
    def file(self) -> str:
        """The path of the tokens, as messages name it."""
        return str(bin_path(self.prefix))

    @cached_property
    def unnamed_tokens(self) -> int:
        """Tokens of the file that are in no sequence: sequences may leave gaps, share tokens, and stand in any order."""
        order = np.argsort(self.starts, kind="stable")
        begins = self.starts[order]
        ends = np.maximum.accumulate(begins + self.lengths[order]) if len(order) else begins
        gaps = begins[1:] - ends[:-1]
        inside = int(gaps[gaps > 0].sum()) + (int(begins[0]) if len(order) else 0)
        return inside + len(self.tokens) - (int(ends[-1]) if len(order) else 0)

    def sequence(self, number: int) -> NDArray[Any]:
        """The tokens of one sequence, not copied."""
        start = int(self.starts[number])
        return self.tokens[start : start + int(self.lengths[number])]

    def document(self, number: int) -> NDArray[Any]:
        """The tokens of one document: its sequences end to end."""
        parts = [self.sequence(one) for one in range(int(self.documents[number]), int(self.documents[number + 1]))]
        return parts[0] if len(parts) == 1 else np.concatenate([self.tokens[:0], *parts])

    def digest(self) -> str:
        """SHA-256 of the whole index and of the tokens: all of them up to 64 MiB, beyond that 512 blocks of 64 KiB spread evenly."""
        found = hashlib.sha256(idx_path(self.prefix).read_bytes())
        raw = self.tokens.view(np.uint8)
        found.update(str(len(raw)).encode())
        if len(raw) <= _WHOLE_BYTES:
            found.update(raw.data)
        else:
            for start in np.linspace(0, len(raw) - _BLOCK, _BLOCKS).astype(np.int64).tolist():
                found.update(raw[start : start + _BLOCK].data)
        return found.hexdigest()

    def __reduce__(self) -> tuple[Callable[[Path], IndexedTokens], tuple[Path]]:
        """Another process opens the files itself instead of being sent all tokens."""
        return open_tokens, (self.prefix,)


def open_tokens(prefix: Path) -> IndexedTokens:
    """Open PREFIX.bin and PREFIX.idx. Raises `InputError` in one line for whatever is wrong with them, and with each other."""
    index_path, token_path = idx_path(prefix), bin_path(prefix)
    _require_both(prefix)
    index = _mapped(index_path)
    counts = _header(index_path, index)
    lengths, pointers, documents, modes = _tables(index_path, index, counts)
    raw = _mapped(token_path)
    _check_sequences(index_path, token_path, lengths, pointers, counts, len(raw))
    _check_documents(index_path, documents, counts.sequences)
    tokens = np.frombuffer(raw, counts.dtype, len(raw) // counts.dtype.itemsize)
    return IndexedTokens(prefix, tokens, lengths, pointers // counts.dtype.itemsize, documents, modes)


def _require_both(prefix: Path) -> None:
    missing = [path for path in (idx_path(prefix), bin_path(prefix)) if not path.is_file()]
    if len(missing) == 2:
        raise InputError(f"neither {missing[0].name} nor {missing[1].name} is there", where=str(prefix.parent),
                         mend="name what the two files have in common, without .bin and .idx")
    if missing:
        raise InputError("the file is missing, its partner is there", where=str(missing[0]), mend=_AGAIN)


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The file's bytes, mapped; an empty file cannot be mapped."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _header(path: Path, index: mmap.mmap | bytes) -> _Counts:
    head = bytes(index[: HEADER.size])
    if not head:
        raise _bad(path, "the file is empty")
    if head.startswith(OLD_MAGIC):
        raise InputError("fairseq's older index, which Megatron no longer reads", where=str(path),
                         mend="write the documents anew: tunewright data megatron")
    if not head.startswith(MAGIC[: len(head)]):
        raise InputError(f"not an index of Megatron: it begins with {head[:9]!r}, not {MAGIC!r}", where=str(path),
                         mend="name the prefix of a .bin and its .idx")
    if len(head) < HEADER.size:
        raise _bad(path, f"cut off in its header: {len(head)} of {HEADER.size} bytes")
    _, version, code, sequences, entries = HEADER.unpack(head)
    if version != VERSION:
        raise _bad(path, f"version {version} of the format, but only {VERSION} is known")
    if code not in DTYPES:
        raise _bad(path, f"number format {code}, but only 1 to {max(DTYPES)} are known")
    if entries == 0:
        raise _bad(path, "the document index has no entry, not even that of its end")
    return _Counts(DTYPES[code], sequences, entries)


def _tables(path: Path, index: mmap.mmap | bytes, counts: _Counts) -> tuple[Any, Any, Any, Any]:
    """Lengths, pointers, document index, modes or None. The size of the file must be just that of what the header counts."""
    sizes = (counts.sequences * LENGTH.itemsize, counts.sequences * POINTER.itemsize, counts.entries * POINTER.itemsize)
    without = HEADER.size + sum(sizes)
    said = f"its header counts {counts.sequences} sequences and {counts.entries} entries of documents"
    if len(index) < without:
        raise _bad(path, f"cut off: {len(index)} bytes, but {said}, which take {without}")
    if len(index) not in (without, without + counts.sequences):
        raise _bad(path, f"too long: {len(index)} bytes, but {said}, which take {without}, or {without + counts.sequences} with modes")
    lengths = np.frombuffer(index, LENGTH, counts.sequences, HEADER.size)
    pointers = np.frombuffer(index, POINTER, counts.sequences, HEADER.size + sizes[0])
    documents = np.frombuffer(index, POINTER, counts.entries, HEADER.size + sizes[0] + sizes[1])
    has_modes = counts.sequences > 0 and len(index) > without
    return lengths, pointers, documents, np.frombuffer(index, MODE, counts.sequences, without) if has_modes else None


def _check_sequences(path: Path, token_path: Path, lengths: Any, pointers: Any, counts: _Counts, size: int) -> None:
    width = counts.dtype.itemsize
    if size % width:
        raise _bad(token_path, f"{size} bytes are no whole number of tokens of {width} bytes: cut off")
    for wrong, what in (
        (lengths < 0, lambda at: f"sequence {at} has {lengths[at]} tokens"),
        (pointers < 0, lambda at: f"sequence {at} begins at byte {pointers[at]}"),
        (pointers % width != 0, lambda at: f"sequence {at} begins at byte {pointers[at]}, within a token of {width} bytes"),
    ):
        if wrong.any():
            raise _bad(path, what(int(np.argmax(wrong))))
    ends = pointers + lengths.astype(np.int64) * width
    if (beyond := ends > size).any():
        at = int(np.argmax(beyond))
        raise _bad(token_path, f"cut off: {size} bytes, but sequence {at} ends at byte {ends[at]}")


def _check_documents(path: Path, documents: Any, sequences: int) -> None:
    if documents[0] != 0 or documents[-1] != sequences:
        raise _bad(path, f"the documents go from sequence {documents[0]} to {documents[-1]}, but the sequences from 0 to {sequences}")
    if (falls := np.diff(documents) < 0).any():
        at = int(np.argmax(falls))
        raise _bad(path, f"document {at} ends at sequence {documents[at + 1]}, before it begins at {documents[at]}")


def _bad(path: Path, what: str) -> InputError:
    return InputError(what, where=str(path), mend=_AGAIN)
