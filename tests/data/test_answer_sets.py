"""Sets of pairs, marked answers and prompts: mixed, held out, kept, streamed. Oracles: rows written out by hand, and counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.data.test_answer_rows import pair, split, write
from tests.data.test_lengths import answer, question
from tests.data.test_pipeline import Build, conversation, make, renderer, rows, said, tokenizer  # noqa: F401 - fixtures
from tunewright.cli import main
from tunewright.config.data import DataConfig
from tunewright.config.optimization import BatchingConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.data import pipeline
from tunewright.data.collate_pairs import collate_pairs_flat
from tunewright.data.examples import ExampleSet, StoreBuilder, Tokens
from tunewright.data.records import Message, Origin
from tunewright.data.streaming.stream import Stream
from tunewright.engine.batches import Loading, Share
from tunewright.engine.streams import StreamBatches
from tunewright.errors import InputError
from tunewright.selftest.tiny import write_model

ANSWERS = ("chosen", "rejected", "completion")
SAME_TEXT, NO_ANSWER = 3, 5
"""Numbers of rows that are dropped."""


def pairs(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows whose question, better and worse answer are words `n`, `n + 20` and `n + 40`; two of eight are not used."""
    found = []
    for number in range(first, first + count):
        row = {"instruction": f"w{number}", "chosen": f"w{number + 20}", "rejected": f"w{number + 40}"}
        found.append({**row, "rejected": row["chosen"]} if number % 8 == SAME_TEXT else {**row, "instruction": "w1 " * 70}
                     if number % 8 == NO_ANSWER else row)
    return found


def wanted(numbers: list[int]) -> list[list[tuple[list[int], list[int]]]]:
    """Oracle."""
    return [pair(question(number), answer(number + 20), answer(number + 40)) for number in numbers]


def kept(numbers: range) -> list[int]:
    return [number for number in numbers if number % 8 not in (SAME_TEXT, NO_ANSWER)]


def every(examples: Any) -> list[list[tuple[list[int], list[int]]]]:
    return [split(examples[index]) for index in range(len(examples))]


def test_a_dropped_row_takes_both_answers_with_it(make: Build, said: list[str]) -> None:  # noqa: F811
    """Equal answers, and a prompt that leaves no room for an answer; the audit has both, and the pairs behind them stay pairs."""
    write(*pairs(16))
    prepared = make(stage="dpo", dataset=("a.jsonl",), cutoff_len=64)
    assert every(prepared.train) == wanted(kept(range(16)))
    (audit,) = prepared.audit.sets
    assert [(note.origin.line, note.action, note.reason) for note in audit.notes] == [
        (4, "dropped", "chosen and rejected are the same"), (6, "dropped", "no trainable token"),
        (12, "dropped", "chosen and rejected are the same"), (14, "dropped", "no trainable token")]
    assert said[-1] == "train: 12 pairs, 264 tokens, 48 of them trained, longest 22"


@pytest.mark.parametrize("workers", [1, 3])
def test_the_cache_keeps_pairs(make: Build, said: list[str], workers: int) -> None:  # noqa: F811
    """The second run finds them; another stage, whose rows may be the same, has an entry of its own."""
    write(*pairs(16))
    settings = {"dataset": ("a.jsonl",), "preprocessing_num_workers": workers, "preprocessing_batch_size": 5, "cutoff_len": 64}
    first = make(stage="dpo", **settings)
    again = make(stage="dpo", **settings)
    assert next(line for line in said if line.startswith("token cache")).startswith("token cache: hit")
    assert every(again.train) == every(first.train) == wanted(kept(range(16)))
    assert again.train.digest() == first.train.digest()  # type: ignore[union-attr]
    make(stage="rm", **settings)
    assert next(line for line in said if line.startswith("token cache")) == (
        "token cache: miss for a.jsonl: stage changed since it was last tokenised")


