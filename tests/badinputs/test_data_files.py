"""Broken data files, registries and folders, as `check` answers them: one line each. The answers are written by hand."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.badinputs.workspace import answer, assert_refused
from tunewright.selftest.bad_case import NATIVE, Case, case, every, folder, put, rows, written

GOOD = {"instruction": "say", "output": "yes"}
LINE = json.dumps(GOOD) + "\n"
ASK, SAY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
UTF8 = "save the file as UTF-8, for instance: iconv -f GB18030 -t UTF-8"


def link(name: str, to: str) -> Callable[[Path], object]:
    return lambda here: (here / name).symlink_to(to)


def pipe(name: str) -> Callable[[Path], object]:
    return lambda here: os.mkfifo(here / name)


def parquet(name: str, table: dict[str, list[Any]], keep: float = 1.0) -> Callable[[Path], object]:
    """A Parquet file by pyarrow, of which the first part is kept."""

    def spoil(here: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet as pq

        pq.write_table(pa.table(table), here / name)
        content = (here / name).read_bytes()
        (here / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def registry(**entry: Any) -> Callable[[Path], object]:
    return every(put("data/dataset_info.json", json.dumps({"x": entry})), put("data/a.jsonl", LINE))


def inside(*values: Any) -> Callable[[Path], object]:
    return rows("d.jsonl", *values)


FILES = (
    case("UTF-16 with mark", "d.jsonl: the text is UTF-16, UTF-8 wanted; convert it: iconv -f UTF-16 -t UTF-8 d.jsonl > new file",
         dataset="d.jsonl", spoil=put("d.jsonl", LINE.encode("utf-16"))),
    case("UTF-16 without mark", "d.csv: the text is UTF-16, UTF-8 wanted; convert it: iconv -f UTF-16 -t UTF-8 d.csv > new file",
         dataset="d.csv", spoil=put("d.csv", "human,assistant\na,b\n".encode("utf-16-le"))),
    case("UTF-32", "d.json: the text is UTF-16, UTF-8 wanted", dataset="d.json", spoil=put("d.json", f"[{LINE}]".encode("utf-32-be"))),
    case("GBK", f"d.csv:2: byte 16 (0xc4) is not UTF-8; {UTF8}", dataset="d.csv",
         spoil=put("d.csv", b"human,assistant\n" + "你,好\n".encode("gbk"))),
    case("NUL inside", "d.jsonl:2:17: not valid JSON: invalid control character", dataset="d.jsonl",
         spoil=put("d.jsonl", LINE + '{"instruction": "\0", "output": "b"}\n'.replace('"instruction": ', '"instruct":   '))),
    case("only NULs", "d.jsonl: the text is UTF-16", dataset="d.jsonl", spoil=put("d.jsonl", b"\0" * 64)),
    case("mark and nothing", "d.jsonl: the file holds no rows; put rows into it or take it out of the data set", dataset="d.jsonl",
         spoil=put("d.jsonl", b"\xef\xbb\xbf\n")),
    case("nested too deeply", "d.jsonl:2: nested too deeply", dataset="d.jsonl",
         spoil=put("d.jsonl", LINE + '{"instruction": ' + "[" * 200_000 + "]" * 200_000 + "}\n")),
    case("infinity", "d.jsonl:2: -Infinity is not JSON; write null or a string", dataset="d.jsonl",
         spoil=put("d.jsonl", LINE + '{"instruction": "a", "output": -Infinity}\n')),
    case("python literals", "d.jsonl:1:2: not valid JSON: expecting property name enclosed in double quotes", dataset="d.jsonl",
         spoil=put("d.jsonl", "{'instruction': 'a', 'output': 'b'}\n")),
    case("two objects in a line", "d.jsonl:1:41: more text after the object; one object per line wanted", dataset="d.jsonl",
         spoil=put("d.jsonl", LINE.strip() + " " + LINE)),
    case("key twice deep inside", "d.jsonl:1: the key `role` is there twice in one object", dataset="d.jsonl",
         spoil=put("d.jsonl", '{"messages": [{"role": "user", "role": "assistant", "content": "q"}]}\n')),
    case("array of arrays", "d.json:1: a row is a JSON object, found array; a file that is one array ends in .json", dataset="d.json",
         spoil=put("d.json", '[["a", "b"]]')),
    case("HTML", "d.json:1:1: an array of objects wanted", dataset="d.json", spoil=put("d.json", "<html>404</html>")),
    case("git LFS pointer", "d.jsonl:1:1: not valid JSON: expecting value", dataset="d.jsonl",
         spoil=put("d.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")),
    case("ragged CSV", 'd.csv:3: 3 fields, but the header has 2: human, assistant; put fields with a comma or a line break into "quotes"',
         dataset="d.csv", spoil=put("d.csv", "human,assistant\na,b\nc,d,e\n")),
    case("open quote", "d.csv:3: not valid CSV: unexpected end of data; check the quotes", dataset="d.csv",
         spoil=put("d.csv", 'human,assistant\na,"b\nc,d\n')),
    case("column twice", "d.csv:1: the column `human` is there twice", dataset="d.csv", spoil=put("d.csv", "human,human\na,b\n")),
    case("header only", "d.csv: the file holds no rows below its header", dataset="d.csv", spoil=put("d.csv", "human,assistant\n")),
    case("gz truncated", "d.jsonl.gz: the packed file is damaged or truncated: compressed file ended before the end-of-stream marker was "
         "reached; fetch it again", dataset="d.jsonl.gz", spoil=put("d.jsonl.gz", gzip.compress(LINE.encode() * 99)[:40])),
    case("gz in name only", "d.jsonl.gz: the packed file is damaged or truncated: not a gzipped file", dataset="d.jsonl.gz",
         spoil=put("d.jsonl.gz", LINE)),
    case("gz damaged", "d.jsonl.gz: the packed file is damaged or truncated: cRC check failed", dataset="d.jsonl.gz",
         spoil=put("d.jsonl.gz", gzip.compress(LINE.encode())[:-8] + struct.pack("<II", 1, len(LINE)))),
    case("bz2 in name only", "d.csv.bz2: the packed file is damaged or truncated: invalid data stream", dataset="d.csv.bz2",
         spoil=put("d.csv.bz2", "human,assistant\na,b\n")),
    case("xz in name only", "d.txt.xz: the packed file is damaged or truncated: input format not supported by decoder", dataset="d.txt.xz",
         spoil=put("d.txt.xz", "text\n")),
    case("bad line in gz", "d.jsonl.gz:2:2: not valid JSON", dataset="d.jsonl.gz",
         spoil=put("d.jsonl.gz", gzip.compress(LINE.encode() + b"{x}\n"))),
    case("zst", "d.jsonl.zst: the file is compressed; unpack it first: unzstd d.jsonl.zst", dataset="d.jsonl.zst",
         spoil=put("d.jsonl.zst", b"\x28\xb5\x2f\xfd")),
    case("zip", "d.zip: the file is compressed; unpack it first: unzip d.zip", dataset="d.zip", spoil=put("d.zip", b"PK\x03\x04")),
    case("gz of Parquet", "d.parquet.gz: unknown type `.gz`", dataset="d.parquet.gz", spoil=put("d.parquet.gz", gzip.compress(b"x"))),
    case("Parquet cut in half", "d.parquet: not a Parquet file, or truncated: it does not end in PAR1", dataset="d.parquet",
         spoil=parquet("d.parquet", {"instruction": ["a"], "output": ["b"]}, keep=0.5)),
    case("Parquet in name only", "d.parquet: not a Parquet file, or truncated", dataset="d.parquet", spoil=put("d.parquet", LINE)),
)

PLACES = (
    case("folder of sub-folders", "d: the folder holds no data files; name those of its sub-folders: d/**/*", dataset="d",
         spoil=put("d/below/a.jsonl", LINE)),
    case("folder named as a file", "d.jsonl: the folder holds no data files", dataset="d.jsonl", spoil=folder("d.jsonl")),
    case("link in a loop", "d.jsonl: a link to d.jsonl, which leads nowhere; mend the link", dataset="d.jsonl",
         spoil=link("d.jsonl", "d.jsonl")),
    case("link to nothing", "d.jsonl: a link to gone.jsonl, which leads nowhere; mend the link", dataset="d.jsonl",
         spoil=link("d.jsonl", "gone.jsonl")),
    case("pipe", "d.jsonl: is not a regular file; name a file of rows", dataset="d.jsonl", spoil=pipe("d.jsonl")),
    case("device", "d.jsonl: is not a regular file; name a file of rows", dataset="d.jsonl", spoil=link("d.jsonl", "/dev/zero")),
    case("pattern that matches nothing", "c.yaml:2: dataset: `d/*.jsonl` is not a name in data/dataset_info.json, a file or a folder",
         dataset="d/*.jsonl", spoil=folder("d")),
    case("pattern over types", "c.yaml:2: dataset: files of different types in one data set: `a.jsonl`, `b.csv`", dataset="d/*",
         spoil=every(put("d/a.jsonl", LINE), put("d/b.csv", "human,assistant\na,b\n"))),
    case("script in the registry", "data/dataset_info.json `x`: script_url: refused: it would run the code of the script; run the script",
         dataset="x", spoil=registry(script_url="x.py")),
    case("ranking that is no truth", "data/dataset_info.json `x`: ranking: true or false wanted, found string", dataset="x",
         spoil=registry(file_name="a.jsonl", ranking="true")),
    case("another file than registered", "data/dataset_info.json `x`: file_sha1: data/a.jsonl has ... fetch the file again", dataset="x",
         spoil=registry(file_name="a.jsonl", file_sha1="0" * 40)),
    case("name under two endings", "data: dataset: `r` may be `r.csv` or `r.jsonl`; write the name with its ending", dataset="r",
         spoil=every(put("data/r.csv", "a\nb\n"), put("data/r.jsonl", LINE))),
    case("a quirk that cannot be had", "c.yaml:7: data_compat: val-size-one: refused: it could only end in an error; take it out",
         data_compat="val-size-one"),
    case("a quirk misspelt", "c.yaml:7: data_compat: 'listdir-ordre' is not one of ... did you mean 'listdir-order'?",
         data_compat="listdir-ordre"),
)

ROWS = (
    case("types mixed", "d.jsonl:3: output: string wanted, found array", dataset="d.jsonl",
         spoil=inside(GOOD, GOOD, {"instruction": "a", "output": ["b"]})),
    case("formats mixed", "d.jsonl:2: instruction: missing; columns present: messages", dataset="d.jsonl",
         spoil=inside(GOOD, {"messages": [ASK, SAY]})),
    case("messages as text", "d.jsonl:2: messages: array wanted, found string", dataset="d.jsonl",
         spoil=inside({"messages": [ASK, SAY]}, {"messages": json.dumps([ASK, SAY])})),
    case("content a number", "d.jsonl:1: messages[1].content: string wanted, found integer 4", dataset="d.jsonl",
         spoil=inside({"messages": [ASK, {"role": "assistant", "content": 4}]})),
    case("content null", "d.jsonl:1: messages[1].content: string wanted, found null", dataset="d.jsonl",
         spoil=inside({"messages": [ASK, {"role": "assistant", "content": None}]})),
    case("arguments not JSON", "d.jsonl:1: messages[1].tool_calls[0].function.arguments: the string is not JSON: expecting value",
         dataset="d.jsonl", spoil=inside({"messages": [
             ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x=1"}}]}, SAY]})),
    case("tools not JSON", "d.jsonl:1: tools: the string is not JSON", dataset="d.jsonl",
         spoil=inside({"messages": [ASK, SAY], "tools": "[f]"})),
    case("half a weight", "d.jsonl:1: messages[1].weight: 0 or 1 wanted, found number 0.5", dataset="d.jsonl",
         spoil=inside({"messages": [ASK, {**SAY, "weight": 0.5}]})),
    case("an image", "d.jsonl:1: messages[0].content[0].type: only text parts can be trained, found 'image_url'", dataset="d.jsonl",
         spoil=inside({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, SAY]})),
    case("pairs in sft", "d.jsonl:1: stage sft trains on conversations, but these rows are pairs of answers; set stage: dpo or rm",
         dataset="d.jsonl", spoil=inside(PAIR)),
    case("feedback in sft", "d.jsonl:1: stage sft trains on conversations, but these rows are answers that are called good or bad; "
         "set stage: kto", dataset="d.jsonl", spoil=inside({"prompt": "q", "completion": "a", "label": False})),
    case("prompts in sft", "d.jsonl:1: stage sft trains on conversations, but these rows are prompts without answers", dataset="d.jsonl",
         spoil=inside({"prompt": "q"})),
    case("labels of another length", "d.jsonl:1: labels: 2 entries for 3 tokens", dataset="d.jsonl",
         spoil=inside({"input_ids": [1, 2, 3], "labels": [1, 2]})),
    case("labels shifted", "d.jsonl:1: labels[0]: 2 is neither -100 nor the token there, 1; labels stand at the place of their own token",
         dataset="d.jsonl", spoil=inside({"input_ids": [1, 2, 3], "labels": [2, 3, -100]})),
    case("ids below 0", "d.jsonl:1: input_ids[1]: -7 is no token id", dataset="d.jsonl",
         spoil=inside({"input_ids": [1, -7], "labels": [1, 2]})),
    case("ids without labels", "d.jsonl:1: labels: missing; columns present: input_ids; give labels", dataset="d.jsonl",
         spoil=inside({"input_ids": [1, 2]})),
    case("history of triples", "d.jsonl:1: history[0]: a pair of question and answer wanted, found 3 entries", dataset="d.jsonl",
         spoil=inside({**GOOD, "history": [["a", "b", "c"]]})),
    case("a pair without an answer", "d.jsonl:1: conversation[0].assistant: string wanted, found null", dataset="d.jsonl",
         spoil=inside({"conversation": [{"human": "q"}]})),
    case("empty row", "d.jsonl:1: no format fits the columns", dataset="d.jsonl", spoil=inside({})),
)


@pytest.mark.parametrize("one", [*FILES, *PLACES, *ROWS], ids=lambda one: one.name.replace(" ", "-"))
def test_data_file(one: Case, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text(written(NATIVE, one.settings))
    if one.spoil is not None:
        one.spoil(here)
    assert_refused(here, ["check", "c.yaml"], one, capsys)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that nobody can read is Linux's own memory")
def test_unreadable_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Root reads every file; its own memory at address 0 it cannot."""
    link("d.jsonl", "/proc/self/mem")(here)
    Path("c.yaml").write_text(written(NATIVE, {"dataset": "d.jsonl"}))
    assert answer(["check", "c.yaml"], capsys) == (2, ["error: d.jsonl: cannot be read: Input/output error"])


def test_there_are_enough() -> None:
    assert len({one.name for one in (*FILES, *PLACES, *ROWS)}) == len((*FILES, *PLACES, *ROWS)) >= 60


@pytest.mark.parametrize(("name", "content"), [
    ("d.jsonl.gz", gzip.compress(LINE.encode(), mtime=0)), ("d.jsonl", b"\xef\xbb\xbf" + LINE.encode()), ("d.ndjson", LINE.encode()),
    ("d.JSONL", LINE.replace("\n", "\r\n").encode())])
def test_unusual_but_whole(name: str, content: bytes, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is read without a word: packed files, marks, other endings."""
    put(name, content)(here)
    Path("c.yaml").write_text(written(NATIVE, {"dataset": name}))
    assert answer(["check", "c.yaml"], capsys) == (0, [])
