"""Where things lie in Megatron's two files, `PREFIX.bin` (tokens) and `PREFIX.idx` (where the documents are).

PREFIX.bin  the tokens of all sequences end to end, in one number format, without any header.
PREFIX.idx  little-endian:
    9 bytes   magic `MMIDIDX\\0\\0`
    u64       version, 1
    u8        code of the number format (`DTYPES`)
    u64       N, number of sequences
    u64       D + 1, number of entries of the document index
    i32 [N]   tokens of each sequence
    i64 [N]   first byte of each sequence in PREFIX.bin
    i64 [D+1] document d is the sequences index[d] to index[d + 1] - 1; the first entry is 0, the last N
    i8  [N]   mode of each sequence; there only in multimodal files

Source: the format as Megatron-LM (megatron/core/datasets) describes it. Nearly always a document is one sequence.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

MAGIC: Final = b"MMIDIDX\x00\x00"
OLD_MAGIC: Final = b"TNTIDX\x00\x00"
"""Of fairseq's older index, which Megatron no longer reads either."""

VERSION: Final = 1
HEADER: Final = struct.Struct("<9sQBQQ")

DTYPES: Final[Mapping[int, np.dtype[Any]]] = {
    1: np.dtype("u1"), 2: np.dtype("i1"), 3: np.dtype("<i2"), 4: np.dtype("<i4"), 5: np.dtype("<i8"), 6: np.dtype("<f8"),
    7: np.dtype("<f4"), 8: np.dtype("<u2"),
}
CODES: Final[Mapping[np.dtype[Any], int]] = {dtype: code for code, dtype in DTYPES.items()}

LENGTH: Final = np.dtype("<i4")
POINTER: Final = np.dtype("<i8")
MODE: Final = np.dtype("i1")

_NARROW: Final = 65500


def smallest_dtype(vocab_size: int) -> np.dtype[Any]:
    """The number format that Megatron's own tools choose: 16 bits for vocabularies under 65,500, else 32."""
    return DTYPES[8] if vocab_size < _NARROW else DTYPES[4]


def bin_path(prefix: Path) -> Path:
    """The file of the tokens."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """The file of the index."""
    return prefix.with_name(prefix.name + ".idx")


def prefix_of(path: Path) -> Path:
    """The prefix, where one of the two files may have been named instead."""
    return path.with_name(path.name[:-4]) if path.name.endswith((".bin", ".idx")) else path
