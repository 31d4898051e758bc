"""Every change that makes other tokens is a miss that names it; what makes no other tokens is a hit. Oracle: the change itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.data.test_tokenising import here, model, prepare
from tunewright.data import fingerprint

__all__ = ["here", "model"]


def lookup(said: str) -> str:
    """The only line about the cache."""
    (line,) = (line for line in said.splitlines() if line.startswith("token cache: "))
    return line.removeprefix("token cache: ")


@pytest.mark.parametrize(("settings", "reason"), [
    ({"cutoff_len": 63}, "cutoff_len"),
    ({"cutoff_policy": "drop"}, "cutoff_policy"),
    ({"train_on_prompt": "true"}, "train_on_prompt"),
    ({"mask_history": "true"}, "mask_history"),
    ({"max_samples": 200}, "max_samples"),
    ({"template": "baichuan2"}, "template"),
    ({"default_system": "Be kind."}, "template"),
    ({"split_special_tokens": "true"}, "split_special_tokens"),
    ({"add_special_tokens": "<more>", "resize_vocab": "true"}, "tokenizer"),
    ({"train_on_prompt": "true", "cutoff_len": 63}, "cutoff_len, train_on_prompt"),
])
def test_settings(here: Path, model: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, object], reason: str) -> None:
    prepare(model)
    capsys.readouterr()
    prepare(model, **settings)
    assert lookup(capsys.readouterr().out) == f"miss for rows.jsonl: {reason} changed since it was last tokenised"
    prepare(model, **settings)
    assert lookup(capsys.readouterr().out).startswith("hit for rows.jsonl")
    prepare(model)
    assert lookup(capsys.readouterr().out).startswith("hit for rows.jsonl")


def test_a_row_and_the_columns(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One letter of one row; then a file that names the columns otherwise."""
    prepare(model)
    text = Path("rows.jsonl").read_text(encoding="utf-8")
    Path("rows.jsonl").write_text(text.replace("ask 17", "ask 1z", 1), encoding="utf-8")
    capsys.readouterr()
    prepare(model)
    assert lookup(capsys.readouterr().out) == "miss for rows.jsonl: data files changed since it was last tokenised"
    registry = {"rows.jsonl": {"file_name": "rows.jsonl", "columns": {"prompt": "output", "response": "instruction"}}}
    Path("dataset_info.json").write_text(json.dumps(registry))
    prepare(model, dataset_dir=".")
    assert lookup(capsys.readouterr().out) == "miss for rows.jsonl: columns and tags changed since it was last tokenised"


def test_the_tokenizers_files_and_not_their_name(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of a model is the same tokenizer; with a token that takes white space with it it is another."""
    prepare(model)
    shutil.copytree(model, "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    capsys.readouterr()
    prepare(Path("copy"))
    assert lookup(capsys.readouterr().out).startswith("hit for rows.jsonl")
    file = Path("copy/tokenizer.json")
    state = json.loads(file.read_text(encoding="utf-8"))
    state["added_tokens"][-1]["rstrip"] = True
    file.write_text(json.dumps(state), encoding="utf-8")
    prepare(Path("copy"))
    assert lookup(capsys.readouterr().out) == "miss for rows.jsonl: tokenizer changed since it was last tokenised"


def test_code_and_libraries(here: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(model)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "code_digest", lambda: "other")
        prepare(model)
    assert lookup(capsys.readouterr().out) == "miss for rows.jsonl: code changed since it was last tokenised"
    monkeypatch.setattr(fingerprint.metadata, "version", lambda name: "0")
    prepare(model)
    assert lookup(capsys.readouterr().out) == "miss for rows.jsonl: libraries changed since it was last tokenised"


@pytest.mark.parametrize("settings", [
    {"preprocessing_num_workers": 2}, {"preprocessing_batch_size": 7}, {"seed": 5}, {"learning_rate": 1}, {"packing": "true"},
    {"val_size": 10}])
def test_what_makes_no_other_tokens_is_a_hit(here: Path, model: Path, capsys: pytest.CaptureFixture[str],
                                             settings: dict[str, object]) -> None:
    prepare(model)
    capsys.readouterr()
    prepare(model, **settings)
    assert lookup(capsys.readouterr().out) == "hit for rows.jsonl: the same data files, tokenizer, template, settings and code"
