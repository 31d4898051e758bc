"""Bytes to text: UTF-8 only, with the place of whatever is not. Standard library only."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tunewright.errors import InputError, StorageError

BOM = b"\xef\xbb\xbf"
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd", b"PK\x03\x04": "unzip"}
"""First bytes of compressed files -> the program that unpacks them."""

UNPACKED: dict[str, Callable[[Path], IO[bytes]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # type: ignore[dict-item]
"""Endings of packed files that are read as they are -> what opens them."""


def decoded_lines(path: Path) -> Iterator[str]:
    r"""Lines of `path` with their line ends; only `\n` ends a line, because JSON strings and fields may hold other breaks.

    A byte-order mark is left out. Raises `InputError` for an empty file, UTF-16 or bytes that are not UTF-8.
    """
    offset = 0
    with _reading(path), _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                refuse_utf16(path, line)
            yield _decoded(path, line.removeprefix(BOM) if number == 1 else line, offset, number)
            offset += len(line)
    if offset == 0:
        raise empty_file(path)


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, in bytes, and the line, not decoded; otherwise as `decoded_lines`."""
    offset = 0
    with _reading(path), _opened(path) as file:
        for line in file:
            if offset == 0:
                refuse_utf16(path, line)
            yield offset, line if offset else line.removeprefix(BOM)
            offset += len(line)
    if offset == 0:
        raise empty_file(path)


def decoded_line(path: Path, content: bytes, offset: int, number: int) -> str:
    """A line that `raw_lines` gave, `offset` bytes into the file, as text."""
    return _decoded(path, content, offset, number)


def decoded_text(path: Path) -> str:
    """The whole of `path` as text, under the same rules as `decoded_lines`."""
    with _reading(path), _opened(path) as file:
        content = file.read()
    if not content:
        raise empty_file(path)
    refuse_utf16(path, content)
    return _decoded(path, content.removeprefix(BOM), 0, 1)


def decoded_head(path: Path, size: int) -> str:
    """The first `size` bytes as text; a character that the cut divides is left out."""
    with _reading(path), _opened(path) as file:
        content = file.read(size)
    refuse_utf16(path, content)
    content = content.removeprefix(BOM)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return content[: error.start].decode("utf-8")
        return _decoded(path, content, 0, 1)


def last_bytes(path: Path, size: int) -> bytes:
    """Up to `size` bytes from the end of the file."""
    with _opened(path) as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read()


def bytes_between(path: Path, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end` of a file that is not packed."""
    with _reading(path), path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def count_lines(path: Path) -> int:
    """Line breaks in a file that is not packed."""
    with _reading(path), path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def empty_file(path: Path) -> InputError:
    """The error for a file without content."""
    return InputError("the file is empty", where=str(path), mend="put rows into it or take it out of the data set")


def refuse_utf16(path: Path, head: bytes) -> None:
    """Raise `InputError` if the file begins as UTF-16 does: with its byte-order mark, or with a NUL among ASCII."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:4]:
        raise InputError(
            "the text is UTF-16, UTF-8 wanted", where=str(path),
            mend=f"convert it: iconv -f UTF-16 -t UTF-8 {path} > new file")


def refuse_compressed(path: Path) -> None:
    """Raise `InputError` if the file begins as compressed ones do, whatever its name, unless its name says so and it can be read so."""
    if is_packed(path):
        return
    with _reading(path), path.open("rb") as file:
        head = file.read(6)
    for magic, program in COMPRESSED.items():
        if head.startswith(magic):
            raise InputError("the file is compressed", where=str(path), mend=f"unpack it first: {program} {path}")


def is_packed(path: Path) -> bool:
    """Whether the name says that the file is packed in a way that is read as it is."""
    return path.suffix.lower() in UNPACKED


def _opened(path: Path) -> Any:
    return UNPACKED[path.suffix.lower()](path) if is_packed(path) else path.open("rb")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors of the file system and of damaged packing, in one line each."""
    try:
        yield
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise _damaged(path, str(error)) from error
    except MemoryError as error:  # The head of an LZMA file may ask for gigabytes.
        raise _damaged(path, "it asks for more memory than there is") from error
    except OSError as error:
        if error.errno is None:  # bz2 says so of bytes that are not its own
            raise _damaged(path, str(error)) from error
        raise StorageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _damaged(path: Path, said: str) -> InputError:
    return InputError(f"the packed file is damaged or truncated: {said[0].lower()}{said[1:]}", where=str(path), mend="fetch it again")


def _decoded(path: Path, content: bytes, offset: int, line: int) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = line + content.count(b"\n", 0, error.start)
        raise InputError(
            f"byte {offset + error.start} (0x{content[error.start]:02x}) is not UTF-8", where=f"{path}:{number}",
            mend="save the file as UTF-8, for instance: iconv -f GB18030 -t UTF-8") from error
