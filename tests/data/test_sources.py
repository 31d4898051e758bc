"""Files, folders, registries and mappings to rows; every bad input answers with one whole line."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewright.data.files import DataFile, read_head, read_rows
from tunewright.data.formats.layout import layout
from tunewright.data.records import Origin
from tunewright.data.sources import Settled, locate, outcomes, rows, settle
from tunewright.data.text_files import decoded_head
from tunewright.errors import InputError

GOOD = '{"instruction": "a", "output": "b"}\n'


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def everything(name: str) -> list[tuple[dict[str, object], Origin]]:
    return [(row.values, row.origin) for row in rows(locate(name, Path("data")))]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in caught.value.line()
    return caught.value.line()


# Oracle: the expected rows and lines are written out by hand beside the text of the file.
READ = {
    "jsonl, blank line": ("a.jsonl", '{"x": 1}\n\n{"x": "é\u2028"}', [({"x": 1}, 0, 1), ({"x": "é\u2028"}, 1, 3)]),
    "jsonl with mark": ("a.jsonl", b'\xef\xbb\xbf{"x": 1}\r\n', [({"x": 1}, 0, 1)]),
    "array on lines": ("a.json", '[\n {"x": 1},\n {"x":\n 2}, {"x": 3}\n]\n',
                       [({"x": 1}, 0, 2), ({"x": 2}, 1, 3), ({"x": 3}, 2, 4)]),
    "array on one line": ("a.json", '[{"x": 1}, {"x": 2}]', [({"x": 1}, 0, 1), ({"x": 2}, 1, 1)]),
    "array with mark": ("a.json", b'\xef\xbb\xbf [{"x": 1}]', [({"x": 1}, 0, 1)]),
    "lines in .json": ("a.json", '{"x": 1}\n{"x": 2}\n', [({"x": 1}, 0, 1), ({"x": 2}, 1, 2)]),
    "surrogate pair": ("a.jsonl", '{"x": "\\ud83d\\ude00"}', [({"x": "\U0001f600"}, 0, 1)]),
    "csv with breaks": ("a.csv", 'q,a\n"one, ""two""\nthree",4\n5,\n',
                        [({"q": 'one, "two"\nthree', "a": "4"}, 0, 2), ({"q": "5", "a": ""}, 1, 4)]),
    "csv with mark": ("a.csv", b'\xef\xbb\xbfq\r\n1\r\n', [({"q": "1"}, 0, 2)]),
    "txt": ("a.txt", "one\n\n two \n", [({"text": "one"}, 0, 1), ({"text": " two "}, 1, 3)]),
}


@pytest.mark.parametrize("case", READ)
def test_rows_and_their_lines(case: str) -> None:
    name, content, expected = READ[case]
    write(name, content)
    assert everything(name) == [(values, Origin(name, index, line)) for values, index, line in expected]


# Oracle: places counted by hand.
BROKEN = {
    "empty": ("a.jsonl", "", "a.jsonl: the file is empty; put rows into it or take it out of the data set"),
    "empty array": ("a.json", " [ ]", "a.json: the file holds no rows; put rows into it or take it out of the data set"),
    "only blank lines": ("a.jsonl", "\n \n", "a.jsonl: the file holds no rows; put rows into it or take it out of the data set"),
    "bad line 7": ("a.jsonl", GOOD * 6 + '{"x" 1}\n', "a.jsonl:7:6: not valid JSON: expecting ':' delimiter"),
    "cut line": ("a.jsonl", GOOD + '{"x": "ab', "a.jsonl:2:7: not valid JSON: unterminated string, the text ends in the middle of a row"),
    "two on a line": ("a.jsonl", '{"x": 1} {"x": 2}',
                      "a.jsonl:1:10: more text after the object; one object per line wanted"),
    "array in jsonl": ("a.jsonl", "[1]", "a.jsonl:1: a row is a JSON object, found array; a file that is one array ends in .json"),
    "number": ("a.jsonl", GOOD + "7", "a.jsonl:2: a row is a JSON object, found integer 7"),
    "NaN": ("a.jsonl", GOOD + '{"x": NaN}', "a.jsonl:2: NaN is not JSON; write null or a string"),
    "infinity": ("a.json", '[\n{"x": -Infinity}]', "a.json:2: -Infinity is not JSON; write null or a string"),
    "key twice": ("a.jsonl", '{"x": {"y": 1, "y": 2}}', "a.jsonl:1: the key `y` is there twice in one object"),
    "half a pair": ("a.jsonl", GOOD + '{"x": ["\\uD83D"]}',
                    "a.jsonl:2: \\ud83d is half of a surrogate pair, not a character"),
    "nested": ("a.jsonl", '{"x": ' + "[" * 100_000, "a.jsonl:1: nested too deeply"),
    "cut array in row": ("a.json", '[\n {"x": 1},\n {"x": "a',
                         "a.json:3:8: not valid JSON: unterminated string, the text ends in the middle of a row"),
    "cut array in word": ("a.json", '[{"x": tr', "a.json:1:8: not valid JSON: expecting value, the text ends in the middle of a row"),
    "cut array after row": ("a.json", '[\n {"x": 1}',
                            "a.json:2:10: the file ends inside the array: it looks truncated"),
    "comma missing": ("a.json", '[\n {"x": 1}\n {"x": 2}]', "a.json:3:2: `,` or `]` wanted after a row"),
    "comma too many": ("a.json", '[{"x": 1},\n]', "a.json:2:1: not valid JSON: expecting value"),
    "text after array": ("a.json", '[{"x": 1}]\nx', "a.json:2:1: more text after the end of the array"),
    "one object": ("a.json", '{\n "x": 1}', "a.json:1:2: not valid JSON: expecting property name enclosed in double quotes, "
                   "the text ends in the middle of a row; a .json file holds one array of objects, or one whole object per line"),
    "not JSON": ("a.json", "x", "a.json:1:1: an array of objects wanted"),
    "invalid UTF-8": ("a.jsonl", GOOD.encode() + b'{"x": "\xff"}', "a.jsonl:2: byte 43 (0xff) is not UTF-8; "
                      "save the file as UTF-8, for instance: iconv -f GB18030 -t UTF-8"),
    "invalid in array": ("a.json", b'[\n\n"\xe4\xbd"]', "a.json:3: byte 4 (0xe4) is not UTF-8; "
                         "save the file as UTF-8, for instance: iconv -f GB18030 -t UTF-8"),
    "UTF-16": ("a.txt", "word".encode("utf-16"), "a.txt: the text is UTF-16, UTF-8 wanted; "
               "convert it: iconv -f UTF-16 -t UTF-8 a.txt > new file"),
    "UTF-16 without mark": ("a.csv", "q,a\n".encode("utf-16-le"), "a.csv: the text is UTF-16, UTF-8 wanted; "
                            "convert it: iconv -f UTF-16 -t UTF-8 a.csv > new file"),
    "csv fields": ("a.csv", "q,a\n1,2\n3\n", 'a.csv:3: 1 fields, but the header has 2: q, a; '
                   'put fields with a comma or a line break into "quotes"'),
    "csv quote": ("a.csv", 'q\n"a"b\n', "a.csv:2: not valid CSV: ',' expected after '\"'; check the quotes"),
    "csv open quote": ("a.csv", 'q\n"a\n', "a.csv:2: not valid CSV: unexpected end of data; check the quotes"),
    "csv column twice": ("a.csv", "q,q\n1,2\n", "a.csv:1: the column `q` is there twice"),
    "csv nameless": ("a.csv", "q,\n1,2\n", "a.csv:1: a column has no name; the first line of a CSV file names its columns"),
    "csv header only": ("a.csv", "q,a\n", "a.csv: the file holds no rows below its header"),
    "not Parquet": ("a.parquet", "PAR1 no", "a.parquet: not a readable Parquet file: "
                    "Parquet file size is 7 bytes, smaller than the minimum file footer (8 bytes)"),
    "empty Parquet": ("a.parquet", "", "a.parquet: the file is empty; put rows into it or take it out of the data set"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case: str) -> None:
    name, content, expected = BROKEN[case]
    write(name, content)
    assert refusal(lambda: everything(name)) == expected


ROWS = st.lists(st.dictionaries(st.text(max_size=3), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4), max_size=3), min_size=1, max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.sampled_from([None, 0, 2]), st.booleans())
def test_round_trip_of_json(values: list[dict[str, object]], indent: int | None, ascii_only: bool) -> None:
    """Oracle: json.dumps writes, and the lines are counted in what it wrote."""
    texts = [json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values]
    write("a.json", "[\n" + ",\n".join(texts) + "\n]")
    lines = [2 + sum(text.count("\n") + 1 for text in texts[:index]) for index in range(len(texts))]
    assert everything("a.json") == [(value, Origin("a.json", index, line))
                                    for index, (value, line) in enumerate(zip(values, lines, strict=True))]
    write("a.jsonl", "".join(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in values))
    assert [value for value, _ in everything("a.jsonl")] == values


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1), min_size=1, max_size=5))
def test_round_trip_of_csv(values: list[str]) -> None:
    """Oracle: the csv module writes, every field in quotes."""
    with Path("a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["q", "a"], *([value, "x"] for value in values)])
    assert [row for row, _ in everything("a.csv")] == [{"q": value, "a": "x"} for value in values]


def test_mark_before_a_character_that_the_head_divides() -> None:
    write("a.json", b'\xef\xbb\xbf["' + "é".encode() * 3000)
    assert decoded_head(Path("a.json"), 4096) == '["' + "é" * 2045
    assert decoded_head(Path("a.json"), 4095) == '["' + "é" * 2045


def test_first_row_may_be_longer_than_the_head() -> None:
    write("a.json", json.dumps([{"text": "x" * (2 << 20)}]))
    assert settled("a.json", "pt").layout == layout("text", {"prompt": "text"})


def test_long_csv_field() -> None:
    """The csv module's default limit of 131,072 characters does not apply."""
    write("a.csv", "q\n" + "x" * 200_000 + "\n")
    assert everything("a.csv")[0][0] == {"q": "x" * 200_000}


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow"])
def test_arrow_tables(name: str) -> None:
    """Oracle: pyarrow writes what is read."""
    import pyarrow as pa
    from pyarrow import ipc, parquet

    table = pa.Table.from_pylist([{"q": "one", "n": [1]}, {"q": None, "n": []}])
    if name == "a.parquet":
        parquet.write_table(table, name)
    else:
        with (ipc.new_file if name == "file.arrow" else ipc.new_stream)(name, table.schema) as sink:
            sink.write_table(table)
    assert everything(name) == [({"q": "one", "n": [1]}, Origin(name, 0)), ({"q": None, "n": []}, Origin(name, 1))]
    assert str(everything(name)[1][1]) == f"{name} row 2"


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow"])
def test_keys_that_arrow_adds_are_taken_out(name: str) -> None:
    """Oracle: the rows before pyarrow gave each the keys of the other. Columns keep their null."""
    import pyarrow as pa
    from pyarrow import ipc, parquet

    call = [{"function": {"name": "f", "arguments": {"x": 1}}}]
    rows = [{"messages": [{"role": "assistant", "content": "", "tool_calls": call}],
             "tools": [{"name": "f", "parameters": {"x": {"type": "a"}}}]},
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": {"y": [None]}}}]}],
             "tools": [{"name": "g", "parameters": {"y": {"type": "b"}}}]},
            {"messages": [{"role": "user", "content": "q"}], "tools": None}]
    table = pa.Table.from_pylist(rows)
    assert table.to_pylist()[1]["tools"] == [{"name": "g", "parameters": {"x": None, "y": {"type": "b"}}}]
    if name == "a.parquet":
        parquet.write_table(table, name)
    else:
        with ipc.new_file(name, table.schema) as sink:
            sink.write_table(table)
    assert [values for values, _ in everything(name)] == rows


