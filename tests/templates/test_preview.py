"""What `preview` shows. Oracle: by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.templates.families import conversation, renderer_of, tokenizer_of
from tunewright.commands.preview import Wish, chosen_rows, parse, run
from tunewright.data.collate import Example
from tunewright.data.preview import plain, preview_html, preview_lines, shown_tokens, token_lines, visible
from tunewright.data.records import Origin
from tunewright.data.tokenize import encode_conversation
from tunewright.errors import UsageError

ORIGINS = (Origin("a.jsonl", 0, 1), Origin("<b>.jsonl", 4, 5))


def packed(*pairs: tuple[str, str]) -> Example:
    """ChatML rows laid end to end."""
    rows = [encode_conversation(conversation(("user", ask), ("assistant", answer)), renderer_of("chatml"), tokenizer_of("chatml"))
            for ask, answer in pairs]
    ids, labels = (np.array([one for row in rows for one in row[part]], np.int32) for part in (0, 1))
    return Example(ids, labels, np.cumsum([0, *(len(row[0]) for row in rows)]).astype(np.int32), 3)


def test_lines_of_a_packed_example() -> None:
    """Headings with counts, positions and origin; trained text in brackets."""
    example = packed(("Hi", "Yes\n🙂"), ("Bye", "No"))
    lines = [plain(line) for line in preview_lines(example, tokenizer_of("chatml"), ORIGINS)]
    ends = np.diff(example.bounds) - 1
    counts = [int((example.labels[a:b] != -100).sum()) for a, b in zip(example.bounds, example.bounds[1:], strict=False)]
    total = len(example.input_ids)
    assert lines == [
        f"row 3: {total} tokens, {sum(counts)} trained ({sum(counts) / total:.1%}), 2 rows packed",
        f"segment 0, positions 0-{ends[0]}, {counts[0]} trained, from a.jsonl:1",
        "<|im_start|>user⏎", "Hi<|im_end|>⏎", "<|im_start|>assistant⏎", "⟦Yes⏎⟧", "⟦🙂<|im_end|>⟧⏎", "",
        f"segment 1, positions 0-{ends[1]}, {counts[1]} trained, from <b>.jsonl:5",
        "<|im_start|>user⏎", "Bye<|im_end|>⏎", "<|im_start|>assistant⏎", "⟦No<|im_end|>⟧⏎", "",
    ]


def test_tokens_of_one_character_are_shown_together() -> None:
    """An emoji of several byte tokens is one piece; all ids are there, in order, and positions restart per segment."""
    example = packed(("Hi", "🙂"), ("🙂", "No"))
    tokens = shown_tokens(example, tokenizer_of("chatml"))
    assert [one for token in tokens for one in token.ids] == example.input_ids.tolist()
    assert [token.is_trained for token in tokens if token.text == "🙂"] == [True, False]
    assert [token.position for token in tokens if token.text == "<|im_start|>"][2] == 0


def test_token_lines() -> None:
    """One token in each line with segment, position and id."""
    example = packed(("Hi", "No"))
    lines = [plain(line) for line in token_lines(example, tokenizer_of("chatml"), ORIGINS)]
    start = tokenizer_of("chatml").convert_tokens_to_ids("<|im_start|>")
    end = tokenizer_of("chatml").convert_tokens_to_ids("<|im_end|>")
    assert lines[2] == f"  segment 0  position     0  id {start:>7}  <|im_start|>"
    assert lines[-2] == f"  segment 0  position {len(example.input_ids) - 2:>5}  id {end:>7}  ⟦<|im_end|>⟧"


def test_page_escapes_and_loads_nothing() -> None:
    """Hostile text in rows, file names and the title stays text."""
    attack = "<script>alert(1)</script>\"'&"
    page = preview_html([(packed((attack, attack), ("a", "b")), ORIGINS)], tokenizer_of("chatml"), attack)
    assert "<script" not in page and "alert(1)</script>" not in page
    assert "&lt;b&gt;.jsonl:5" in page
    assert "http:" not in page and "https:" not in page and "src=" not in page and "url(" not in page
    tokens = shown_tokens(packed((attack, attack), ("a", "b")), tokenizer_of("chatml"))
    assert page.count("<ins title=") == sum(token.is_trained for token in tokens)


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[31m", "\\u001b[31m"), ("a\tb", "a⇥b"), ("\u202eabc", "\\u202eabc"), ("a\nb", "a\nb"), ("é你", "é你")])
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    """They cannot act on a terminal."""
    assert visible(text) == shown


@pytest.mark.parametrize(("written", "rows"), [(None, [0, 1, 2]), ("4", [4]), ("1-3", [1, 2, 3]), ("0,4", [0, 4]), ("0-1,4", [0, 1, 4])])
def test_chosen_rows(written: str | None, rows: list[int]) -> None:
    """Of five rows."""
    assert chosen_rows(written, 5) == rows


@pytest.mark.parametrize("written", ["5", "x", "", "3-1", "-1"])
def test_rows_that_are_not_there(written: str) -> None:
    """Refused with the range."""
    with pytest.raises(UsageError, match="--rows is"):
        chosen_rows(written, 5)


def test_parse_keeps_the_rest_for_the_configuration() -> None:
    """Our switches are taken out, in both forms."""
    wish, rest = parse(["a.yaml", "row=2", "--ids", "--html=x.html", "cutoff_len=9", "--set", "train"])
    assert wish == Wish("2", "train", Path("x.html"), True)
    assert rest == ["a.yaml", "cutoff_len=9"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole run of the verb on a tiny model directory: row, brackets, origin; then the page."""
    from tunewright.selftest.tiny import write_model

    model = write_model(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": ask, "output": "zephyr"}) + "\n" for ask in ("anchor", "bridge")), encoding="utf-8")
    words = [f"model_name_or_path={model}", "stage=sft", f"dataset={rows}", f"output_dir={tmp_path / 'out'}", "data_cache_dir=none"]
    assert run([*words, "row=1"]) == 0
    shown = capsys.readouterr().out
    assert f"from {rows}:2" in shown and "bridge<|im_end|>⏎" in shown and "⟦zephyr<|im_end|>⟧⏎" in shown and "anchor" not in shown
    page = tmp_path / "page.html"
    assert run([*words, "--html", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (tmp_path / "out").exists()
