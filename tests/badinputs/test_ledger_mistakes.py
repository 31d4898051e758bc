"""Bad configurations in all six vocabularies, generated from the ledger: exit code 2, the right line and key, nothing written, no torch."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.badinputs.ledger_cases import (
    BASES,
    VOCABULARIES,
    Bad,
    bad,
    bad_choices,
    foreign_names,
    out_of_range,
    refused_names,
    unknown_names,
    wrong_forms,
    wrong_types,
)
from tests.badinputs.workspace import answer, copy_workspace, tree
from tests.config.test_rules import CASES as RULE_CASES
from tests.config.test_rules import PURPOSE_OF, furnish
from tests.spec.rows import Breaks
from tests.spec.rows_others import TRAINS
from tests.spec.test_constraints import ROWS
from tunewright.config.checks import RULES

LIMIT_S = 2.0


def broken_rules() -> Iterator[Bad]:
    """Each rule that is an error, broken in our vocabulary; and each sentence of the documents that a rule enforces, in theirs."""
    errors = {rule.id for rule in RULES if rule.is_error}
    for rule, breaks, _ in RULE_CASES:
        if rule in errors and PURPOSE_OF.get(rule, "train") == "train":
            settings = {key: list(value) if isinstance(value, tuple) else value for key, value in breaks.items()}
            given = {key: value for key, value in {**BASES["native"], **settings}.items() if value is not None}
            text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in given.items())
            places = [(list(given).index(key) + 1, key) for key in settings if key in given]
            yield Bad(f"native: rule {rule}", "c.yaml", text.encode(), *(places[0] if places else (None, "")), instead=tuple(places))
    for dialect, rows in ROWS.items():
        for (name, _), row in rows.items():
            if isinstance(row, Breaks) and not row.absent and row.rule not in NEEDS_LESS:
                made = [bad(f"{row.rule} {name}", dialect, row.settings, key) for key in row.settings if key not in TRAINS]
                yield replace(made[0], instead=tuple((one.line or 0, one.key) for one in made))


NEEDS_LESS = ("val-size-without-dataset",)
"""Rules that a run which is ready cannot break by one key more."""


def _text(dialect: str) -> str:
    return bad("ready", dialect, {}, next(iter(BASES[dialect]))).content.decode()


def broken_files(dialect: str) -> Iterator[Bad]:
    """The same file in the wrong encoding, with a key twice, with what YAML has and settings must not have."""
    text = _text(dialect)
    file = "c.json" if dialect == "sft_json" else "c.yaml"
    last = text.count("\n")

    def one(name: str, content: str | bytes, line: int | None, *says: str, key: str = "") -> Bad:
        return Bad(f"{dialect}: {name}", file, content if isinstance(content, bytes) else content.encode(), line, key, says)

    rows = text.splitlines()
    double = next(number for number, row in enumerate(rows) if "output_dir" in row)
    comma = [row.rstrip(",") + "," for row in rows[1:-1]]
    if file == "c.json":
        yield one("key twice", "\n".join(["{", *comma, rows[double].rstrip(","), "}"]), last, f"given twice, on line {double + 1}",
                  key="output_dir")
        yield one("trailing comma", "\n".join(["{", *comma, "}"]), None, "not valid JSON")
        yield one("NaN", "\n".join(["{", *comma, '"learning_rate": NaN', "}"]), last, "not a number in JSON")
        yield one("too deep", "\n".join(["{", *comma, '"a": ' + "[" * 40 + "]" * 40, "}"]), last, "nested deeper")
        yield one("cut off", text[:-8], None, "not valid JSON")
        yield one("comment", text.replace("{", "{ // settings", 1), None, "not valid JSON")
    else:
        at = last + 1
        space = "  " if rows[double].startswith(" ") else ""
        again = [*rows[:double + 1], rows[double], *rows[double + 1:]]
        yield one("key twice", "\n".join(again) + "\n", double + 2, f"given twice, on line {double + 1}", key="output_dir")
        yield one("tag", f"{text}extra: !!python/object/apply:os.system ['touch canary']\n", at, "tag")
        yield one("alias bomb", f"{text}a: &a [x]\nb: [{', '.join(['*a'] * 101)}]\n", at + 1, "more than 100 aliases")
        yield one("loop", f"{text}a: &a [*a]\n", at, "alias that holds itself")
        yield one("tab", f"{text}more:\n\tseed: 1\n", at + 1, "a tab is used where a space is needed")
        yield one("too deep", f"{text}a: {'[' * 40}{']' * 40}\n", at, "nested deeper")
        yield one("a list", "".join(f"- {row.strip()}\n" for row in rows if not row.endswith(":")), None, "not a mapping")
        yield one("open quote", f"{text}run_name: 'a\n", None, "not valid YAML")
        yield one("bell", f"{text}{space}run_name: \"a\x07\"\n", at, "not allowed in YAML")
    yield one("latin-1", f"{text}#".encode() + "é".encode("latin-1") + b"\n", last + 1, "not UTF-8")
    yield one("utf-16", text.encode("utf-16"), 1, "not UTF-8")
    yield one("utf-32", text.encode("utf-32"), 1, "not UTF-8")
    yield one("NUL", text.replace("out", "o\0ut", 1), None)
    yield one("empty", "", None, "holds no settings")


def mixtures() -> Iterator[Bad]:
    """Distinctive names of two vocabularies in one file that names none; the answer names a key of either side."""
    for first, second in (("qlora_script: n_epochs", "sft_json: max_seq_length"), ("mindspeed_fsdp2: lr", "qlora_script: lora_r"),
                          ("cli_reference: evaluation_strategy", "mindspeed_fsdp2: lr"), ("llamafactory: do_train", "sft_json: train_mode"),
                          ("sft_json: train_file_name", "mindspeed_fsdp2: recompute"), ("native: padding_free", "qlora_script: lora_r")):
        one, other = first.split(": ")[1], second.split(": ")[1]
        yield Bad(f"mixture of {first} and {second}", "c.yaml", f"model_name_or_path: model\n{one}: 1\n{other}: 1\n".encode(), None)


CASES = [*broken_rules(), *mixtures(), *(case for dialect in VOCABULARIES for made in (
    wrong_types, wrong_forms, out_of_range, bad_choices, unknown_names, refused_names, foreign_names, broken_files)
    for case in made(dialect))]


@pytest.fixture
def ready(here: Path) -> Path:
    """The workspace with what rules on paths look for."""
    furnish()
    return here


def test_there_are_enough() -> None:
    """Two hundred and more, of every kind in every vocabulary, no two the same."""
    assert len(CASES) >= 200
    assert len({(one.file, one.content) for one in CASES}) >= len(CASES) - 10
    assert all(sum(one.name.startswith(f"{dialect}: ") for one in CASES) >= 30 for dialect in VOCABULARIES)


@pytest.mark.parametrize("one", CASES, ids=[one.name for one in CASES])
def test_bad_configuration(one: Bad, ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, an answer at the line and key that were spoilt, no traceback, nothing written."""
    Path(one.file).write_bytes(one.content)
    before = tree(ready)
    code, lines = answer(["check", one.file], capsys)
    assert code == 2, lines
    assert_answered(one, lines)
    assert tree(ready) == before