@pytest.mark.effect("max_samples", "val_size", "eval_dataset")
def test_rows_are_counted_as_pairs(make: Build, said: list[str]) -> None:  # noqa: F811
    """The first 10 rows hold 8 pairs; of these 3 are held out, whole, in data order; evaluation sets are pairs too."""
    write(*pairs(16))
    prepared = make(stage="dpo", dataset=("a.jsonl",), max_samples=10, val_size=3.0, cutoff_len=64)
    held_out = prepared.evaluation["validation"]
    both = every(prepared.train) + every(held_out)
    assert len(prepared.train) == 5 and len(held_out) == 3  # type: ignore[arg-type]
    assert sorted(both) == sorted(wanted(kept(range(10))))
    assert not {str(one) for one in every(prepared.train)} & {str(one) for one in every(held_out)}
    write(*pairs(2), name="b.jsonl")
    prepared = make(stage="rm", dataset=("a.jsonl",), eval_dataset=("b.jsonl",), cutoff_len=64)
    assert every(prepared.evaluation["validation"]) == wanted([0, 1])
    assert said[-1] == "validation: 2 pairs, 44 tokens, 8 of them trained, longest 22, not packed"


def test_a_row_drawn_twice_is_two_pairs(make: Build) -> None:  # noqa: F811
    """Six draws of four rows: each row once, two of them again, also where a row follows itself."""
    write(*pairs(3))
    train = make(stage="dpo", dataset=({"file_name": "a.jsonl", "num_samples": 7},)).train
    assert len(train) == 7 and {len(one) for one in every(train)} == {2}  # type: ignore[arg-type]
    assert {str(one) for one in every(train)} == {str(one) for one in wanted([0, 1, 2])}


@pytest.mark.parametrize(("strategy", "numbers"), [
    ("concat", [0, 1, 2, 10, 12, 14, 15]), ("interleave_under", [0, 10, 1, 12, 2, 14]),
    ("interleave_over", [0, 10, 1, 12, 2, 14, 0, 15]), ("interleave_once", [0, 10, 1, 12, 2, 14, 15])])
def test_mixtures_take_pairs_in_turns(make: Build, strategy: str, numbers: list[int]) -> None:  # noqa: F811
    """Three pairs and four, by hand."""
    write(*pairs(4))
    write(*pairs(6, 10), name="b.jsonl")
    assert every(make(stage="dpo", dataset=("a.jsonl", "b.jsonl"), mix_strategy=strategy, cutoff_len=64).train) == wanted(numbers)


@pytest.mark.effect("tokenized_path")
def test_prepared_sets_keep_pairs_and_marks(make: Build, said: list[str]) -> None:  # noqa: F811
    """A second run reads the folder; marks come back, and a set without any has no file of them."""
    write(*pairs(8))
    for _ in range(2):
        prepared = make(stage="dpo", dataset=("a.jsonl",), tokenized_path="pairs", val_size=2.0, cutoff_len=64)
        assert sorted(every(prepared.train) + every(prepared.evaluation["validation"])) == sorted(wanted(kept(range(8))))
        Path("a.jsonl").unlink(missing_ok=True)
    assert said[-2:] == ["train: 4 pairs, 88 tokens, 16 of them trained, longest 22",
                         "validation: 2 pairs, 44 tokens, 8 of them trained, longest 22"]
    assert not list(Path("pairs").rglob("marks.npy"))
    write(*({"prompt": f"w{number}", "completion": "w9", "label": number % 3 == 0} for number in range(7)))
    for _ in range(2):
        marks = [example.mark for example in make(stage="kto", dataset=("a.jsonl",), tokenized_path="marked").train]  # type: ignore
        assert marks == [1, -1, -1, 1, -1, -1, 1]


def test_the_cache_keeps_marks(make: Build, said: list[str]) -> None:  # noqa: F811
    """Rows of several shards, one of which has no row at all; a damaged file of marks is noticed."""
    broken = {"messages": [{"role": "user", "content": "w1"}], "label": True}
    marked = [{"messages": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}], "label": number % 2 == 0}
              for number in range(5)]
    write(*marked[:3], broken, broken, *marked[3:])
    for begin in ("token cache: miss", "token cache: hit"):
        train = make(stage="kto", dataset=("a.jsonl",), preprocessing_batch_size=2).train
        assert [example.mark for example in train] == [1, -1, 1, -1, 1]  # type: ignore[union-attr, attr-defined]
        assert next(line for line in said if line.startswith("token cache")).startswith(begin)
    (found,) = Path("cache").glob("*/marks.npy")
    held = bytearray(found.read_bytes())
    held[-1] ^= 2
    found.write_bytes(held)
    train = make(stage="kto", dataset=("a.jsonl",)).train
    assert any("marks.npy does not match its checksum" in line for line in said)
    assert [example.mark for example in train] == [1, -1, 1, -1, 1]  # type: ignore[union-attr, attr-defined]


