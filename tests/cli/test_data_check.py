"""`tunewright data check`: words, exit codes, files, vocabularies. What it finds is tested in badinputs and data/doctor."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.commands.data import DATA_VERBS
from tunewright.data.doctor import examine
from tunewright.selftest.tiny import _tokenizer

SRC = Path(__file__).parents[2] / "src"
HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "pyarrow", "matplotlib", "yaml")
ROWS = "".join(json.dumps({"instruction": f"ask {number}", "output": f"say {number}"}) + "\n" for number in range(4))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("d.jsonl").write_text(ROWS)
    Path("c.yaml").write_text("dataset: d.jsonl\noutput_dir: out\n")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["data", *words])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize("words", [["data", "--help"], ["data", "check", "--help"], ["help", "data"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    """In a process of its own."""
    code = (f"import sys; sys.argv[1:] = {words!r}\nfrom tunewright.cli import main\ncode = main()\n"
            f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\nsys.exit(f'{{code}} {{heavy}}' if code or heavy else 0)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(SRC)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: tunewright data ")


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """From the table; without a verb the same page and the code of a usage error."""
    code, page, _ = told(capsys, "--help")
    assert code == 0 and all(f"\n  {entry.name} " in page and entry.summary in page for entry in DATA_VERBS)
    assert told(capsys) == (2, page, "")


WRONG = [
    (["chekc"], "error: 'chekc' is not a data command; did you mean check?\n"),
    (["check", "d.jsnl"],
     "error: dataset: `d.jsnl` is not a name in data/dataset_info.json, a file or a folder; did you mean `d.jsonl`?\n"),
    (["check", "absent.yaml"], "error: absent.yaml: no such file; give the path of a YAML or JSON file, or key=value settings\n"),
    (["check", "cutoff_len=32"], "error: no data set is named; give files, folders or names, or a configuration with dataset\n"),
    (["check", "d.jsonl", "cutof_len=32"], "error: command line: cutof_len: unknown key; did you mean cutoff_len?\n"),
    (["check", "d.jsonl", "--html"], "error: --html needs a value; see tunewright data check --help\n"),
    (["check", "d.jsonl", "--json", "absent/r.json"], "error: --json: no folder absent; make it, or name a file elsewhere\n"),
    (["check", "d.jsonl", "--fewest-trained", "few"], "error: --fewest-trained is 'few'; write a whole number\n"),
    (["check", "d.jsonl", "--first", "0"], "error: --first is '0'; write a whole number from 1 on\n"),
    (["check", "t", "data_manager_type=mg", "--first=3"],
     "error: --first: Megatron's files are never read whole anyhow; remove it, or set max_samples\n"),
    (["check", "d.jsonl", "data_manager_type=mg"],
     "error: dataset: neither d.jsonl.idx nor d.jsonl.bin is there, nor in data; write the path of the two files without their endings\n"),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_mistakes_are_told_in_one_line(words: list[str], line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, nothing written."""
    before = sorted(here.rglob("*"))
    code, _, error = told(capsys, *words)
    assert (code, error.splitlines(keepends=True)[-1]) == (2, line)
    assert sorted(here.rglob("*")) == before