def assert_answered(one: Bad, lines: list[str]) -> None:
    """One of the lines points where it must and says what it must; all are errors in one line."""
    assert lines and all(line.startswith("error: ") for line in lines), lines
    assert not any("Traceback" in line or "internal error" in line for line in lines)
    places = "|".join(_place(one.file, line, key) for line, key in ((one.line, one.key), *one.instead))
    told = [line for line in lines if re.match(f"error: ({places})", line) and all(word in line for word in one.says)]
    assert told, (one.line, one.key, one.says, lines)


def _place(file: str, line: int | None, key: str) -> str:
    return re.escape(file) + (rf":{line}(:\d+)?" if line else r"(:\d+)*") + (rf": {re.escape(key)}[: ]" if key else ": ")


PROGRAM = """
import contextlib, io, json, os, sys, time
from tunewright.cli import main
answers = []
for folder, words in json.load(sys.stdin):
    os.chdir(folder)
    said = io.StringIO()
    began = time.process_time()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    answers.append([code, said.getvalue(), time.process_time() - began])
heavy = [name for name in ("torch", "transformers", "peft", "accelerate", "datasets", "numpy") if name in sys.modules]
json.dump({"answers": answers, "heavy": heavy}, sys.stdout)
"""


def _environment() -> dict[str, str]:
    searched = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": searched, "OMP_NUM_THREADS": "1"}


def test_no_torch_for_any_of_them(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them with `train`, in a process of its own: at the end no heavy package is loaded but numpy, with which the index of
    Megatron's files is read, and none took two CPU seconds."""
    folder = copy_workspace(original, tmp_path / "here")
    monkeypatch.chdir(folder)
    furnish()
    before = tree(folder)
    asked: list[Any] = []
    for number, one in enumerate(CASES):
        name = f"{number}{Path(one.file).suffix}"
        (folder / name).write_bytes(one.content)
        asked.append((str(folder), ["train", name]))
    ended = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(asked), capture_output=True, text=True, check=True,
                           env=_environment())
    found = json.loads(ended.stdout)
    assert found["heavy"] in ([], ["numpy"])
    assert [(one.name, said) for one, (code, said, _) in zip(CASES, found["answers"], strict=True)
            if code != 2 or "Traceback" in said or not said.startswith("error: ")] == []
    assert max(seconds for _, _, seconds in found["answers"]) < LIMIT_S
    assert {path: digest for path, digest in tree(folder).items() if not path[0].isdigit()} == before


@pytest.mark.parametrize("one", CASES[::len(CASES) // 6], ids=lambda one: one.name)
def test_time_of_a_process(one: Bad, original: Path, tmp_path: Path) -> None:
    """Start, imports and answer together take less than two CPU seconds."""
    folder = copy_workspace(original, tmp_path / "here")
    (folder / one.file).write_bytes(one.content)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-m", "tunewright", "train", one.file], cwd=folder, capture_output=True, text=True, check=False,
                           env=_environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 2 and ended.stderr.startswith("error: ")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LIMIT_S