def store(*marks: int) -> Any:
    builder = StoreBuilder(("a",))
    for number, mark in enumerate(marks):
        builder.add(Tokens(np.array([7, number], np.int32), np.array([-100, number], np.int32), mark), Origin("a", number))
    return builder.build()


def test_the_digest_has_the_marks_where_there_are_some() -> None:
    """Without marks it is what it was before there were any: SHA-256 over ids, labels, offsets, members and bounds."""
    plain, marked, other = (ExampleSet.of([store(*marks)]) for marks in ((0, 0), (1, -1), (-1, 1)))
    arrays = [np.array([7, 0, 7, 1], np.int32), np.array([-100, 0, -100, 1], np.int32), np.array([0, 2, 4]),
              np.array([[0, 0], [0, 1]]), np.array([0, 1, 2])]
    assert plain.digest() == hashlib.sha256(b"".join(one.tobytes() for one in arrays)).hexdigest()
    assert len({plain.digest(), marked.digest(), other.digest(), ExampleSet.of([store(0, 0)], 2).digest()}) == 4


def test_a_part_of_a_set_of_pairs() -> None:
    """Pairs 2 and 0 of three."""
    found = ExampleSet.of([store(0, 0), store(0, 0, 0, 0)], 2).subset(np.array([2, 0]))
    assert [example.input_ids.tolist() for example in found] == [[7, 2, 7, 3], [7, 0, 7, 1]]  # type: ignore[attr-defined]
    assert found.bounds.tolist() == [0, 2, 4] and found.lengths.tolist() == [4, 4]


@pytest.mark.parametrize(("stage", "kind"), [("dpo", "pairs of answers"), ("kto", "answers that are called good or bad")])
def test_rows_of_another_kind_are_refused(make: Build, stage: str, kind: str) -> None:  # noqa: F811
    Path("a.jsonl").write_text(conversation(1, 2))
    with pytest.raises(InputError) as caught:
        make(stage=stage, dataset=("a.jsonl",))
    assert caught.value.message == f"stage {stage} trains on {kind}, but these rows are conversations"


@pytest.mark.parametrize("stage", ["rm", "kto", "grpo"])
def test_long_rows_are_not_split(make: Build, stage: str) -> None:  # noqa: F811
    write({"prompt": "w1", "chosen": "w2", "rejected": "w3", "completion": "w2", "label": True})
    with pytest.raises(InputError, match="cutoff_policy: split makes several rows of a long one"):
        make(stage=stage, dataset=("a.jsonl",), cutoff_policy="split")


@pytest.mark.parametrize("row", [
    {"prompt": "ember", "chosen": "dune", "rejected": "candle river"}, {"prompt": "ember", "completion": "dune", "label": False},
    {"prompt": "ember"}], ids=["pair", "feedback", "prompt"])