WAYS = [["c.yaml"], ["d.jsonl"], ["dataset=d.jsonl"], ["--dataset", "d.jsonl"], ["j.json"], ["lf.yaml"], ["."], ["d*.jsonl"], ["named"]]


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_every_way_to_name_the_data(words: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Configurations in any vocabulary, files, folders, patterns and registered names lead to the same rows. Nothing is written."""
    Path("j.json").write_text('{"dataset": "d.jsonl"}')
    Path("lf.yaml").write_text("stage: sft\nfinetuning_type: lora\ndataset: named\n")
    Path("data").mkdir()
    Path("data/dataset_info.json").write_text('{"named": {"file_name": "../d.jsonl"}}')
    if words == ["."]:
        Path("j.json").unlink()
    before = sorted(here.rglob("*"))
    code, out, _ = told(capsys, "check", *words)
    assert (code, out.splitlines()[0].partition(": ")[2], out.splitlines()[-1]) == (0, "4 of 4 rows used", "0 errors, 0 warnings, 0 notes")
    assert sorted(here.rglob("*")) == before


def test_files_stand_in_place_of_those_of_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """The evaluation set of the configuration stays; two files are two sets."""
    Path("e.jsonl").write_text(ROWS)
    Path("f.jsonl").write_text(ROWS.replace("ask", "tell"))
    Path("with.yaml").write_text("dataset: absent.jsonl\neval_dataset: d.jsonl\n")
    code, out, _ = told(capsys, "check", "with.yaml", "e.jsonl", "f.jsonl")
    assert code == 0
    assert [line for line in out.splitlines() if "rows used" in line] == [f"{name}.jsonl: 4 of 4 rows used" for name in "efd"]
    assert "d.jsonl: 4 of 4 rows are training rows too" in out


def test_one_file_for_training_and_evaluation_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """Sets of one name are told apart."""
    code, out, _ = told(capsys, "check", "d.jsonl", "eval_dataset=d.jsonl")
    assert code == 0 and "warning: d.jsonl (eval): 4 of 4 rows are training rows too (first: d.jsonl:1 (as d.jsonl:1))" in out


@pytest.mark.parametrize(("row", "stage"), [
    ({"text": "once"}, "text"), ({"prompt": "a", "chosen": "b", "rejected": "c"}, "pairs of answers"),
    ({"prompt": "a", "completion": "b", "label": True}, "good or bad"), ({"input_ids": [1, 2], "labels": [-100, 2]}, "tokens")])
def test_kinds_of_rows_need_no_stage(row: dict[str, object], stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Documents, pairs, feedback and tokens are read as what they are."""
    Path("k.jsonl").write_text(json.dumps(row) + "\n")
    code, out, error = told(capsys, "check", "k.jsonl")
    assert (code, out.splitlines()[0]) == (0, "k.jsonl: 1 of 1 rows used")
    assert stage in error


def test_json_page_and_audit_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    """What the files say is what was printed; row numbers and lines as in a run's audit."""
    Path("d.jsonl").write_text(ROWS + '{"instruction": "a", "output": ""}\n' + ROWS)
    code, out, _ = told(capsys, "check", "c.yaml", "--json=r.json", "--html", "r.html", "--audit", "a.jsonl", "--rows-only")
    assert code == 0 and out.splitlines()[-3:] == ["r.html", "r.json", "a.jsonl"]
    report = json.loads(Path("r.json").read_text())
    assert report["ok"] and [(one["dataset"], one["rows"], one["kept"], one["dropped"]) for one in report["sets"]] == [("d.jsonl", 9, 8, 1)]
    assert [(one["check"], one["count"], one["places"][0]["where"]) for one in report["findings"]] == [
        ("dropped-row", 1, "d.jsonl:5"), ("duplicate-row", 4, "d.jsonl:6")]
    assert sum(report["sets"][0]["character_histogram"]["counts"]) == 8
    assert [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()] == [
        {"dataset": "d.jsonl", "file": "d.jsonl", "line": 5, "row": 5, "action": "dropped", "reason": "no trainable token",
         "detail": "every answer is empty or has weight 0"}]
    assert "are exactly earlier ones" in Path("r.html").read_text()


def test_what_a_run_would_refuse_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is still reported; then one line for each problem, those of a run."""
    Path("d.jsonl").write_text('{"instruction": "a", "output": ""}\n' * 3 + '{"instruction": "a", "output": "b"}\n')
    Path("f.jsonl").write_text('{"instruction": "a", "output": 1}\n{"instruction": "a", "output": "b"}\n')
    code, out, error = told(capsys, "check", "d.jsonl", "f.jsonl", "--json", "r.json")
    assert code == 2
    assert [line for line in error.splitlines() if line.startswith("error: ")] == [
        "error: d.jsonl: no trainable token in 3 of 4 rows: every answer is empty or has weight 0: d.jsonl:1, d.jsonl:2, d.jsonl:3; mend "
        "the rows or raise max_dropped_fraction (now 0.5)",
        "error: f.jsonl:1: output: string wanted, found integer 1; correct the row, or take it out"]
    assert "d.jsonl: 1 of 4 rows used" in out and json.loads(Path("r.json").read_text())["ok"] is False
    assert told(capsys, "check", "d.jsonl", "max_dropped_fraction=0.9")[0] == 0


def test_text_of_rows_cannot_act_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters of labels and roles are written out."""
    rows = [{"messages": [{"role": "\x1b[31mwizard", "content": "a"}]}, {"messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"}], "category": "\x1b]0;x\x07"}]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[1] | {"category": "y"}]))
    code, out, error = told(capsys, "check", "d.jsonl")
    assert code == 0 and "\x1b" not in out + error and "\\u001b[31mwizard" in out


def test_a_place_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 4."""
    Path("r.json").mkdir()
    code, _, error = told(capsys, "check", "d.jsonl", "--json", "r.json")
    assert (code, error.splitlines()[-1]) == (4, "error: r.json: cannot be written: Is a directory")


def indexed(prefix: str, documents: list[list[int]]) -> None:
    """Megatron's two files, put together from the description of the format: 16-bit tokens, each document one sequence."""
    sizes = [len(one) for one in documents]
    begins = [2 * sum(sizes[:number]) for number in range(len(sizes))]
    Path(f"{prefix}.bin").write_bytes(b"".join(struct.pack(f"<{len(one)}H", *one) for one in documents))
    Path(f"{prefix}.idx").write_bytes(
        struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, len(sizes), len(sizes) + 1) + struct.pack(f"<{len(sizes)}i", *sizes)
        + struct.pack(f"<{len(sizes)}q", *begins) + struct.pack(f"<{len(sizes) + 1}q", *range(len(sizes) + 1)))