def test_folder_is_read_in_sorted_order_and_runs_nothing() -> None:
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl", "sub/c.jsonl"):
        write(f"set/{name}", f'{{"from": "{name}"}}\n')
    write("set/set.py", "raise SystemExit('a script in a data folder ran')\n")
    write("set/dataset_info.json", "{}")
    assert [values["from"] for values, _ in everything("set")] == ["a.jsonl", "b.jsonl"]


def test_pattern() -> None:
    write("set/b.jsonl", '{"x": 2}\n')
    write("set/a.jsonl", '{"x": 1}\n')
    assert [values["x"] for values, _ in everything("set/*.jsonl")] == [1, 2]


REGISTRY = {
    "one": {"file_name": "one.jsonl"},
    "two": {"file_name": "one.jsonl", "formatting": "sharegpt", "columns": {"system": "sys"},
            "tags": {"user_tag": "user"},
            "num_samples": 5, "split": "train", "ranking": False, "subset": None},
    "deep": {"file_name": "one.jsonl", "folder": "inner"},
    "typo": {"file_name": "one.jsonl", "format": "sharegpt"},
    "column typo": {"file_name": "one.jsonl", "columns": {"promt": "x"}},
    "tag typo": {"file_name": "one.jsonl", "formatting": "sharegpt", "tags": {"role": "x"}},
    "formatting typo": {"file_name": "one.jsonl", "formatting": "sharegtp"},
    "pairs": {"file_name": "one.jsonl", "formatting": "table", "ranking": True},
    "no pairs": {"file_name": "one.jsonl", "ranking": False, "columns": {"chosen": "a", "rejected": "b"}},
    "ranking": {"file_name": "one.jsonl", "ranking": "yes"},
    "script": {"script_url": "org/name", "file_name": "one.jsonl"},
    "other hub": {"om_hub_url": "org/name"},
    "gone": {"file_name": "gone.jsonl"},
    "nameless": {"formatting": "alpaca"},
    "count": {"file_name": "one.jsonl", "num_samples": 0},
    "image": {"file_name": "one.jsonl", "columns": {"images": "image"}},
    "sha": {"file_name": "one.jsonl", "file_sha1": "0" * 40},
    "test": {"file_name": "one.jsonl", "split": "test"},
    "slice": {"file_name": "one.jsonl", "split": "train[:10%]"},
    "slice of a hub": {"hf_hub_url": "org/name", "split": "train[-100:]"},
    "subset": {"file_name": "one.jsonl", "subset": "en"},
    "text": "one.jsonl",
    "number": {"file_name": 7},
}


