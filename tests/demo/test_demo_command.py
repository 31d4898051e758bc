"""The demo command: what counts as right, what the report holds, what is done once; and the whole of it on the real model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tunewright.assets.demo.generate import heldout_rows
from tunewright.commands import demo as command
from tunewright.commands.demo import Folder
from tunewright.dialects.read import read_config
from tunewright.errors import InputError

ROWS = heldout_rows(4, 1)
KEYS = ["exact_match_before", "exact_match_after", "train_minutes", "tokens_per_second", "peak_memory_gb", "model", "versions"]


@pytest.mark.parametrize(("answer", "right"), [
    ("name: Ada\nitem: red kites\nquantity: 3\ncity: Turin", True),
    ("city:   Turin\nquantity: 3\n\nitem: red kites\nname: 'Ada'\n", True),
    ('{"name": "Ada", "item": "red kites", "quantity": 3, "city": "Turin"}', True),
    ("name: Ada\nitem: red kites\nquantity: '3'\ncity: Turin", False),
    ("name: ada\nitem: red kites\nquantity: 3\ncity: Turin", False),
    ("name: Ada\nitem: red kites\nquantity: three\ncity: Turin", False),
    ("name: Ada\nitem: red kites\nquantity: 3", False),
    ("name: Ada\nitem: red kites\nquantity: 3\ncity: Turin\nnote: fragile", False),
    ("Here it is:\nname: Ada\nitem: red kites\nquantity: 3\ncity: Turin", False),
    ("```yaml\nname: Ada\nitem: red kites\nquantity: 3\ncity: Turin\n```", False),
    ("name: Ada: red kites", False),
    ("2026-13-45", False),
    ("", False),
    ("null", False),
])
def test_what_counts_as_right(answer: str, right: bool) -> None:
    row = command.Row("", {"name": "Ada", "item": "red kites", "quantity": 3, "city": "Turin"}, "")
    assert command.is_right(answer, row) is right


def test_exact_match_is_the_share_of_right_answers() -> None:
    answers = [ROWS[0].answer, "", ROWS[2].answer, ROWS[3].answer.replace(":", " is")]
    assert command.exact_match(answers, ROWS) == 0.5


def test_report_by_hand() -> None:
    """30,000 tokens at 200 tokens/s are 150 seconds, 2.5 minutes, however many of them a resumed run had done before."""
    figures = {"train_tokens_per_second": 200.04, "total_tokens": 30000, "peak_memory_gb": 3.456, "train_runtime": 10.0}
    report = command.make_report(["", "", "", ""], [row.answer for row in ROWS], ROWS, figures)
    assert list(asdict(report)) == KEYS
    assert (report.exact_match_before, report.exact_match_after) == (0.0, 1.0)
    assert (report.train_minutes, report.tokens_per_second, report.peak_memory_gb) == (2.5, 200.0, 3.46)
    assert list(report.versions) == ["tunewright", "python", "torch", "transformers", "peft", "accelerate"]


@pytest.mark.parametrize(("argv", "output"), [
    ([], "runs/demo"), (["--output", "elsewhere"], "elsewhere"), (["--output=else where"], "else where"),
])
def test_output_directory(argv: list[str], output: str) -> None:
    assert command.output_of(argv) == Path(output)


@pytest.mark.parametrize("argv", [["--out", "x"], ["x"], ["--output"], ["--output="], ["--output", "x", "y"]])
def test_other_words_are_refused(argv: list[str]) -> None:
    with pytest.raises(InputError, match="does not understand"):
        command.output_of(argv)


def test_settings_are_read_with_any_output_directory(tmp_path: Path) -> None:
    """Even one with quotes and a colon in its name; the configuration on disk is complete and checked as `train` checks it."""
    folder = Folder(tmp_path / 'a "b": c')
    command.write_inputs(folder, ROWS)
    run = read_config([str(folder.settings)], purpose="train").resolve().config
    assert run.data.dataset == (str(folder.path / "data" / "train.jsonl"),)
    assert run.run.output_dir == str(folder.training)
    assert (run.model.model_name_or_path, run.data.packing) == ("demo", True)
    assert len((folder.path / "data" / "heldout.jsonl").read_text().splitlines()) == len(ROWS)


def test_inputs_of_another_version_are_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    command.write_inputs(folder, ROWS)
    command.write_inputs(folder, ROWS)
    with pytest.raises(InputError) as caught:
        command.write_inputs(folder, ROWS[:3])
    assert caught.value.line() == (f"{tmp_path / 'data' / 'heldout.jsonl'}: is not what this version of the demo writes; "
                                   f"remove {tmp_path} or give another --output")


def test_answers_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def ask(model: Path, rows: list[command.Row]) -> list[str]:
        asked.append(model)
        assert rows == ROWS
        return ["no", ROWS[1].answer, "no", "no"]

    monkeypatch.setattr(command, "ask", ask)
    lines: list[str] = []
    for _ in range(2):
        answers = command.answers_once(tmp_path / "before.json", "3/6  before", tmp_path, ROWS, lines.append)
        assert answers == ["no", ROWS[1].answer, "no", "no"]
    assert asked == [tmp_path]
    assert lines[-1] == "3/6  before: 25% of 4 held-out orders right (kept from an earlier run)"


def test_long_answers_are_shown_on_one_line() -> None:
    assert command.on_one_line("a  b\n\n  c\n") == "a b | c"
    assert command.on_one_line("x" * 200, 10) == "xxxxxxx..."
