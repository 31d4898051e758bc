"""What became of the rows of a stream, written down as they are read. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunewright.data.audit import Note, Tally, note_line
from tunewright.data.records import Origin
from tunewright.errors import InputError

FILE_NAME: Final = "stream_audit.jsonl"
"""Beside data_audit.jsonl, with the same lines."""

_JUDGED_FROM: Final = 100


class StreamAudit:
    """The notes of a stream, in the order in which its rows are first read. `path` is None on ranks that do not write."""

    def __init__(self, path: Path | None, max_dropped_fraction: float) -> None:
        self._path = path
        self._allowed = max_dropped_fraction
        self._tallies: dict[str, Tally] = {}
        self._seen = _Rows()

    def begin(self, told: int) -> None:
        """Keep the first `told` notes of the file: those that follow were made after the checkpoint, and will be made again."""
        if self._path is None:
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[:told] if told and self._path.exists() else []
        self._path.write_text("".join(lines), encoding="utf-8")
        for line in lines:
            fields = json.loads(line)
            name, note = str(fields["dataset"]), Note.from_json(fields)
            self._seen.add(name, note.origin)
            self._count(name, note)

    def add(self, notes: Sequence[Mapping[str, Any]]) -> int:
        """Write down the notes of rows that were not told of before, and say how many those are: after a resume only the rank that writes
        knows. Each is `Note.to_json` with the name of its `dataset`; all notes of a row come together."""
        found = self._new(notes)
        for name, note in found:
            self._count(name, note)
        if self._path is not None and found:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(note_line(name, note) for name, note in found)
        return len(found)

    def _new(self, notes: Sequence[Mapping[str, Any]]) -> list[tuple[str, Note]]:
        each = dict.fromkeys((str(fields["dataset"]), Note.from_json(fields)) for fields in notes)
        found = [(name, note) for name, note in each if not self._seen.has(name, note.origin)]
        for name, note in found:
            self._seen.add(name, note.origin)
        return found

    def check(self, slots: int, dropped: int, *, is_all: bool) -> None:
        """Raise `InputError` if more than the allowed part of the rows read so far was dropped; a few rows are judged only if they are
        all there are."""
        if not dropped or dropped <= self._allowed * slots or (slots < _JUDGED_FROM and not is_all):
            return
        named = ", ".join(f"{note.origin} ({note.reason})" for tally in self._tallies.values() for note in tally.named[:3])
        raise InputError(f"{dropped} of the first {slots} rows of the stream are unusable" + (f": {named}" if named else ""),
                         mend=f"mend the rows or raise max_dropped_fraction (now {self._allowed:g})")

    def summary(self) -> list[str]:
        """One line per data set and reason, with its first place."""
        return [f"{name}: {count} {action}: {reason} (first: {tally.first[action, reason]})"
                for name, tally in self._tallies.items() for (action, reason), count in tally.counts.most_common()]

    def _count(self, name: str, note: Note) -> None:
        self._tallies.setdefault(name, Tally(name)).add(note)


class _Rows:
    """Rows of files that were told of: one bit for each row up to the last of them."""

    def __init__(self) -> None:
        self._bits: dict[tuple[str, str], bytearray] = {}

    def has(self, name: str, origin: Origin) -> bool:
        """Whether the row, of the data set `name`, was added."""
        bits = self._bits.get((name, origin.file), b"")
        return origin.index // 8 < len(bits) and bool(bits[origin.index // 8] >> origin.index % 8 & 1)

    def add(self, name: str, origin: Origin) -> None:
        """Keep one row in mind."""
        bits = self._bits.setdefault((name, origin.file), bytearray())
        place = origin.index // 8
        if place >= len(bits):
            bits.extend(bytes(place + 1 - len(bits)))
        bits[place] |= 1 << origin.index % 8