@pytest.fixture
def registry() -> None:
    write("data/dataset_info.json", json.dumps(REGISTRY))
    write("data/one.jsonl", GOOD)
    write("data/inner/one.jsonl", GOOD)


@pytest.mark.usefixtures("registry")
def test_registered_sets() -> None:
    """Keys that are not given keep their default although others are given (LLaMA-Factory's README, not its code)."""
    one, two, deep = (locate(name, Path("data")) for name in ("one", "two", "deep"))
    assert (one.name, one.files, one.num_samples) == ("one", (DataFile(Path("data/one.jsonl"), "jsonl"),), None)
    assert one.layout == layout("alpaca")
    assert two.layout is not None
    assert two.num_samples == 5
    assert two.layout.columns == {"messages": "conversations", "system": "sys"}
    assert two.layout.tags == {"role_tag": "from", "content_tag": "value", "user_tag": "user", "assistant_tag": "gpt",
                               "observation_tag": "observation", "function_tag": "function_call",
                               "system_tag": "system"}
    assert deep.files[0].path == Path("data/inner/one.jsonl")


SLICES = "set max_samples for the first rows or num_samples for some at random, or put those rows into a file of their own"
REFUSED = {
    "typo": "unknown key `format`; did you mean `formatting`?",
    "column typo": "unknown key `promt`; did you mean `prompt`?",
    "tag typo": "unknown key `role`; did you mean `role_tag`?",
    "formatting typo": "formatting: unknown value `sharegtp`; did you mean `sharegpt`?",
    "pairs": "ranking: table has no pairs of answers; set formatting to alpaca, sharegpt or openai, or take ranking out",
    "no pairs": "ranking: false, but columns names the answers of pairs; set ranking: true, or take them out",
    "ranking": "ranking: true or false wanted, found string",
    "script": "script_url: refused: it would run the code of the script; "
              "run the script yourself, save its rows as JSONL and set file_name",
    "other hub": "om_hub_url: the Modelers hub cannot be read; download the data and set file_name",
    "gone": "file_name: `gone.jsonl` does not exist; give the path of a file or folder",
    "nameless": "file_name is missing; name the file or folder that holds the rows",
    "count": "num_samples: a whole number from 1 on wanted, found integer 0",
    "image": "columns.images: images, videos and audio cannot be trained",
    "sha": "file_sha1: data/one.jsonl has eebd125ed7d1..., not 000000000000...; fetch the file again, or take file_sha1 out",
    "test": "split: a local file has the split `train` only, found 'test'; put the split into a file of its own",
    "slice": f"split: `train[:10%]` is a slice, which is not taken; {SLICES}",
    "slice of a hub": f"split: `train[-100:]` is a slice, which is not taken; {SLICES}",
    "subset": "subset: a local file has no subsets; put the subset into a file of its own",
    "text": "an object wanted, found string",
    "number": "file_name: string wanted, found integer 7",
}


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_registrations(name: str) -> None:
    inside = {"column typo": ".columns", "tag typo": ".tags"}.get(name, "")
    assert refusal(lambda: locate(name, Path("data"))) == f"data/dataset_info.json `{name}`{inside}: {REFUSED[name]}"


