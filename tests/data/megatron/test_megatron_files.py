"""Megatron's two files. Oracles: bytes put together by hand from the description of the format; what was put in."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tunewright.data.megatron.layout import DTYPES, smallest_dtype
from tunewright.data.megatron.reader import open_tokens
from tunewright.data.megatron.writer import IndexedWriter
from tunewright.errors import InputError, StorageError, TunewrightError

# Three documents: [7 8 9] [] and [300, 1 2] of two sequences, as 16-bit numbers without sign (code 8), byte by byte.
TOKENS = bytes([7, 0, 8, 0, 9, 0, 44, 1, 1, 0, 2, 0])
INDEX = (
    b"MMIDIDX\x00\x00"
    b"\x01\x00\x00\x00\x00\x00\x00\x00"  # version
    b"\x08"                              # number format
    b"\x03\x00\x00\x00\x00\x00\x00\x00"  # sequences
    b"\x04\x00\x00\x00\x00\x00\x00\x00"  # entries of the document index
    b"\x03\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00")
DOCUMENTS = [[7, 8, 9], [], [300, 1, 2]]


def put(folder: Path, index: bytes = INDEX, tokens: bytes = TOKENS) -> Path:
    (folder / "t.idx").write_bytes(index)
    (folder / "t.bin").write_bytes(tokens)
    return folder / "t"


def documents(prefix: Path) -> list[list[int]]:
    found = open_tokens(prefix)
    return [found.document(number).tolist() for number in range(found.num_documents)]


def test_a_file_made_by_hand(tmp_path: Path) -> None:
    found = open_tokens(put(tmp_path))
    assert documents(put(tmp_path)) == DOCUMENTS
    assert [found.sequence(number).tolist() for number in range(3)] == [[7, 8, 9], [300], [1, 2]]
    assert (found.dtype, found.modes, found.unnamed_tokens, found.file) == (np.dtype("uint16"), None, 0, str(tmp_path / "t.bin"))


def test_the_writer_leaves_those_very_bytes(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "w", np.dtype("uint16")) as writer:
        writer.add([7, 8, 9])
        writer.add_document([])
        writer.add_document([[300], [1, 2]])
        assert (writer.num_documents, writer.num_tokens) == (3, 6)
    assert (tmp_path / "w.idx").read_bytes() == INDEX and (tmp_path / "w.bin").read_bytes() == TOKENS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.bin", "w.idx"]


def test_modes(tmp_path: Path) -> None:
    found = open_tokens(put(tmp_path, INDEX + bytes([0, 1, 255])))
    assert found.modes is not None and found.modes.tolist() == [0, 1, -1]
    with IndexedWriter(tmp_path / "w", np.dtype("uint16")) as writer:
        writer.add([7, 8, 9], mode=0)
        writer.add_document([])
        writer.add_document([[300], [1, 2]], modes=[1, -1])
    assert (tmp_path / "w.idx").read_bytes() == INDEX + bytes([0, 1, 255])


def test_sequences_anywhere_in_the_tokens(tmp_path: Path) -> None:
    """An index may leave tokens out, share them, and name them in any order: here bytes 6-8, 0-4 and 2-4 of 12."""
    index = INDEX[:34] + struct.pack("<3i3q", 1, 2, 1, 6, 0, 2) + INDEX[70:]
    assert documents(put(tmp_path, index)) == [[300], [], [7, 8, 8]]
    assert open_tokens(tmp_path / "t").unnamed_tokens == 3


@pytest.mark.parametrize("code", DTYPES)
def test_every_number_format(tmp_path: Path, code: int) -> None:
    """Codes and struct's letters from the description of the format."""
    letter = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 6: "d", 7: "f", 8: "H"}[code]
    tokens = struct.pack(f"<3{letter}", 1, 2, 100)
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQiqqq", 1, code, 1, 2, 3, 0, 0, 1)
    found = open_tokens(put(tmp_path, index, tokens))
    assert found.document(0).tolist() == [1, 2, 100]
    with IndexedWriter(tmp_path / "w", found.dtype) as writer:
        writer.add([1, 2, 100])
    assert ((tmp_path / "w.idx").read_bytes(), (tmp_path / "w.bin").read_bytes()) == (index, tokens)


