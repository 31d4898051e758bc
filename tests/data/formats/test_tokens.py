"""Rows that were tokenised before: as records, and trained end to end. Oracle: ids and labels written out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.effects.engine_runs import losses, run
from tunewright.config.data import DataConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.data.formats.convert import convert, detect
from tunewright.data.formats.fields import Converted, Outcome, Refusal
from tunewright.data.json_rows import Row
from tunewright.data.pipeline import build
from tunewright.data.records import Origin, TokenIds
from tunewright.errors import InputError
from tunewright.selftest.workspace import Workspace

HERE = Origin("rows.jsonl", 5, 6)


def outcome(values: dict[str, Any]) -> Outcome:
    form = detect(values)
    assert form is not None
    return convert(Row(values, HERE), form)


KEPT: dict[str, tuple[dict[str, Any], tuple[list[int], list[int]]]] = {
    "labels": ({"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, ([5, 6, 7], [-100, 6, 7])),
    "no labels": ({"input_ids": [5, 6]}, ([5, 6], [5, 6])),
    "labels null": ({"input_ids": [5, 6], "labels": None}, ([5, 6], [5, 6])),
    "whole mask": ({"input_ids": [5, 6], "labels": [-100, 6], "attention_mask": [1, 1]}, ([5, 6], [-100, 6])),
    "mask null": ({"input_ids": [5, 6], "labels": [-100, 6], "attention_mask": None}, ([5, 6], [-100, 6])),
}


@pytest.mark.parametrize("case", KEPT)
def test_ids_and_labels_stay(case: str) -> None:
    values, (ids, labels) = KEPT[case]
    assert outcome(values) == Converted(TokenIds(ids, labels, HERE))


@pytest.mark.parametrize(("mask", "kept"), [([0, 0, 1, 1], slice(2, 4)), ([1, 1, 1, 0], slice(0, 3)), ([0, 1, 1, 0], slice(1, 3))])
def test_padding_is_taken_out_and_told(mask: list[int], kept: slice) -> None:
    ids, labels = [5, 6, 7, 8], [-100, 6, 7, 8]
    assert outcome({"input_ids": ids, "labels": labels, "attention_mask": mask}) == Converted(
        TokenIds(ids[kept], labels[kept], HERE), (f"padding taken out: {4 - sum(mask)} tokens that attention_mask hides",))


def test_rows_left_out() -> None:
    assert outcome({"input_ids": [], "labels": []}) == Refusal("no tokens")
    assert outcome({"input_ids": [1], "labels": [1], "attention_mask": [0]}) == Refusal("no tokens", "attention_mask hides all of them")
    assert outcome({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}) == Refusal("attention_mask hides tokens between others")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "lengths": ({"input_ids": [1, 2], "labels": [1]}, "labels: 1 entries for 2 tokens"),
    "mask length": ({"input_ids": [1, 2], "attention_mask": [1]}, "attention_mask: 1 entries for 2 tokens"),
    "another label": ({"input_ids": [1, 2, 3], "labels": [-100, 2, 9]}, "labels[2]: 9 is neither -100 nor the token there, 3"),
    "negative label": ({"input_ids": [1, 2], "labels": [-1, 2]}, "labels[0]: -1 is neither -100 nor the token there, 1"),
    "shifted": ({"input_ids": [1, 2, 3], "labels": [2, 3, -100]},
                "labels[0]: 2 is neither -100 nor the token there, 1; labels stand at the place of their own token; undo the shift"),
    "negative id": ({"input_ids": [1, -2]}, "input_ids[1]: -2 is no token id"),
    "huge id": ({"input_ids": [1, 2**31]}, "input_ids[1]: 2147483648 is no token id"),
    "fraction": ({"input_ids": [1, 2.0]}, "input_ids[1]: integer wanted, found number 2.0"),
    "true": ({"input_ids": [True]}, "input_ids[0]: integer wanted, found boolean true"),
    "text": ({"input_ids": ["1"]}, "input_ids[0]: integer wanted, found string"),
    "labels text": ({"input_ids": [1], "labels": "1"}, "labels: array wanted, found string"),
    "mask of twos": ({"input_ids": [1], "attention_mask": [2]}, "attention_mask[0]: 0 or 1 wanted, found integer 2"),
    "nested": ({"input_ids": [[1, 2]]}, "input_ids[0]: integer wanted, found array"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_rows_name_line_and_key(case: str) -> None:
    values, message = WRONG[case]
    with pytest.raises(InputError) as caught:
        outcome(values)
    assert caught.value.line() == f"rows.jsonl:6: {message}" + ("" if ";" in message else "; correct the row, or take it out")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("tokens"))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("stage", ["sft", "pt"])
def test_a_conversation_trains_the_same_as_its_tokens(workspace: Workspace, tmp_path: Path, stage: str) -> None:
    """Oracle: the run on the rows of text. Its tokens, taken from its examples and written to a file, give the same losses."""
    from transformers import AutoTokenizer

    from tunewright.data.templates import load_renderer

    texts = ([{"messages": [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]} for word in "abcd"]
             if stage == "sft" else [{"text": f"some text on {word}"} for word in "abcd"])
    source = write(tmp_path / "text.jsonl", texts)
    settings: dict[str, Any] = {"stage": stage, "max_steps": 2, "packing": "false", "logging_steps": 1}
    run(workspace, tmp_path / "text", dataset=source, **settings)
    tokenizer = AutoTokenizer.from_pretrained(workspace.path / "model")
    config = RunConfig(run=RunControl(stage=stage), data=DataConfig(dataset=(source,), data_cache_dir="none", packing=False))
    examples = build(config, tokenizer, load_renderer(config.template, tokenizer) if stage == "sft" else None, report=str).train
    assert examples is not None
    rows = [{"input_ids": examples[at].input_ids.tolist(), "labels": examples[at].labels.tolist()} for at in range(4)]
    run(workspace, tmp_path / "ids", dataset=write(tmp_path / "ids.jsonl", rows), **settings)
    assert losses(tmp_path / "ids") == losses(tmp_path / "text")
    assert len(losses(tmp_path / "ids")) == 2


@pytest.mark.parametrize("more", [{}, {"streaming": "true", "max_steps": 1}])
def test_ids_that_the_tokenizer_does_not_have_stop_a_run(workspace: Workspace, tmp_path: Path, more: dict[str, Any]) -> None:
    """In one line that names the row. The tiny tokenizer's ids by transformers."""
    from transformers import AutoTokenizer

    size = len(AutoTokenizer.from_pretrained(workspace.path / "model"))
    rows = [{"input_ids": [5, 6, size - 1], "labels": [-100, 6, size - 1]}, {"input_ids": [5, 6, size], "labels": [-100, 6, size]}]
    source = write(tmp_path / "ids.jsonl", rows)
    with pytest.raises(InputError) as caught:
        run(workspace, tmp_path / "out", dataset=source, **more)
    assert caught.value.line() == (
        f"{source}:2: token id {size} is none of the vocabulary, which has {size}; use the tokenizer that belongs to the model")
