"""Writes Megatron's indexed token files, document by document, in constant memory but for 12 bytes a sequence."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from tunewright.data.megatron.layout import CODES, HEADER, LENGTH, MAGIC, MODE, POINTER, VERSION, bin_path, idx_path
from tunewright.durable import make_directory, sync_directory
from tunewright.errors import InputError, StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BUFFER: Final = 1 << 20
_MOST_TOKENS: Final = 2**31 - 1


class IndexedWriter:
    """Takes documents and leaves PREFIX.bin and PREFIX.idx, both complete, or - after an error or a kill - neither.

    Use as a context manager: files appear at the end of the block, first the tokens, then the index. Both are written beside
    their places, forced to the disk and renamed. An existing pair is replaced: its index goes first, so that at no moment an
    old index stands beside new tokens.
    """

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self.prefix = prefix
        self.dtype = np.dtype(dtype).newbyteorder("<") if np.dtype(dtype).itemsize > 1 else np.dtype(dtype)
        if self.dtype not in CODES:
            raise ValueError(f"the format has no code for {dtype}")
        self._lengths = array("i")
        self._documents = array("q", [0])
        self._modes = array("b")
        self._bytes = 0
        self._staged = tuple(path.with_name(f".{path.name}.new") for path in (bin_path(prefix), idx_path(prefix)))
        self._file: BinaryIO | None = None

    @property
    def num_documents(self) -> int:
        """Documents so far."""
        return len(self._documents) - 1

    @property
    def num_tokens(self) -> int:
        """Tokens so far."""
        return self._bytes // self.dtype.itemsize

    def add(self, ids: Sequence[int] | NDArray[Any], *, mode: int | None = None) -> None:
        """Append a document of one sequence."""
        self.add_document([ids], modes=None if mode is None else [mode])

    def add_document(self, sequences: Iterable[Sequence[int] | NDArray[Any]], *, modes: Sequence[int] | None = None) -> None:
        """Append a document of several sequences, or of none. `modes`: one for each; then every sequence of the file needs one.

        Raises `InputError` for a token id that the number format cannot hold, and then the document is not in the file.
        """
        arrays = [self._encoded(ids) for ids in sequences]
        if modes is not None and len(modes) != len(arrays):
            raise ValueError(f"{len(modes)} modes for {len(arrays)} sequences")
        file = self._open_file()
        with _failures(self.prefix):
            for one in arrays:
                file.write(one.data)
        for one in arrays:
            self._lengths.append(len(one))
            self._bytes += one.nbytes
        self._modes.extend(modes or ())
        self._documents.append(len(self._lengths))

    def __enter__(self) -> IndexedWriter:
        with _failures(self.prefix):
            make_directory(self.prefix.parent)
            self._file = self._staged[0].open("wb", buffering=_BUFFER)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._publish()
        finally:
            if self._file is not None:
                with contextlib.suppress(OSError):  # a full disk was told already
                    self._file.close()
            for path in self._staged:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _encoded(self, ids: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        given = np.asarray(ids)
        if given.ndim != 1:
            raise ValueError(f"a sequence is one row of tokens, not an array of {given.ndim} axes")
        if len(given) > _MOST_TOKENS:
            raise InputError(f"document {self.num_documents} has {len(given)} tokens, the format holds {_MOST_TOKENS}",
                             where=str(self.prefix), mend="split it")
        encoded = np.ascontiguousarray(given, dtype=self.dtype) if len(given) else np.empty(0, self.dtype)
        if self.dtype.kind in "iu" and len(given) and not np.array_equal(encoded, given):
            limits = np.iinfo(self.dtype)
            wrong = given[int(np.argmax(encoded != given))]
            raise InputError(
                f"document {self.num_documents}: token id {wrong} does not fit {self.dtype.name} ({limits.min} to {limits.max})",
                where=str(self.prefix), mend="choose a wider number format")
        return encoded

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the writer is a context manager: add documents inside its block")
        return self._file

    def _publish(self) -> None:
        if len(self._modes) not in (0, len(self._lengths)):
            raise ValueError(f"{len(self._modes)} of {len(self._lengths)} sequences have a mode: all or none")
        (staged_tokens, staged_index), tokens, index = self._staged, bin_path(self.prefix), idx_path(self.prefix)
        with _failures(self.prefix):
            _force(self._open_file())
            with staged_index.open("wb", buffering=_BUFFER) as file:
                self._write_index(file)
                _force(file)
            index.unlink(missing_ok=True)
            sync_directory(self.prefix.parent)
            os.replace(staged_tokens, tokens)
            os.replace(staged_index, index)
            sync_directory(self.prefix.parent)

    def _write_index(self, file: BinaryIO) -> None:
        lengths = np.frombuffer(self._lengths, np.int32) if self._lengths else np.empty(0, np.int32)
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        pointers = ends - lengths * np.int64(self.dtype.itemsize)
        file.write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], len(lengths), len(self._documents)))
        file.write(lengths.astype(LENGTH, copy=False).data)
        file.write(pointers.astype(POINTER, copy=False).data)
        file.write(np.frombuffer(self._documents, np.int64).astype(POINTER, copy=False).data)
        if self._modes:
            file.write(np.frombuffer(self._modes, np.int8).astype(MODE, copy=False).data)


def _force(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _failures(prefix: Path) -> Iterator[None]:
    """A failed write as one line with its path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror or error}", where=str(error.filename or prefix),
                           mend="make room, or name another --output") from error