ROWS = some.lists(some.lists(some.lists(some.integers(0, 100), max_size=5), max_size=3), max_size=8)


@given(rows=ROWS, dtype=some.sampled_from(list(DTYPES.values())), with_modes=some.booleans())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[list[list[int]]], dtype: np.dtype[np.generic],
                                 with_modes: bool) -> None:
    prefix = tmp_path_factory.mktemp("any") / "t"
    with IndexedWriter(prefix, dtype) as writer:
        for row in rows:
            writer.add_document(row, modes=[1] * len(row) if with_modes else None)
    found = open_tokens(prefix)
    assert documents(prefix) == [[token for sequence in row for token in sequence] for row in rows]
    assert [found.sequence(number).tolist() for number in range(len(found.lengths))] == [sequence for row in rows for sequence in row]
    assert (found.dtype, found.unnamed_tokens) == (dtype, 0)
    assert (found.modes is not None) == (with_modes and any(rows))


def test_the_format_that_is_chosen() -> None:
    """Megatron's border of 65,500."""
    assert [smallest_dtype(size).name for size in (300, 65499, 65500, 200000)] == ["uint16", "uint16", "int32", "int32"]


def packed(at: int, letter: str, number: int) -> bytes:
    """The index with another number at a place."""
    return INDEX[:at] + struct.pack(f"<{letter}", number) + INDEX[at + struct.calcsize(letter):]


AGAIN = "; write or copy both files anew"
BROKEN: dict[str, tuple[bytes, bytes, str]] = {
    "empty index": (b"", TOKENS, "t.idx: the file is empty" + AGAIN),
    "other file": (b'{"text": "a"}\n' * 9, TOKENS,
                   't.idx: not an index of Megatron: it begins with b\'{"text": \', not b\'MMIDIDX\\x00\\x00\'; '
                   "name the prefix of a .bin and its .idx"),
    "fairseq's index": (b"TNTIDX\0\0" + bytes(80), TOKENS, "t.idx: fairseq's older index, which Megatron no longer reads; "
                        "write the documents anew: tunewright data megatron"),
    "cut in the header": (INDEX[:20], TOKENS, "t.idx: cut off in its header: 20 of 34 bytes" + AGAIN),
    "version": (packed(9, "Q", 2), TOKENS, "t.idx: version 2 of the format, but only 1 is known" + AGAIN),
    "number format": (packed(17, "B", 9), TOKENS, "t.idx: number format 9, but only 1 to 8 are known" + AGAIN),
    "number format 0": (packed(17, "B", 0), TOKENS, "t.idx: number format 0, but only 1 to 8 are known" + AGAIN),
    "no entry": (packed(26, "Q", 0), TOKENS, "t.idx: the document index has no entry, not even that of its end" + AGAIN),
    "cut index": (INDEX[:-1], TOKENS, "t.idx: cut off: 101 bytes, but its header counts 3 sequences and 4 entries of documents, which take "
                  "102" + AGAIN),
    "senseless count": (packed(18, "Q", 2**62), TOKENS, f"t.idx: cut off: 102 bytes, but its header counts {2**62} sequences and 4 entries "
                        f"of documents, which take {34 + 12 * 2**62 + 32}" + AGAIN),
    "long index": (INDEX + b"\0", TOKENS, "t.idx: too long: 103 bytes, but its header counts 3 sequences and 4 entries of documents, which "
                   "take 102, or 105 with modes" + AGAIN),
    "length below 0": (packed(38, "i", -1), TOKENS, "t.idx: sequence 1 has -1 tokens" + AGAIN),
    "pointer below 0": (packed(54, "q", -2), TOKENS, "t.idx: sequence 1 begins at byte -2" + AGAIN),
    "pointer within a token": (packed(54, "q", 5), TOKENS, "t.idx: sequence 1 begins at byte 5, within a token of 2 bytes" + AGAIN),
    "pointer beyond": (packed(62, "q", 10), TOKENS, "t.bin: cut off: 12 bytes, but sequence 2 ends at byte 14" + AGAIN),
    "cut tokens": (INDEX, TOKENS[:-2], "t.bin: cut off: 10 bytes, but sequence 2 ends at byte 12" + AGAIN),
    "cut within a token": (INDEX, TOKENS[:-1], "t.bin: 11 bytes are no whole number of tokens of 2 bytes: cut off" + AGAIN),
    "empty tokens": (INDEX, b"", "t.bin: cut off: 0 bytes, but sequence 0 ends at byte 6" + AGAIN),
    "first document": (packed(70, "q", 1), TOKENS, "t.idx: the documents go from sequence 1 to 3, but the sequences from 0 to 3" + AGAIN),
    "last document": (packed(94, "q", 2), TOKENS, "t.idx: the documents go from sequence 0 to 2, but the sequences from 0 to 3" + AGAIN),
    "documents that go back": (packed(78, "q", 2), TOKENS, "t.idx: document 1 ends at sequence 1, before it begins at 2" + AGAIN),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    index, tokens, expected = BROKEN[case]
    put(Path(), index, tokens)
    with pytest.raises(InputError) as caught:
        open_tokens(Path("t"))
    assert caught.value.line() == expected


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path())
    Path("t.idx").rename("u.idx")
    said = []
    for name in ("t", "u", "v"):
        with pytest.raises(InputError) as caught:
            open_tokens(Path(name))
        said.append(caught.value.line())
    assert said == [f"t.idx: the file is missing, its partner is there{AGAIN}", f"u.bin: the file is missing, its partner is there{AGAIN}",
                    ".: neither v.idx nor v.bin is there; name what the two files have in common, without .bin and .idx"]


