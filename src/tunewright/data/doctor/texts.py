"""Checks of the characters of a row, whatever its language. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tunewright.data.control_tokens import literal_pattern
from tunewright.data.doctor.row_checks import RowCheck
from tunewright.data.doctor.seen import Seen

_SHAPES: Final = re.compile(
    r"<\|[A-Za-z][\w ]{0,30}\|>|<｜[^｜<>\s]{1,40}｜>|</s>|<(?:bos|eos|pad|unk)>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
"""What control tokens look like where no tokenizer says which they are."""

# C0 and C1 controls, zero-width space, marks that reorder text, byte-order mark, interlinear marks, tags. Joiners (U+200C, U+200D) and
# single direction marks are left out: Persian, Indian scripts and emoji need them.
_UNSEEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb"
                            "\U000e0001\U000e0020-\U000e007f]")

_AFTER: Final = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"  # bytes 0x80 to 0xbf, read as cp1252 or Latin-1
_MOJIBAKE: Final = re.compile(f"[ÂÃÄÅÎÏÐÑØÙ]{_AFTER}|[à-ï]{_AFTER}{{2}}|ð{_AFTER}{{3}}")
_SURE: Final = re.compile("ï»¿|ï¿½|â€[™œ“”¦˜]|锟斤拷|烫烫烫")
_ENTITY: Final = re.compile(r"&(?:lt|gt|amp|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});")
_BROKEN_LINE: Final = "\\n"


def control_tokens(literals: Sequence[str]) -> RowCheck:
    """Control tokens of the tokenizer and the template in what people wrote; where none are known, what looks like one."""
    known = bool(literals)
    pattern = literal_pattern(literals) if known else _SHAPES
    starts = tuple({text[0] for text in literals}) if known else ("<", "[")

    def look(seen: Seen) -> str | None:
        if not any(start in seen.joined for start in starts):
            return None
        return _where(seen, pattern, shown=True)

    what = "hold control tokens in their text" if known else "hold what looks like a control token in their text"
    return RowCheck("control-token", "warning", what, "take them out, unless the text is about them: conversations keep them as text", look)


def replacement_character(seen: Seen) -> str | None:
    """U+FFFD: a character that an earlier program could not decode, and is lost."""
    if "\ufffd" not in seen.joined:
        return None
    index = next(index for index, text in enumerate(seen.texts) if "\ufffd" in text)
    return f"{seen.joined.count(chr(0xFFFD))} in all, first in {seen.label(index)}"


def mojibake(seen: Seen) -> str | None:
    """UTF-8 that was read as a Western encoding: two such pairs in a row, or one that is nothing else."""
    if seen.joined.isascii():
        return None
    found = _SURE.search(seen.joined)
    if found is None:
        pairs = _MOJIBAKE.finditer(seen.joined)
        found = next(pairs, None)
        if found is None or next(pairs, None) is None:
            return None
    return f"`{found.group()}`{_repaired(found.group())}"


def unseen_character(seen: Seen) -> str | None:
    """A character that is not shown, or that changes how others are shown."""
    if seen.joined.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():  # much faster, and true of nearly every row
        return None
    found = _UNSEEN.search(seen.joined)
    if found is None:
        return None
    index = next(index for index, text in enumerate(seen.texts) if _UNSEEN.search(text))
    return f"U+{ord(found.group()):04X} in {seen.label(index)}"


def escaped_line_breaks(seen: Seen) -> str | None:
    r"""Line breaks written as `\n` twice or more in a text that has no real one."""
    if _BROKEN_LINE not in seen.joined:
        return None
    for index, text in enumerate(seen.texts):
        if text.count(_BROKEN_LINE) > 1 and "\n" not in text:
            return seen.label(index)
    return None


def html_entities(seen: Seen) -> str | None:
    """Text that was escaped for a web page and not turned back."""
    if "&" not in seen.joined:
        return None
    return _where(seen, _ENTITY, shown=True)


def _where(seen: Seen, pattern: re.Pattern[str], *, shown: bool) -> str | None:
    for index, text in enumerate(seen.texts):
        found = pattern.search(text)
        if found is not None:
            return f"`{found.group()}` in {seen.label(index)}" if shown else seen.label(index)
    return None


def _repaired(text: str) -> str:
    """` for ...`, where the mistake can be turned back."""
    for encoding in ("cp1252", "latin-1"):
        try:
            return f" for `{text.encode(encoding).decode('utf-8')}`"
        except UnicodeError:
            continue
    return ""


CHECKS: Final = (
    RowCheck("replacement-character", "warning", "hold U+FFFD, a character that was lost before",
             "convert the original file again, with its right encoding", replacement_character),
    RowCheck("mojibake", "warning", "look like UTF-8 that was read in another encoding", "convert the original file again", mojibake),
    RowCheck("unseen-character", "warning", "hold control, zero-width or direction characters", "take them out", unseen_character),
    RowCheck("escaped-line-break", "note", "write line breaks as backslash and n", "turn them into line breaks, if they are not meant",
             escaped_line_breaks),
    RowCheck("html-entity", "note", "hold HTML entities", "unescape the text, unless it is HTML", html_entities),
)
