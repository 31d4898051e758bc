"""What the options of mixtures, evaluation sets and streams change in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.effects.engine_runs import config, history, losses, run
from tunewright.data.pipeline import Prepared, build
from tunewright.data.streaming.stream import Stream
from tunewright.data.templates import load_renderer
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import WORDS, write_rows
from tunewright.selftest.workspace import Workspace


def prepared(workspace: Workspace, output_dir: Path, **changes: Any) -> tuple[Prepared, list[str]]:
    """The data of a run, and what was said of it."""
    chosen = config(workspace, output_dir, **changes)
    tokenizer = load_tokenizer(chosen.model, chosen.tokenizer)
    said: list[str] = []
    return build(chosen, tokenizer, load_renderer(chosen.template, tokenizer), report=said.append), said


def two_sets(workspace: Workspace) -> str:
    """Sets of 3 and 5 rows, one word each, whose question says which row it is."""
    for name, count in (("three", 3), ("five", 5)):
        (workspace.path / f"{name}.jsonl").write_text("".join(
            json.dumps({"instruction": f"{name} {number}", "output": WORDS[number]}) + "\n" for number in range(count)))
    return f"{workspace.path}/three.jsonl,{workspace.path}/five.jsonl"


def rows(found: Prepared) -> list[tuple[str, int]]:
    """Which rows the training set has, in its order, before it is shuffled."""
    train = found.train
    assert train is not None and not isinstance(train, Stream)
    return [(Path(train.origin(number).file).stem, train.origin(number).index) for number in range(len(train))]


@pytest.mark.effect("mix_strategy")
def test_mix_strategy(workspace: Workspace, tmp_path: Path) -> None:
    """Worked by hand: sets of 3 and 5 rows one after the other; in turns to the end of the shorter; to that of the longer, the shorter
    beginning anew; and until each row was there once."""
    dataset = two_sets(workspace)
    three, five = [("three", number) for number in range(3)], [("five", number) for number in range(5)]
    turns = [row for pair in zip(three, five, strict=False) for row in pair]
    expected = {"concat": three + five, "interleave_under": turns, "interleave_once": turns + five[3:],
                "interleave_over": [*turns, three[0], five[3], three[1], five[4]]}
    for strategy, order in expected.items():
        found, said = prepared(workspace, tmp_path, dataset=dataset, mix_strategy=strategy)
        assert rows(found) == order
        assert any(line.startswith(f"mixture ({strategy}): {len(order)} rows") for line in said) == (strategy != "concat")


@pytest.mark.effect("interleave_probs")
def test_interleave_probs(workspace: Workspace, tmp_path: Path) -> None:
    """Nine of ten rows from the one set: of 30 rows that end with it, about 3 from the other; and the other way round. The seed decides
    which."""
    for name in ("left", "right"):
        write_rows(workspace.path / f"{name}.jsonl", 30)
    dataset = f"{workspace.path}/left.jsonl,{workspace.path}/right.jsonl"
    mixed = {"dataset": dataset, "mix_strategy": "interleave_under"}
    mostly_left, mostly_right, other_seed = (rows(prepared(workspace, tmp_path, **mixed, interleave_probs=chosen, data_seed=seed)[0])
                                             for chosen, seed in (("0.9,0.1", 1), ("0.1,0.9", 1), ("0.9,0.1", 2)))
    assert sum(name == "left" for name, _ in mostly_left) == 30 and sum(name == "right" for name, _ in mostly_left) < 10
    assert sum(name == "right" for name, _ in mostly_right) == 30 and sum(name == "left" for name, _ in mostly_right) < 10
    assert other_seed != mostly_left


def test_rows_held_out_of_a_mixture(workspace: Workspace, tmp_path: Path) -> None:
    """A row that is held out is in training neither time that it is drawn; fraction and count are of the rows, not of their repeats."""
    dataset = two_sets(workspace)
    for val_size, count in ((0.25, 2), (3, 3)):
        found, _ = prepared(workspace, tmp_path, dataset=dataset, mix_strategy="interleave_over", val_size=val_size)
        held_out = {(Path(one.file).stem, one.index) for one in map(found.evaluation["validation"].origin,
                                                                    range(len(found.evaluation["validation"])))}
        assert len(held_out) == count and not held_out & set(rows(found)) and len(held_out | set(rows(found))) == 8


@pytest.mark.effect("eval_on_each_dataset")
def test_eval_on_each_dataset(workspace: Workspace, tmp_path: Path) -> None:
    """One loss for all, or one for each set and one for all: the mean over all tokens lies between them. The best model may be chosen by
    that of one set."""
    write_rows(workspace.path / "hard.jsonl", 4, seed=9)
    common = {"eval_dataset": f"{workspace.path}/held_out.jsonl,{workspace.path}/hard.jsonl", "max_steps": 2, "save_steps": 1,
              "eval_strategy": "steps", "eval_steps": 1}
    run(workspace, tmp_path / "together", **common)
    run(workspace, tmp_path / "each", **common, eval_on_each_dataset=True, load_best_model_at_end=True, metric_for_best_model="hard_loss")
    together, each = ([entry for entry in history(tmp_path / name) if "eval_loss" in entry] for name in ("together", "each"))
    assert not [name for name in together[0] if "hard" in name or "held_out" in name]
    for one, several in zip(together, each, strict=True):
        assert several["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)
        low, high = sorted((several["eval_hard_loss"], several["eval_held_out_loss"]))
        assert low < several["eval_loss"] < high
    state = json.loads((tmp_path / "each" / "trainer_state.json").read_text())
    assert state["best_metric"] == min(entry["eval_hard_loss"] for entry in each)


def test_evaluation_sets_by_name(workspace: Workspace, tmp_path: Path) -> None:
    """A mapping names the sets; each is evaluated by itself without being asked."""
    sets = json.dumps({"quick": str(workspace.path / "held_out.jsonl"), "slow": {"file_name": str(workspace.path / "rows.jsonl")}})
    run(workspace, tmp_path, eval_dataset=sets, max_steps=1, eval_strategy="steps", eval_steps=1, save_strategy="no")
    entry = next(entry for entry in history(tmp_path) if "eval_loss" in entry)
    assert {"eval_loss", "eval_quick_loss", "eval_slow_loss"} <= entry.keys()


@pytest.mark.effect("streaming")
def test_streaming(workspace: Workspace, tmp_path: Path) -> None:
    """Nothing is tokenised before the first step; in the order of the files the run is that of the whole set, loss by loss."""
    common = {"disable_shuffling": True, "max_steps": 8, "logging_steps": 1, "save_strategy": "no"}
    run(workspace, tmp_path / "whole", **common)
    run(workspace, tmp_path / "stream", **common, streaming=True)
    assert losses(tmp_path / "stream") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 8
    found, said = prepared(workspace, tmp_path, streaming=True, max_steps=1)
    assert isinstance(found.train, Stream) and "train: a stream from 1 files, shuffled 16384 rows at a time" in said
    assert not [line for line in said if "rows used" in line]


@pytest.mark.effect("buffer_size")
def test_buffer_size(workspace: Workspace, tmp_path: Path) -> None:
    """Rows move within their block only: with one row in memory they stay where they are, with all 22 they go anywhere."""
    def order(size: int) -> list[int]:
        train = prepared(workspace, tmp_path, streaming=True, max_steps=1, buffer_size=size)[0].train
        assert isinstance(train, Stream)
        return [raw.row for raw in train.order.slots(0, 0)]

    assert order(1) == list(range(22))
    assert [sorted(order(5)[at : at + 5]) for at in (0, 5, 10, 15)] == [list(range(at, at + 5)) for at in (0, 5, 10, 15)]
    assert order(5) != order(1) and sorted(order(22)) == list(range(22)) and max(order(22)[:5]) > 9


def test_a_stream_of_some_rows(workspace: Workspace, tmp_path: Path) -> None:
    """max_samples ends each set; a set that draws its rows at random is refused."""
    train = prepared(workspace, tmp_path, streaming=True, max_steps=1, max_samples=6)[0].train
    assert isinstance(train, Stream) and sorted(raw.row for raw in train.order.slots(0, 0)) == list(range(6))
    with pytest.raises(Exception, match="num_samples draws from all rows of a set, but streaming is on"):
        prepared(workspace, tmp_path, streaming=True, max_steps=1, dataset=f"{workspace.path / 'rows.jsonl'}#5")