def test_another_process_opens_the_files_itself(tmp_path: Path) -> None:
    """What is sent to it is a path, not the tokens."""
    found = open_tokens(put(tmp_path))
    again, arguments = found.__reduce__()
    assert arguments == (tmp_path / "t",) and again(*arguments).document(2).tolist() == [300, 1, 2]


def test_digest(tmp_path: Path) -> None:
    """Another token, or another border of documents, is another digest; a copy is not."""
    first = open_tokens(put(tmp_path)).digest()
    for name, index, tokens in (("a", INDEX, TOKENS), ("b", packed(78, "q", 0), TOKENS), ("c", INDEX, TOKENS[:-2] + b"\3\0")):
        (tmp_path / name).mkdir()
        assert (open_tokens(put(tmp_path / name, index, tokens)).digest() == first) == (name == "a")


def over_the_range(writer: IndexedWriter) -> None:
    writer.add([1, 65536])


def full_disk(writer: IndexedWriter) -> None:
    writer._staged[1].mkdir()  # so that the index cannot be written


@pytest.mark.parametrize(("spoil", "message"), [
    (over_the_range, "t: document 1: token id 65536 does not fit uint16 (0 to 65535); choose a wider number format"),
    (full_disk, ".t.idx.new: cannot write: Is a directory; make room, or name another --output"),
])
def test_a_failure_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[IndexedWriter], None],
                                        message: str) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path())
    with pytest.raises(TunewrightError) as caught, IndexedWriter(Path("t"), np.dtype("uint16")) as writer:
        writer.add([5])
        spoil(writer)
    assert caught.value.line() == message
    assert documents(Path("t")) == DOCUMENTS and not Path(".t.bin.new").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file: cannot write: File exists"), IndexedWriter(tmp_path / "file" / "t", np.dtype("uint16")):
        pass