@pytest.mark.usefixtures("registry")
def test_unknown_name_and_broken_registry() -> None:
    assert refusal(lambda: locate("nameles", Path("data"))) == (
        "dataset: `nameles` is not a name in data/dataset_info.json, a file or a folder; did you mean `nameless`?")
    assert refusal(lambda: locate("data/on.jsonl", Path("data"), key="eval_dataset")) == (
        "eval_dataset: `data/on.jsonl` is not a name in data/dataset_info.json, a file or a folder; "
        "did you mean `data/one.jsonl` or `one.jsonl`?")
    assert refusal(lambda: locate("data/one.jsonl[:10%]", Path("data"))) == (
        f"dataset: `data/one.jsonl[:10%]` ends in a slice, which is not taken; {SLICES}")
    write("data/dataset_info.json", '{"one": {"file_name": "x"},\n "one": {}}')
    assert refusal(lambda: locate("one", Path("data"))) == (
        "data/dataset_info.json:1: the key `one` is there twice in one object")
    write("data/dataset_info.json", '{"one":\n {"file_name": "x",}}')
    assert refusal(lambda: locate("one", Path("data"))).startswith("data/dataset_info.json:2:")
    write("data/dataset_info.json", "[]")
    assert refusal(lambda: locate("one", Path("data"))) == (
        "data/dataset_info.json: an object from names to data sets wanted, found array")


