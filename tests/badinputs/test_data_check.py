"""Data that can be read and is wrong all the same: what `tunewright data check` says of each, in one line, worked by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunewright.cli import main
from tunewright.selftest.tiny import write_model

Rows = Sequence[dict[str, Any]]

SK = "sk-" + "a1B2c3D4e5F6g7H8i9J0"
GOOD = [{"instruction": f"ask {number}", "output": f"say {number}"} for number in range(30)]


def alpaca(*pairs: tuple[str, str]) -> Rows:
    return [{"instruction": question, "output": answer} for question, answer in pairs]


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@dataclass(frozen=True)
class Case:
    """Rows to train on, perhaps rows to evaluate on, settings, and the line that is wanted, whole."""

    name: str
    rows: Rows
    line: str
    evaluation: Rows = ()
    words: tuple[str, ...] = ()
    code: int = 0


OK = chat(("user", "a"), ("assistant", "b"))
KEY = "-----BEGIN RSA " + "PRIVATE" + " KEY-----\nMIIE"
"""The head of a private key, written apart so that no scan for secrets finds one here."""
MEANING = "take them out, unless the text is about them: conversations keep them as text [control-token]"
CASES = (
    Case("duplicate rows", [*GOOD, GOOD[3], GOOD[3]],
         "warning: d.jsonl: 2 of 32 rows are exactly earlier ones (first: d.jsonl:31 (as d.jsonl:4)); take them out: repeated rows are "
         "learned by heart [duplicate-row]"),
    Case("one question, two answers", alpaca(("What is  it?", "a"), ("what IS it? ", "b"), ("other", "c")),
         "warning: d.jsonl: 1 question is answered in different ways (first: d.jsonl:2 (asks what d.jsonl:1 asks)); keep the right answer, "
         "if there is one [conflicting-answers]"),
    Case("evaluation rows in training", GOOD,
         "warning: e.jsonl: 2 of 2 rows are training rows too (first: e.jsonl:1 (as d.jsonl:6)); take them out of one side: evaluation on "
         "them measures memory [leaked-row]", evaluation=GOOD[5:7]),
    Case("evaluation questions in training", GOOD,
         "warning: e.jsonl: 1 of 1 row ask what training rows ask, with another answer (first: e.jsonl:1 (as d.jsonl:3)); take them out of "
         "one side: evaluation on them is too easy [leaked-question]", evaluation=alpaca(("ASK 2", "something else"))),
    Case("duplicates and a random split", [*GOOD, GOOD[0]],
         "warning: val_size: 1 duplicates may stand on both sides of the split that val_size makes (first: d.jsonl:31 (as d.jsonl:1)); "
         "take them out, or give an eval_dataset [split-twins]", words=("val_size=0.1",)),
    Case("one answer everywhere", [*GOOD, *alpaca(*((f"more {number}", "I cannot help with that.") for number in range(10)))],
         "warning: d.jsonl: one answer is given in 10 of 40 rows (25.0%) (first: d.jsonl:31 (10 times)); make the answers more varied, "
         "unless they are classes [repeated-answer]"),
    Case("answer is the question", alpaca(("Say it", " say IT"), ("a", "b")),
         "warning: d.jsonl: 1 of 2 rows answer with the question itself (first: d.jsonl:1); write an answer, or take the rows out "
         "[answer-is-question]"),
    Case("a cell that was empty", alpaca(("a", "nan"), ("c", "b")),
         "warning: d.jsonl: 1 of 2 rows have an answer such as `nan`, `None` or `N/A` (first: d.jsonl:1 (turn 2 is `nan`)); leave such "
         "rows out when the file is made [answer-says-nothing]"),
    Case("blank question", alpaca((" ", "x"), ("c", "b")),
         "warning: d.jsonl: 1 of 2 rows have a blank question (first: d.jsonl:1 (turn 1)); write the question, or take the rows out "
         "[empty-question]"),
    Case("thinking without end", alpaca(("a", "<think>so it is"), ("c", "<think>x</think>b")),
         "warning: d.jsonl: 1 of 2 rows have thinking that does not begin or end (first: d.jsonl:1 (turn 2: 1 <think> and 0 </think>)); "
         "close it, or take the rows out [unfinished-thinking]"),
    Case("unknown role", [OK, OK | chat(("wizard", "a"), ("assistant", "b"))],
         "warning: d.jsonl: 1 of 2 rows dropped: unknown role: a turn is `wizard` (first: d.jsonl:2 (turn 1 is `wizard`; known: user, "
         "assistant, system, tool, function, developer, tool_call, tool_response)); name the role in `tags` of the data set, or rename it "
         "[dropped-row]"),
    Case("two questions in a row", [OK, chat(("user", "a"), ("user", "c"), ("assistant", "b"))],
         "warning: d.jsonl: 1 of 2 rows dropped: turns out of order: a turn is user after user (first: d.jsonl:2 (turn 2 is user after "
         "user)); join turns of one speaker, or add what stands between them [dropped-row]"),
    Case("answer first", [OK, chat(("assistant", "b"), ("user", "a"))],
         "warning: d.jsonl: 1 of 2 rows dropped: turns out of order: a turn is assistant but user comes first (first: d.jsonl:2 (turn 1 is "
         "assistant but user comes first)); put the question before it, or take the turn out [dropped-row]"),
    Case("no last answer", [OK, chat(("user", "a"), ("assistant", "b"), ("user", "a"))],
         "warning: d.jsonl: 1 of 2 rows dropped: turns out of order: the last turn is user: no answer follows (first: d.jsonl:2 (the last "
         "turn is user: no answer follows)); add the answer, or take the last turn out [dropped-row]"),
    Case("system in the middle", [OK, chat(("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "a"), ("assistant", "b"))],
         "warning: d.jsonl: 1 of 2 rows dropped: turns out of order: a turn is system after assistant (first: d.jsonl:2 (turn 3 is system "
         "after assistant)); put the system message first, or leave it out [dropped-row]"),
    Case("an empty answer among others", [OK, chat(("user", "a"), ("assistant", ""), ("user", "c"), ("assistant", "b"))],
         "warning: d.jsonl: 1 of 2 rows changed: a turn is an empty answer: not trained (first: d.jsonl:2); write the answer, or take the "
         "rows out [changed-row]"),
    Case("no answer at all", [*GOOD, *alpaca(("a", " "))],
         "warning: d.jsonl: 1 of 31 rows dropped: no trainable token (first: d.jsonl:31 (every answer is empty or has weight 0)); write "
         "the answers, or take the rows out [dropped-row]"),
    Case("wrong type in two rows", [*GOOD[:2], {"instruction": "a", "output": 3}, {"instruction": "a"}],
         "error: d.jsonl: 2 of 4 rows cannot be read, and stop a run (first: d.jsonl:3 (output: string wanted, found integer 3)); mend "
         "the rows [unreadable-row]", code=2),
    Case("lost characters", alpaca(("na\ufffdve", "b\ufffd"), ("c", "d")),
         "warning: d.jsonl: 1 of 2 rows hold U+FFFD, a character that was lost before (first: d.jsonl:1 (2 in all, first in turn 1 "
         "(user))); convert the original file again, with its right encoding [replacement-character]"),
    Case("UTF-8 read as Latin", alpaca(("crÃ¨me brÃ»lÃ©e", "b"), ("crème “brûlée…” ñ", "à bientôt »")),
         "warning: d.jsonl: 1 of 2 rows look like UTF-8 that was read in another encoding (first: d.jsonl:1 (`Ã¨` for `è`)); convert the "
         "original file again [mojibake]"),
    Case("UTF-8 read as GBK", alpaca(("锟斤拷", "b"), ("你好", "世界")),
         "warning: d.jsonl: 1 of 2 rows look like UTF-8 that was read in another encoding (first: d.jsonl:1 (`锟斤拷`)); convert the "
         "original file again [mojibake]"),
    Case("unseen characters", alpaca(("a\u200bb", "b"), ("می\u200cخواهم", "👩\u200d💻\tx\ny"), ("\u202eevil", "x\x00y")),
         "warning: d.jsonl: 2 of 3 rows hold control, zero-width or direction characters (first: d.jsonl:1 (U+200B in turn 1 (user))); "
         "take them out [unseen-character]"),
    Case("line breaks escaped twice", alpaca(("a", r"one\ntwo\nthree"), ("a\\n\\n\nb", "c")),
         "note: d.jsonl: 1 of 2 rows write line breaks as backslash and n (first: d.jsonl:1 (turn 2 (assistant))); turn them into line "
         "breaks, if they are not meant [escaped-line-break]"),
    Case("HTML entities", alpaca(("a &lt; b", "yes"), ("AT&T; you & me", "c")),
         "note: d.jsonl: 1 of 2 rows hold HTML entities (first: d.jsonl:1 (`&lt;` in turn 1 (user))); unescape the text, unless it is HTML "
         "[html-entity]"),
    Case("an API key", alpaca(("use this", f"key {SK}"), ("a", "task-based risk-averse sk-learn-is-a-library-for-python")),
         "warning: d.jsonl: 1 of 2 rows hold what looks like a key or a token (first: d.jsonl:1 (api key in turn 2 (assistant))); take it "
         "out and have it revoked: models repeat what they saw [secret]"),
    Case("a private key", alpaca(("a", KEY), ("c", "d")),
         "warning: d.jsonl: 1 of 2 rows hold what looks like a key or a token (first: d.jsonl:1 (private key in turn 2 (assistant))); "
         "take it out and have it revoked: models repeat what they saw [secret]"),
    Case("what looks like a control token", alpaca(("<|im_end|> now obey", "b"), ("a < b | c > d [x]", "d")),
         "warning: d.jsonl: 1 of 2 rows hold what looks like a control token in their text (first: d.jsonl:1 (`<|im_end|>` in turn 1 "
         f"(user))); {MEANING}"),
    Case("uneven classes", [one | {"category": "code" if number else "poem"} for number, one in enumerate(GOOD)],
         "warning: d.jsonl: category: code 29 (96.7%), poem 1 (3.3%); most to least 29 to 1; weigh the rarer ones or add to them [labels]"),
    Case("uneven feedback", [{"prompt": f"q{n}", "completion": f"a{n}", "label": n > 4} for n in range(30)],
         "warning: d.jsonl: desirable: true 25 (83.3%), false 5 (16.7%); most to least 5 to 1; weigh the rarer ones or add to them "
         "[labels]"),
    Case("a pair of one answer", [{"prompt": "a", "chosen": "b", "rejected": "b"}, {"prompt": "a", "chosen": "b", "rejected": "c"}],
         "warning: d.jsonl: 1 of 2 rows dropped: chosen and rejected are the same (first: d.jsonl:1); look at the rows [dropped-row]"),
    Case("the longer answer wins", [{"prompt": f"q{n}", "chosen": "long " * n + "!", "rejected": "n" * 2} for n in range(1, 31)],
         "warning: d.jsonl: the chosen answer is the longer one in 100% of 30 pairs; length may be what is learned: add other pairs "
         "[longer-is-chosen]"),
    Case("a file pasted into a row", [*GOOD, *alpaca(("a", "x" * 500))],
         "note: d.jsonl: 1 of 31 rows are far longer than the others (median 12 characters) (first: d.jsonl:31 (501 characters)); look at "
         "them: files that were pasted whole, missing line ends [long-row]"),
    Case("a text that was lost", [*alpaca(*((f"{n} " + "word " * 40, "w" * n) for n in range(1, 31))), *alpaca(("a", "b"))],
         "note: d.jsonl: 1 of 31 rows are far shorter than the others (median 218 characters) (first: d.jsonl:31 (2 characters)); look at "
         "them: texts that were lost [short-row]"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tokenizer of bytes: <|im_start|>role, a line break, the text, <|im_end|>, a line break."""
    return write_model(tmp_path_factory.mktemp("model"))


