"""Headers of weights files and JSON files of a model that no writer writes are refused in one line, never followed.

Oracles: the `safetensors` and `gguf` packages write the good files, and each bad one is worked by hand from the format.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from fuzz.readers_of_files import small_gguf
from tunewright.errors import InputError
from tunewright.models.directory import read_json_object, read_tensor_header
from tunewright.models.gguf_header import BLOCKS, read_gguf_header


def safetensors(folder: Path, header: bytes, body: int = 8) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * body)
    return file


def entry(first: Any, last: Any, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [first, last], **changes}


def test_a_written_header_is_read(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros(0, np.int8), "c": np.zeros((), np.float64)}, tmp_path / "m.safetensors")
    header = read_tensor_header(tmp_path / "m.safetensors")
    assert {name: one["shape"] for name, one in header.items()} == {"a": [2, 3], "b": [0], "c": []}


@pytest.mark.parametrize(("header", "said"), [
    ([], "its header is not an object"),
    ({"a": 1}, "'a' has no dtype, shape and place"),
    ({"a": {"dtype": "F32", "shape": [1]}}, "'a' has no dtype, shape and place"),
    ({"a": entry("0", "8")}, "'a' has no dtype, shape and place"),
    ({"a": {**entry(0, 8), "data_offsets": [8]}}, "'a' has no dtype, shape and place"),
    ({"a": entry(0, 8, shape=[-1])}, "'a' has no dtype, shape and place"),
    ({"a": entry(0, 8, shape=[1] * 33)}, "'a' has no dtype, shape and place"),
    ({"a": entry(-8, 0), "b": entry(0, 8)}, "'a' has no dtype, shape and place"),
    ({"a": entry(0, 8), "b": entry(4, 8)}, "'b' lies at bytes 4 to 8, the tensor before it ends at 8"),
    ({"a": entry(4, 8)}, "'a' lies at bytes 4 to 8, the tensor before it ends at 0"),
    ({"a": entry(0, 4), "b": entry(4, 2)}, "'b' lies at bytes 4 to 2, the tensor before it ends at 4"),
])
def test_what_no_writer_writes(tmp_path: Path, header: Any, said: str) -> None:
    file = safetensors(tmp_path, json.dumps(header).encode())
    with pytest.raises(InputError) as caught:
        read_tensor_header(file)
    assert str(caught.value) == f"weights file damaged: {file}: {said}; fetch the file again"


@pytest.mark.parametrize("header", [b"[" * 200_000, b'{"a": ' + b"1" * 5000 + b"}", b"\xff{}"])
def test_headers_that_are_no_json(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(InputError, match="its header is not JSON"):
        read_tensor_header(safetensors(tmp_path, header))


@pytest.mark.parametrize(("text", "said"), [
    ('{"a": ' + "[" * 100_000, "nested deeper than 64 levels"),
    ('{"a": ' + "[" * 65 + "]" * 65 + "}", "nested deeper than 64 levels"),
    ('{"a": ' + "9" * 5000 + "}", "holds a number of thousands of digits"),
])
def test_json_that_no_writer_writes(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_json_object(file)
    assert str(caught.value) == f"{file}: {said}; the file is damaged or hostile: fetch it again"


def test_json_of_sixty_four_levels_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": ' + "[" * 63 + "]" * 63 + "}")
    assert list(read_json_object(tmp_path / "config.json")) == ["a"]


def test_a_written_gguf_header_is_read(tmp_path: Path) -> None:
    """Against the package's own reader."""
    small_gguf(tmp_path / "m.gguf")
    header, theirs = read_gguf_header(tmp_path / "m.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    assert header.architecture == "llama"
    assert header.shapes == {one.name: tuple(int(size) for size in reversed(one.shape)) for one in theirs.tensors}
    assert header.values["a.flag"] is True and header.values["a.rate"] == 0.5 and header.values["llama.context_length"] == 128
    assert {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()} == dict(BLOCKS)


@pytest.mark.parametrize(("place", "form", "value", "said"), [
    (0, "<I", 0, "is not a GGUF file"),
    (4, "<I", 1, "version 1 of the GGUF format"),
    (8, "<Q", 2**63, "9223372036854775808 tensors are said to be in"),
    (16, "<Q", 2**60, "1152921504606846976 entries are said to be in"),
    (24, "<Q", 2**40, "a name of 1099511627776 bytes"),
    (24 + 8 + len("general.architecture"), "<I", 99, "a value of type 99"),
    (24 + 8 + len("general.architecture") + 4, "<Q", 2**50, "1125899906842624 bytes wanted where"),
])
def test_hostile_numbers_in_a_gguf_header(tmp_path: Path, place: int, form: str, value: int, said: str) -> None:
    content = bytearray(small_gguf(tmp_path / "m.gguf"))
    struct.pack_into(form, content, place, value)
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_gguf_header(tmp_path / "m.gguf")


def test_every_truncation_of_a_gguf_file_is_refused(tmp_path: Path) -> None:
    content = small_gguf(tmp_path / "m.gguf")
    for length in range(len(content) - 32):  # the writer pads the last tensor
        (tmp_path / "m.gguf").write_bytes(content[:length])
        with pytest.raises(InputError):
            read_gguf_header(tmp_path / "m.gguf")