@pytest.mark.parametrize("name", ["t", "t.bin", "t.idx", "./t"])
def test_files_of_megatron_are_known_when_they_are_taken_for_rows(name: str) -> None:
    """Beside the working directory and in dataset_dir. The two files as Megatron's tools name them; a lone .bin is nothing of theirs."""
    write("t.bin", bytes([1, 0]))
    write("t.idx", b"MMIDIDX\x00\x00" + bytes(25))
    what = f"{name}: a file of Megatron's tokens, not of rows" if name.startswith("t.") else (
        f"dataset: `{name}` is the prefix of Megatron's files of tokens, not of rows")
    mend = "set data_manager_type: mg and stage: pt"
    assert refusal(lambda: locate(name, Path("data"))) == f"{what}; {mend}"
    Path("data").mkdir()
    for file in ("t.bin", "t.idx"):
        Path(file).rename(f"data/{file}")
    assert refusal(lambda: locate("t", Path("data"))) == f"dataset: `t` is the prefix of Megatron's files of tokens, not of rows; {mend}"
    Path("data/t.idx").unlink()
    assert refusal(lambda: locate("t.bin", Path("data"))).startswith("data/t.bin: unknown type `.bin`; types: ")


def test_weights_without_megatrons_files() -> None:
    """What a list of weights and prefixes begins with."""
    assert refusal(lambda: locate("0.3", Path("data"))) == (
        "dataset: `0.3` is a number: only sets of Megatron's files are weighed there; set data_manager_type: mg, or for rows mix_strategy: "
        "interleave_over and interleave_probs")


def test_rows_of_steps_are_named() -> None:
    """TRL's stepwise supervision, which would else be columns that nobody knows."""
    write("s.jsonl", '{"prompt": "p", "completions": ["a", "b"], "labels": [true, false]}\n')
    assert refusal(lambda: settle(locate("s.jsonl", Path("data")), "sft")) == (
        "s.jsonl:1: steps with a mark each (completions, labels) train process reward models, which are not trained here; write a row for "
        "each step, with prompt, completion and label, and set stage: kto")


def test_unknown_types_and_mixed_folders() -> None:
    write("a.yaml", "x")
    assert refusal(lambda: locate("a.yaml", Path("data"))) == (
        "a.yaml: unknown type `.yaml`; types: .json, .jsonl, .ndjson, .csv, .txt, .parquet, .arrow")
    write("set/a.csv", "x")
    write("set/b.jsonl", "x")
    assert refusal(lambda: locate("set", Path("data"))) == (
        "dataset: files of different types in one data set: `a.csv`, `b.jsonl`; name the files as data sets of their own")
    Path("none").mkdir()
    assert refusal(lambda: locate("none", Path("data"))) == (
        "none: the folder holds no data files; types: .json, .jsonl, .ndjson, .csv, .txt, .parquet, .arrow")


def settled(spec: str | dict[str, object], stage: str = "sft") -> Settled:
    return settle(locate(spec, Path("data")), stage)


