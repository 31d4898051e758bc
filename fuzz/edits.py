"""Good files with a few edits: what is nearly right goes deeper into a reader than noise."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

LONGEST: Final = 1 << 16
"""Bytes of an input."""

_EDITS: Final = (1, 1, 1, 2, 2, 3, 5, 9)
_NUMBERS: Final = (0, 1, -1, 2, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**62, 2**63 - 1, 2**63,
                   2**64 - 1)
_WRITTEN: Final = (b"0", b"-1", b"1e999", b"-0", b"1e-400", b"0x10", b"010", b"1_000", b"NaN", b"Infinity", b"9" * 30, b"9" * 5000,
                   b"0.1", b".5", b"1.", b"true", b"null", b'""', b"[]", b"{}", b"0x" + b"f" * 5000)
_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 3, 0.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**63, 2**64, -2**63, 10**400, "", " ", "a", "0",
    "true", "null", "\0", "\n", "a\nb", "\r", "\u2028", "\ud800", "\ufeff", "中", "a" * 3000, "../..", "/", "[]", "{}",
    '{"name": "a"}', "a,b", "a=b", [], {}, [[]], [{}], {"": None}, [None], [0], [""], ["a", "a"], {"a": {"a": {}}}, [1, "a", None],
)
_DIGITS: Final = re.compile(rb"-?\d+(?:\.\d+)?")

Edit = Callable[[bytes, "Source", random.Random], bytes]


class Source:
    """What edits may draw from: other good files and words of the format."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
        self.seeds = seeds
        self.words = words or (b"a",)


def edited(content: bytes, source: Source, chance: random.Random) -> bytes:
    """`content` with one to nine edits drawn from `chance`."""
    for _ in range(chance.choice(_EDITS)):
        content = chance.choice(EDITS)(content, source, chance)[:LONGEST]
    return content


def _flip(content: bytes, _: Source, chance: random.Random) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _byte(content: bytes, _: Source, chance: random.Random) -> bytes:
    begin, end = _slice(content, chance, 1)
    return content[:begin] + bytes([chance.choice(b"\0\n\r\t \"'{}[]:,#&*!|>%@`\\\x7f\x80\xc3\xff0-.")]) + content[end:]


def _remove(content: bytes, _: Source, chance: random.Random) -> bytes:
    begin, end = _slice(content, chance, 64)
    return content[:begin] + content[end:]


def _cut(content: bytes, _: Source, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _repeat(content: bytes, _: Source, chance: random.Random) -> bytes:
    begin, end = _slice(content, chance, 48)
    return content[:end] + content[begin:end] * chance.choice((1, 1, 2, 8, 100, 2000)) + content[end:]


def _word(content: bytes, source: Source, chance: random.Random) -> bytes:
    begin, end = _slice(content, chance, 16)
    return content[:begin] + chance.choice(source.words) + content[end if chance.random() < 0.5 else begin:]


def _splice(content: bytes, source: Source, chance: random.Random) -> bytes:
    other = chance.choice(source.seeds)
    return content[: chance.randrange(len(content) + 1)] + other[chance.randrange(len(other) + 1):]


def _number(content: bytes, _: Source, chance: random.Random) -> bytes:
    """A written number becomes an odd one."""
    found = list(_DIGITS.finditer(content[:LONGEST]))
    if not found:
        return content
    one = chance.choice(found)
    written = chance.choice(_WRITTEN) if chance.random() < 0.6 else str(chance.choice(_NUMBERS)).encode()
    return content[: one.start()] + written + content[one.end():]


def _binary(content: bytes, _: Source, chance: random.Random) -> bytes:
    """A number of one, two, four or eight bytes becomes an odd one; mostly near the beginning, where headers are."""
    form, width = chance.choice((("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8)))
    if len(content) < width:
        return content
    last = len(content) - width
    place = chance.randint(0, min(last, 40)) if chance.random() < 0.5 else chance.randint(0, last)
    return content[:place] + struct.pack(form, chance.choice(_NUMBERS) % 256**width) + content[place + width:]


def _nest(content: bytes, _: Source, chance: random.Random) -> bytes:
    place = chance.randrange(len(content) + 1)
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"? ", b""), (b"(", b")"), (b"{{", b"}}")))
    levels = chance.choice((2, 30, 70, 900, 5000))
    return content[:place] + opening * levels + b"1" + closing * levels + content[place:]


def _value(content: bytes, source: Source, chance: random.Random) -> bytes:
    """If it is JSON: one value anywhere in it becomes an odd one, moves, or gets another key."""
    begin, end = _json_part(content, chance)
    try:
        whole = json.loads(content[begin:end])
        holders = list(_holders(whole))
    except (ValueError, RecursionError):
        return _word(content, source, chance)
    if not holders:
        return content[:begin] + json.dumps(chance.choice(_VALUES)).encode() + content[end:]
    holder = chance.choice(holders)
    key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    what = chance.random()
    if what < 0.5:
        holder[key] = chance.choice(_VALUES)
    elif what < 0.7:
        other = chance.choice(holders)
        holder[key] = json.loads(json.dumps(chance.choice(list(other.values() if isinstance(other, dict) else other))))
    elif what < 0.85 and isinstance(holder, dict):
        holder[chance.choice(source.words).decode("utf-8", "replace")] = holder.pop(key)
    else:
        del holder[key]
    return content[:begin] + json.dumps(whole, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass") + content[end:]


def _json_part(content: bytes, chance: random.Random) -> tuple[int, int]:
    """One line, as in JSON lines, or all of it; the header of a safetensors file."""
    if content[8:9] == b"{" and content[:1] != b"{":
        return 8, 8 + min(int.from_bytes(content[:8], "little"), len(content) - 8)
    if b"\n" in content and chance.random() < 0.5:
        lines = content.split(b"\n")
        number = chance.randrange(len(lines))
        begin = sum(len(line) + 1 for line in lines[:number])
        return begin, begin + len(lines[number])
    return 0, len(content)


def _holders(value: Any) -> list[Any]:
    """All lists and objects in a value that hold something."""
    found, rest = [], [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict | list) and one:
            found.append(one)
            rest += one.values() if isinstance(one, dict) else one
    return found


def _slice(content: bytes, chance: random.Random, most: int) -> tuple[int, int]:
    begin = chance.randrange(len(content) + 1)
    return begin, min(len(content), begin + chance.randint(1, most))


EDITS: Final[tuple[Edit, ...]] = (
    _flip, _byte, _remove, _cut, _repeat, _word, _word, _splice, _number, _binary, _nest, _value, _value, _value, _value)