def told(folder: Path, case: Case, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    """Exit code, lines on stdout and text on stderr of the check of a case."""
    config = {"dataset": "d.jsonl"} | ({"eval_dataset": "e.jsonl"} if case.evaluation else {})
    for name, rows in (("d.jsonl", case.rows), ("e.jsonl", case.evaluation)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    target = ["d.jsonl"]
    if case.evaluation:
        (folder / "c.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
        target = ["c.yaml"]
    capsys.readouterr()
    code = main(["data", "check", *target, *case.words, *words])
    found = capsys.readouterr()
    return code, found.out.splitlines(), found.err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_fault_is_named_in_one_line(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                         ) -> None:
    """The whole line is there, once; the row after the faulty one, which is nearly the same and right, is not counted."""
    monkeypatch.chdir(tmp_path)
    code, lines, errors = told(tmp_path, case, capsys)
    assert lines.count(case.line) == 1, "\n".join(lines)
    assert code == case.code and "Traceback" not in errors
    assert SK not in "\n".join(lines) + errors


def test_good_rows_have_no_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of rows with nothing wrong."""
    monkeypatch.chdir(tmp_path)
    assert told(tmp_path, Case("good", GOOD, ""), capsys)[:2] == (0, [
        "d.jsonl: 30 of 30 rows used", "  characters: 10 to 12, median 12, 95 % up to 12", "0 errors, 0 warnings, 0 notes"])


TOKEN_CASES = (
    Case("the tokenizer's own token", alpaca(("<|pad|> a", "anchor anchor anchor"), ("<|endoftext|>", "anchor anchor anchor")),
         f"warning: d.jsonl: 1 of 2 rows hold control tokens in their text (first: d.jsonl:1 (`<|pad|>` in turn 1 (user))); {MEANING}"),
    Case("longer than cutoff_len", alpaca(("a", "anchor " * 30), ("b", "anchor anchor bridge")),
         "warning: d.jsonl: 1 of 2 rows are longer than cutoff_len 20 and lose something (first: d.jsonl:1 ({long} tokens)); raise "
         "cutoff_len (the longest has {long} tokens) or shorten them [over-cutoff]", words=("cutoff_len=20",)),
    Case("cut at the end", alpaca(("a", "anchor " * 30), ("b", "anchor anchor bridge")),
         "warning: d.jsonl: 1 of 2 rows changed: longer than cutoff_len 20: cut at its end (first: d.jsonl:1 ({long} tokens)); raise "
         "cutoff_len, shorten them, or choose another cutoff_policy [changed-row]", words=("cutoff_len=20",)),
    Case("the answer cut away", [*GOOD, *alpaca(("b" * 200, "anchor"))],
         "warning: d.jsonl: 1 of 31 rows dropped: no trainable token (first: d.jsonl:31 ({lost} tokens, longer than cutoff_len 64: cut at "
         "its end)); write the answers, or take the rows out [dropped-row]", words=("cutoff_len=64",)),
    Case("one trained token", alpaca(("a", "anchor"), ("b", "anchor anchor bridge")),
         "warning: d.jsonl: 1 of 2 rows have fewer than 4 trained tokens (first: d.jsonl:1 (2 of {short} tokens)); look at what is "
         "trained: tunewright preview [hardly-trained]"),
)


@pytest.mark.parametrize("case", TOKEN_CASES, ids=lambda case: case.name)
def test_each_fault_of_tokens_is_named_in_one_line(case: Case, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """The same with a tokenizer. The oracle of the lengths is the tokenizer itself on the render written out."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def length(row: dict[str, Any]) -> int:
        text = f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n{row['output']}<|im_end|>\n"
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    monkeypatch.chdir(tmp_path)
    code, lines, errors = told(tmp_path, case, capsys, f"tokenizer_name_or_path={model}")
    sizes = {"long": length(case.rows[0]), "short": length(case.rows[0]), "lost": length(case.rows[-1])}
    wanted = case.line
    for name, size in sizes.items():
        wanted = wanted.replace("{" + name + "}", str(size))
    assert lines.count(wanted) == 1, "\n".join(lines) + errors
    assert code == 0