DETECTED = {
    "alpaca": ('{"instruction": "a", "input": "", "output": "b", "id": 1}',
               "alpaca (prompt=instruction, query=input, response=output, "
               "history=history, system=system, tools=tools), detected from the first row; columns not read: id"),
    "question": ('{"question": "a", "answer": "b"}',
                 "alpaca (prompt=question, query=input, response=answer, history=history, "
                 "system=system, tools=tools), detected from the first row"),
    "sharegpt": ('{"conversations": [{"from": "human", "value": "x"}]}',
                 "sharegpt (messages=conversations, system=system, tools=tools), detected from the first row"),
    "openai": ('{"messages": [{"role": "user", "content": "x"}]}',
               "openai (messages=messages, tools=tools, system=system), detected from the first row"),
    "openai in conversations": ('{"conversations": [{"role": "user", "content": "x"}]}',
                                "openai (messages=conversations, tools=tools, system=system), detected from the first row"),
    "prompt and completion": ('{"prompt": "a", "completion": "b"}',
                              "prompt_completion (prompt=prompt, response=completion, tools=tools, "
                              "system=system), detected from the first row"),
    "firefly": ('{"conversation": [{"human": "a", "assistant": "b"}], "category": "c"}',
                "table (prompt=human, response=assistant, "
                "system=system), detected from the first row; columns not read: category"),
}


@pytest.mark.parametrize("case", DETECTED)
def test_detection_is_said(case: str) -> None:
    row, said = DETECTED[case]
    write("a.jsonl", row + "\n")
    assert settled("a.jsonl").line == f"a.jsonl: {said}"


def test_documents() -> None:
    write("a.txt", "one\n")
    write("b.jsonl", '{"body": "x"}')
    assert settled("a.txt", "pt").line == "a.txt: text (prompt=text), detected from the first row"
    assert settled({"file_name": "b.jsonl", "formatting": "alpaca", "columns": {"prompt": "body"}},
                   "pt").layout == layout("text", {"prompt": "body"})
    assert refusal(lambda: settled("b.jsonl", "pt")) == (
        "b.jsonl:1: text: missing; columns present: body; "
        "name the column of the documents in a mapping: {file_name: ..., formatting: text, columns: {prompt: ...}}")
    assert refusal(lambda: settled("a.txt")) == ("a.txt:1: stage sft trains on conversations, but these rows are documents; "
                                                 "set stage: pt, or give rows with questions and answers")
    assert refusal(lambda: settled({"file_name": "b.jsonl", "formatting": "openai"}, "pt")) == (
        "b.jsonl: stage pt trains on documents, but the data set is declared as openai; set stage: sft, or formatting: text")


def test_wrong_mappings() -> None:
    write("a.jsonl", '{"messages": [{"role": "user", "content": "x"}]}\n')
    assert refusal(lambda: settled({"file_name": "a.jsonl", "formatting": "alpaca"})) == (
        "a.jsonl:1: instruction (columns.prompt of a.jsonl): missing; columns present: messages; "
        "the rows look like formatting: openai")
    assert refusal(lambda: settled({"file_name": "a.jsonl", "columns": {"prompt": "x"}})) == (
        "dataset: columns and tags need formatting; set formatting: one of alpaca, sharegpt, openai, table, prompt_completion, "
        "text, preference, openai_preference, parts, prompt_only, tokens")
    write("b.jsonl", '{"x": 1}\n')
    assert refusal(lambda: settled("b.jsonl")) == (
        "b.jsonl:1: no format fits the columns x; say what they are in a mapping: "
        "{file_name: ..., formatting: alpaca, columns: {prompt: ..., response: ...}}")
    write("c.jsonl", GOOD * 2)
    mapped = settled({"file_name": "c.jsonl", "formatting": "alpaca", "columns": {"query": "quest"}})
    assert refusal(lambda: list(outcomes(mapped))) == (
        "c.jsonl: c.jsonl: no row has the column `quest` (columns.query); columns present: instruction, output; take columns.query out")


def test_head_of_a_large_array() -> None:
    """Rows that the head holds whole are read; the rest of the file is not, except for its end."""
    write("a.json", "[" + ", ".join(f'{{"x": {number}}}' for number in range(100)) + "]")
    file = DataFile(Path("a.json"), "json")
    assert [row.values["x"] for row in read_head(file, 32)] == [0, 1, 2]
    assert len(list(read_rows(file))) == 100
    write("a.json", '[{"x": 1}, {"x": 2}')
    assert refusal(lambda: list(read_head(file, 12))) == "a.json: the array has no end: the file looks truncated"
    write("a.json", '[{"x": 1 1}, {"x": 2}]')
    assert refusal(lambda: list(read_head(file, 20))) == "a.json:1:10: not valid JSON: expecting ',' delimiter"