def test_files_of_megatron_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten documents of 1 to 9 tokens and none: counted by hand. Parts are cut at 80 and 90 %, an empty document is in the audit."""
    indexed("t", [[7] * size for size in (1, 2, 3, 4, 0, 5, 6, 7, 8, 9)])
    files = ("--audit=a.jsonl", "--json=r.json", "--html=r.html")
    code, out, error = told(capsys, "check", "t", "data_manager_type=mg", "split=80,10,10", "cutoff_len=8", *files)
    assert (code, out.splitlines()) == (0, [
        "t: 9 of 10 documents used", "  1 dropped: the document holds no token (first: t.bin row 5)",
        "  tokens: 45; of a document 1 to 9, median 5, 95 % up to 9; 1 over cutoff_len, which go on in further sequences",
        "  training: 8 documents, 28 tokens", "  validation: 1 documents, 8 tokens", "  test: 1 documents, 9 tokens",
        "warning: t: 1 of 10 documents hold no token (first: t.bin row 5); take them out [dropped-row]", "0 errors, 1 warning, 0 notes",
        "r.html", "r.json", "a.jsonl"])
    assert error.splitlines() == ["t: Megatron's format, tokens of uint16"]
    assert json.loads(Path("r.json").read_text())["sets"][0]["parts"]["training"] == {"documents": 8, "tokens": 28}
    assert "training: 8 documents, 28 tokens" in Path("r.html").read_text()
    assert json.loads(Path("a.jsonl").read_text())["row"] == 5


def test_files_of_megatron_against_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An id beyond the vocabulary stops a run; documents that nothing ends are told."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(tmp_path / "tok")
    end = tokenizer.eos_token_id
    indexed("good", [[5, end], [6], [6, 6, end]])
    indexed("bad", [[5, end], [len(tokenizer), end]])
    words = ("data_manager_type=mg", f"tokenizer_name_or_path={tmp_path / 'tok'}")
    code, out, _ = told(capsys, "check", "good", *words)
    assert code == 0 and out.splitlines()[-2].startswith(
        f"warning: good: 1 of 3 documents do not end with the tokenizer's end-of-text token {end} (first: good.bin row 2); ")
    code, _, error = told(capsys, "check", "bad", *words)
    assert (code, error.splitlines()[-1]) == (2, (
        f"error: bad.bin row 2: token id {len(tokenizer)} is none of the tokenizer, which has {len(tokenizer)} tokens; use the tokenizer "
        "that the file was written with"))


def test_damaged_files_of_megatron_leave_the_others_examined(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for what a run would be refused for, and the report on the rest."""
    indexed("good", [[5, 6]])
    indexed("cut", [[5, 6, 7]])
    Path("cut.bin").write_bytes(b"12")
    code, out, error = told(capsys, "check", "good", "cut", "data_manager_type=mg")
    assert (code, out.splitlines()[0]) == (2, "good: 1 of 1 documents used")
    assert error.splitlines()[-1] == "error: cut.bin: cut off: 2 bytes, but sequence 0 ends at byte 6; write or copy both files anew"


def test_of_a_stream_the_first_rows_are_examined(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Said as such; a set that ends before is whole, and evaluation sets are."""
    monkeypatch.setattr(examine, "_OF_A_STREAM", 3)
    Path("e.jsonl").write_text(ROWS.replace("ask", "tell"))
    told_of = "only its first 3 rows are looked at; --first names another number"
    code, out, error = told(capsys, "check", "d.jsonl", "eval_dataset=e.jsonl", "streaming=true", "--json=r.json")
    assert code == 0 and [line for line in out.splitlines() if "rows used" in line] == [
        "d.jsonl: 3 of 3 rows used", "e.jsonl: 4 of 4 rows used"]
    assert f"d.jsonl: {told_of}" in error.splitlines()
    assert [one["how"].endswith(told_of) for one in json.loads(Path("r.json").read_text())["sets"]] == [True, False]
    for words in (["streaming=true", "--first", "4"], []):
        code, out, error = told(capsys, "check", "d.jsonl", *words)
        assert (code, out.splitlines()[0], "only its first" in error) == (0, "d.jsonl: 4 of 4 rows used", False)
    assert told(capsys, "check", "d.jsonl", "--first=1")[1].splitlines()[0] == "d.jsonl: 1 of 1 rows used"
