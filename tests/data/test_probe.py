"""What `check` says of data before a model is opened. Oracle: messages written out by hand."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunewright.config.data import DataConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.data.probe import probe

MEND = "; correct the row, or take it out"
GOOD = '{"instruction": "a", "output": "b"}\n'
TURNS = '{"conversations": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2"}]}\n'
BAD_TURNS = '{"conversations": [{"from": "human", "value": "1"}]}\n'
SEARCHED = [os.path.abspath(path) for path in sys.path]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(*names: object, stage: str = "sft", **data: object) -> list[str]:
    config = RunConfig(run=RunControl(stage=stage), data=DataConfig(dataset=names, **data))  # type: ignore[arg-type]
    return [problem.line() for problem in probe(config)]


CASES = {
    "good": (GOOD, []),
    "bad line": (GOOD * 6 + "{\n", ["a.jsonl:7:2: not valid JSON: expecting property name enclosed in double quotes, "
                                    "the text ends in the middle of a row"]),
    "wrong type": (GOOD * 5 + '{"instruction": "a", "output": 7}',
                   ["a.jsonl:6: output: string wanted, found integer 7" + MEND]),
    "null": (GOOD * 5 + '{"instruction": "a", "output": null}', ["a.jsonl:6: output: string wanted, found null" + MEND]),
    "missing": (GOOD + '{"instruction": "a"}', ["a.jsonl:2: output: missing; columns present: instruction" + MEND]),
    "empty": ("", ["a.jsonl: the file is empty; put rows into it or take it out of the data set"]),
    "no answers": ('{"instruction": "a", "output": ""}\n' * 7, [
        "a.jsonl: no trainable token in 7 of 7 rows: every answer is empty or has weight 0: a.jsonl:1, a.jsonl:2, a.jsonl:3, "
        "a.jsonl:4, a.jsonl:5 and 2 more; mend the rows"]),
    "half out of order": (TURNS + BAD_TURNS, []),
    "most out of order": (TURNS + BAD_TURNS * 2, [
        "a.jsonl: turns out of order in 2 of 3 rows: the last turn is user: no answer follows: a.jsonl:2, a.jsonl:3; "
        "mend the rows or raise max_dropped_fraction (now 0.5)"]),
}


@pytest.mark.parametrize("case", CASES)
def test_problems_of_small_files(case: str) -> None:
    content, expected = CASES[case]
    Path("a.jsonl").write_text(content)
    assert lines("a.jsonl") == expected


def test_every_set_is_looked_at() -> None:
    Path("good.jsonl").write_text(GOOD)
    Path("bad.json").write_text("[")
    assert lines("good.jsonl", "bad.json", "gone.jsonl", eval_dataset=("bad.json",)) == [
        "bad.json:1:2: not valid JSON: expecting value, the text ends in the middle of a row",
        "dataset: `gone.jsonl` is not a name in data/dataset_info.json, a file or a folder; did you mean `good.jsonl`?",
        "bad.json:1:2: not valid JSON: expecting value, the text ends in the middle of a row",
    ]


def test_held_out_rows_leave_some() -> None:
    """One row and a tenth of it held out, rounded up, leaves none."""
    Path("good.jsonl").write_text(GOOD)
    assert lines("good.jsonl", val_size=0.1) == [
        "val_size: 0.1 holds out 1 of 1 rows and leaves none to train on; make it smaller"]
    Path("good.jsonl").write_text(GOOD * 2)
    assert lines("good.jsonl", val_size=0.1) == []


def test_only_rows_of_the_run_count() -> None:
    Path("a.jsonl").write_text(TURNS + BAD_TURNS * 9)
    assert lines("a.jsonl", max_samples=2) == []
    assert len(lines("a.jsonl")) == 1
    assert lines("a.jsonl", max_dropped_fraction=0.9) == []


def test_registry_and_stage() -> None:
    Path("data").mkdir()
    Path("data/dataset_info.json").write_text(json.dumps({"a": {"file_name": "a.jsonl", "formating": "sharegpt"}}))
    Path("data/a.jsonl").write_text(TURNS)
    assert lines("a") == ["data/dataset_info.json `a`: unknown key `formating`; did you mean `formatting` or `ranking`?"]
    assert lines({"file_name": "a.jsonl", "formatting": "alpaca", "columns": {"prompt": "question"}}) == [
        "data/a.jsonl:1: question (columns.prompt of a.jsonl): missing; columns present: conversations; "
        "the rows look like formatting: sharegpt"]
    Path("doc.txt").write_text("a\n")
    assert lines("doc.txt", stage="pt") == []


def test_parquet_is_checked_by_its_ends() -> None:
    Path("a.parquet").write_bytes(b"PAR1....")
    assert lines("a.parquet") == ["a.parquet: not a Parquet file, or truncated: it does not end in PAR1"]
    Path("a.parquet").write_bytes(b"PAR1....PAR1")
    assert lines("a.parquet") == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_large_files_take_less_than_two_cpu_seconds(name: str) -> None:
    """1 GB, sparse in the middle: only the head is read, so an early bad row is found and the time does not grow."""
    with Path(name).open("wb") as file:
        file.write((b"[" if name == "a.json" else b"") + (GOOD.strip().encode() + (b",\n" if name == "a.json" else b"\n")) * 2000)
        file.seek(1 << 30)
        file.write(b"]\n")
    begin = time.process_time()
    assert lines(name) == []
    assert time.process_time() - begin < 2
    with Path(name).open("r+b") as file:
        file.write((b"[" if name == "a.json" else b"") + b'{"instruction": "a", "output": "b" }')
        file.write(b",\n" if name == "a.json" else b"\n")
        file.write(b'{"instruction": [1], "output":1 }' + (b",\n" if name == "a.json" else b"\n"))
    assert lines(name) == [f"{name}:2: instruction: string wanted, found array" + MEND]


def test_imports_are_light() -> None:
    """Neither numpy nor torch nor pyarrow."""
    code = ("import sys, tunewright.data.probe;"
            "print([name for name in ('numpy', 'torch', 'pyarrow', 'transformers', 'jinja2') if name in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": os.pathsep.join(SEARCHED)}).stdout == "[]\n"
