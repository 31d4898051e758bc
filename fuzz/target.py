"""One reader to be given hostile bytes: how it is called, good inputs to begin with, and words of its format."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fuzz.judging import CPU_SECONDS, One

ROOT: Final = Path(__file__).resolve().parents[1]
CORPUS: Final = ROOT / "fuzz" / "corpus"
_IN_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Target:
    """`one` reads an input; `seeds` gives good ones; `words` may be put in anywhere; `cpu_s`: seconds that one input may take."""

    name: str
    reads: str
    one: One
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()
    cpu_s: float = CPU_SECONDS


@cache
def folder() -> Path:
    """A folder of this process for the files that readers want; gone at its end."""
    made = Path(tempfile.mkdtemp(prefix="tunewright-fuzz-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def written(name: str, content: bytes) -> Path:
    """A file of that name with that content."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def words_in(text: str) -> tuple[bytes, ...]:
    """The words of a text, for `Target.words`."""
    return tuple(word.encode() for word in text.split())


def kept(target: str) -> list[bytes]:
    """Inputs that found something once."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]