def test_data_check_counts_tokens(row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer row of a pair, and the longer answer: counted by transformers on the text of prompt and answers."""
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path / "model")
    write(row)
    assert main(["data", "check", "a.jsonl", f"model_name_or_path={model}", "--json", "r.json", *(
        ["stage=grpo"] if len(row) == 1 else [])]) == 0
    fast = AutoTokenizer.from_pretrained(model)
    count = [len(fast(text)["input_ids"]) for text in (
        "<|im_start|>user\nember<|im_end|>\n<|im_start|>assistant\n", *(f"{row[key]}<|im_end|>" for key in row if key in ANSWERS))]
    (found,) = json.loads(Path("r.json").read_text())["sets"]
    assert found["tokens"]["lengths"]["most"] == count[0] + max(count[1:], default=0)
    assert found["tokens"]["trained"]["most"] == max(count[1:], default=0)


def test_pairs_are_predicted_beside_their_better_answer(make: Build) -> None:  # noqa: F811
    write(*pairs(2))
    prepared = make(stage="dpo", do_train=False, eval_dataset=("a.jsonl",))
    assert [(row.messages, row.label) for row in prepared.prompts()] == [
        ((Message("user", f"w{number}"),), f"w{number + 20}") for number in range(2)]


@pytest.mark.parametrize("stage", ["kto", "grpo"])
def test_nothing_is_predicted_without_a_good_answer(make: Build, stage: str) -> None:  # noqa: F811
    write({"prompt": "w1", "completion": "w2", "label": True} if stage == "kto" else {"prompt": "w1"})
    with pytest.raises(InputError) as caught:
        make(stage=stage, do_train=False, eval_dataset=("a.jsonl",)).prompts()
    assert caught.value.line() == ("a.jsonl:1: prediction compares with answers, and these rows have none that are known to be good; "
                                   "set stage: sft, and give conversations")


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, renderer: Any) -> Iterator[Any]:  # noqa: F811
    monkeypatch.chdir(tmp_path)

    def opened(stage: str, **data: Any) -> Any:
        run = RunConfig(run=RunControl(stage=stage), batching=BatchingConfig(disable_shuffling=True),
                        data=DataConfig(dataset=("a.jsonl",), streaming=True, cutoff_len=64, **data))
        return pipeline.build(run, tokenizer, renderer, report=lambda line: None)

    yield opened


def test_streams_of_pairs_and_prompts(stream: Any) -> None:
    """The same pairs in order, some held out; prompts by themselves."""
    write(*pairs(16))
    prepared = stream("dpo", val_size=4.0)
    assert every(prepared.evaluation["validation"]) == wanted([0, 1, 2])
    assert isinstance(prepared.train, Stream) and every(prepared.train.head(12)) == wanted(kept(range(4, 16)))
    write(*({"prompt": f"w{number}"} for number in range(3)))
    assert rows(stream("grpo").train.head(3)) == [(question(number), [-100] * 9) for number in range(3)]


def test_batches_of_a_stream_of_pairs(stream: Any) -> None:
    """Two ranks with four slots of a step: a pair whose slot holds no row is nobody's; a rank without any has no sequence."""
    write(*pairs(5))
    for rank, counts in ((0, [4, 2]), (1, [2, 0])):
        batches = StreamBatches(stream("dpo").train, Share(2, 1, rank, 2), Loading(collate_pairs_flat, 0, 60))
        found = [window.batches[0] for window in batches.windows(0, 0)]
        assert [batch.sequences.count for batch in found] == counts  # type: ignore[union-attr]
        assert [len(batch.sample_ids) for batch in found] == [count // 2 for count in counts]


@pytest.mark.parametrize("stage", ["dpo", "kto", "grpo"])
def test_prepare_and_preview(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands: pairs are shown answer by answer, marks and prompts by what they are."""
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path / "model")
    row = {"dpo": {"prompt": "ember", "chosen": "dune", "rejected": "candle"}, "kto": {"prompt": "ember", "completion": "dune",
           "label": False}, "grpo": {"prompt": "ember"}}[stage]
    Path("a.jsonl").write_text(json.dumps(row) + "\n")
    words = [f"model_name_or_path={model}", "dataset=a.jsonl", f"stage={stage}", "data_cache_dir=cache"]
    assert main(["prepare", *words]) == 0 and main(["preview", *words]) == 0
    assert "token cache: hit" in capsys.readouterr().err
    assert main(["preview", *words]) == 0
    asked = ["<|im_start|>user⏎", "ember<|im_end|>⏎", "<|im_start|>assistant⏎"]
    shown = [line for line in capsys.readouterr().out.splitlines() if line]
    heads = [line for line in shown if line.startswith(("row", "segment", "chosen", "rejected"))]
    lines = [line for line in shown if line not in heads]
    if stage == "dpo":
        assert lines == [*asked, "⟦dune<|im_end|>⟧", *asked, "⟦candle<|im_end|>⟧"]
        assert [line.split(",")[0] for line in heads[1:]] == ["chosen", "rejected"] and "packed" not in heads[0]
    else:
        assert lines == ([*asked, "⟦dune<|im_end|>⟧"] if stage == "kto" else asked)
        assert heads[0].endswith(", called undesirable") == (stage == "kto")
