"""The header of a GGUF file, read within the bounds of the file before anything else opens it. Standard library only.

Little-endian: `GGUF`, u32 version, u64 tensors, u64 entries; each entry a key, a u32 type and a value; each tensor a name, u32 axes,
u64 sizes, u32 number format, u64 place behind the header; then padding and the tensors. A text is a u64 length and UTF-8.
Source: docs/gguf.md of ggml.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from tunewright.errors import refuse, require

VERSIONS: Final = (2, 3)
"""Of the format; the first had 32-bit counts, and its files are gone."""

BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),
    20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}
"""Number format -> numbers in a block, and bytes of one."""

_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY, _UINT32 = 8, 9, 4
_MOST_AXES: Final = 4
_LONGEST_NAME: Final = 65_535
_LARGEST_ALIGNMENT: Final = 2**20


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a header says: the family, every entry that is one value, and the tensors with their sizes as numpy would have them."""

    architecture: str
    values: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def read_gguf_header(file: Path) -> GgufHeader:
    """Raises `InputError` naming the file and the byte for whatever the format does not allow or the file is too short for."""
    size = file.stat().st_size
    require(size >= 24, f"not a GGUF file, or truncated: {file}: it has {size} bytes", mend="fetch the file again")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _Reader(file, content).header()


class _Reader:
    """Goes through a header from front to back."""

    def __init__(self, file: Path, content: mmap.mmap) -> None:
        self.file = file
        self.content = content
        self.size = len(content)
        self.place = 0

    def header(self) -> GgufHeader:
        """The whole header, and whether the tensors lie in the file."""
        start = self.content[:4]
        if start != b"GGUF":
            lfs = self.content[:8] == b"version "
            refuse(f"{self.file} is {'a Git LFS pointer, not the weights' if lfs else 'not a GGUF file'}: it begins with {start!r}",
                   mend="run: git lfs pull" if lfs else "fetch the file again")
        self.place = 4
        version = self.number("<I")
        require(version in VERSIONS, f"{self.file} has version {version} of the GGUF format, but only 2 and 3 are known",
                mend="convert the model anew with llama.cpp")
        tensors, entries = self.number("<Q"), self.number("<Q")
        values = self._entries(entries)
        architecture = values.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            self.damaged("it does not name its architecture")
        return GgufHeader(architecture, values, self._tensors(tensors, values))

    def damaged(self, what: str) -> NoReturn:
        """Raise the error for a file that is not as the format wants."""
        refuse(f"GGUF file damaged: {self.file}: {what} (byte {self.place})", mend="fetch the file again")

    def skip(self, count: int) -> None:
        """Go on by so many bytes, which must be there."""
        if count > self.size - self.place:
            self.damaged(f"{count} bytes wanted where {self.size - self.place} are left")
        self.place += count

    def number(self, form: str) -> Any:
        """The next number."""
        begin = self.place
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self.content, begin)[0]

    def text(self, longest: int | None = None) -> str:
        """The next text."""
        length = self.number("<Q")
        if longest is not None and length > longest:
            self.damaged(f"a name of {length} bytes")
        begin = self.place
        self.skip(length)
        try:
            return self.content[begin:self.place].decode("utf-8")
        except UnicodeDecodeError:
            self.damaged("a text that is not UTF-8")

    def _entries(self, count: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        seen = set()
        self._demand_room(count, 8 + 4 + 1, "entries")
        for _ in range(count):
            key = self.text(_LONGEST_NAME)
            if key in seen:
                self.damaged(f"the entry {key!r} is there twice")
            seen.add(key)
            kind = self.number("<I")
            if kind == _ARRAY:
                self._pass_array()
            else:
                values[key] = self._value(kind)
            if key == "general.alignment" and kind != _UINT32:
                self.damaged("general.alignment is no u32")
        return values

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind not in _SCALARS:
            self.damaged(f"a value of type {kind}, but only 0 to 12 are known")
        return self.number(_SCALARS[kind])

    def _pass_array(self) -> None:
        kind, count = self.number("<I"), self.number("<Q")
        if kind in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _TEXT:
            self._demand_room(count, 8, "texts")
            for _ in range(count):
                self.skip(self.number("<Q"))
        else:
            self.damaged(f"a list of type {kind}")

    def _tensors(self, count: int, values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        self._demand_room(count, 8 + 4 + 4 + 8, "tensors")
        shapes: dict[str, tuple[int, ...]] = {}
        end = 0
        for _ in range(count):
            name = self.text(_LONGEST_NAME)
            if name in shapes:
                self.damaged(f"the tensor {name!r} is there twice")
            axes = self.number("<I")
            if axes > _MOST_AXES:
                self.damaged(f"the tensor {name!r} has {axes} axes")
            sizes = tuple(self.number("<Q") for _ in range(axes))
            kind, begin = self.number("<I"), self.number("<Q")
            end = max(end, begin + self._bytes(name, sizes, kind))
            shapes[name] = sizes[::-1]
        self._demand_tensors(end, values.get("general.alignment", 32))
        return shapes

    def _bytes(self, name: str, sizes: tuple[int, ...], kind: int) -> int:
        if kind not in BLOCKS:
            self.damaged(f"the tensor {name!r} has number format {kind}, which is not known")
        block, width = BLOCKS[kind]
        if (sizes[0] if sizes else 1) % block:
            self.damaged(f"the rows of {name!r} are no whole number of blocks of {block}")
        return math.prod(sizes) // block * width

    def _demand_tensors(self, end: int, alignment: int) -> None:
        if not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            self.damaged(f"general.alignment is {alignment}, not a power of two")
        start = -(-self.place // alignment) * alignment
        require(not end or start + end <= self.size, f"GGUF file truncated: {self.file}: needs {start + end} bytes, has {self.size}",
                mend="fetch the file again")

    def _demand_room(self, count: int, least: int, what: str) -> None:
        """Whether so many things of at least `least` bytes can be in the rest of the file: a count alone must not make us go on."""
        if count > (self.size - self.place) // least:
            self.damaged(f"{count} {what} are said to be in the {self.size - self.place} bytes that are left")
