"""The benchmark of training: its rows are what it says they are, and it runs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training
from benchmarks.parts import PARTS, Case, Part, cases_of, parts_of
from benchmarks.sft_rows import Row, Workload, packs_of, read_sft, write_sft
from benchmarks.sides import SIDES, sides_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tunewright.selftest.tiny import write_model

    return write_model(tmp_path_factory.mktemp("tiny"))


def rows_of(kind: str, tokenizer: Path, folder: Path, batches: tuple[int, int, int]) -> tuple[Workload, list[Row]]:
    work = write_sft(folder / "rows.jsonl", kind, tokenizer, batches)
    return work, read_sft(folder / "rows.jsonl")


@pytest.mark.parametrize("batch", [4, 8])
def test_long_tailed_rows_pad_as_public_instruction_data_does(tokenizer: Path, tmp_path: Path, batch: int) -> None:
    """Measured on 600 rows of public instruction data: mean 191 tokens, 40 % labels, 53 to 63 % of a batch of 8 or 4 random rows is no
    padding. Counted here again from the rows."""
    work, rows = rows_of("long-tailed", tokenizer, tmp_path, (11, 1, batch))
    lengths = [len(row.input_ids) for row in rows]
    assert len(rows) == 11 * batch and sum(lengths) / len(rows) == pytest.approx(191, rel=0.03)
    counted = rows[batch:]
    padded = sum(batch * max(lengths[first : first + batch]) for first in range(batch, len(rows), batch))
    assert work.counted_tokens == sum(len(row.input_ids) for row in counted)
    assert work.counted_trained == sum(label != -100 for row in counted for label in row.labels)
    assert 0.53 <= work.counted_tokens / padded <= 0.63 and work.counted_padded == padded
    assert work.counted_trained / work.counted_tokens == pytest.approx(0.4, abs=0.05)


def test_packed_rows_are_a_sequence_a_step(tokenizer: Path, tmp_path: Path) -> None:
    """Counted here again: each row is in one sequence, no sequence has more tokens than four rows of 256, and the first is not timed."""
    work, rows = rows_of("packed", tokenizer, tmp_path, (5, 1, 4))
    packs = packs_of(tmp_path / "rows.jsonl", 4)
    lengths = [sum(len(rows[row].input_ids) for row in numbers) for numbers in packs]
    assert sorted(row for numbers in packs for row in numbers) == list(range(len(rows))) and work.rows == len(rows) == 25
    assert len(packs) == 5 and max(lengths) <= 1024 and min(map(len, packs)) > 1
    assert work.counted_tokens == sum(lengths[1:]) and work.counted_padded == 4 * 1024 and work.efficiency > 0.85
    assert work.counted_trained == sum(label != -100 for numbers in packs[1:] for row in numbers for label in rows[row].labels)
    with pytest.raises(SystemExit, match="rows for 5 steps do not fill as many sequences of 256 tokens"):
        write_sft(tmp_path / "few.jsonl", "packed", tokenizer, (5, 1, 1))


def test_a_row_is_a_question_and_an_answer_that_is_trained(tokenizer: Path, tmp_path: Path) -> None:
    """A label is -100 up to somewhere and the token at its own place from there on; the last one is the end of the turn."""
    from tokenizers import Tokenizer

    end = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).token_to_id("<|im_end|>")
    for kind in ("uniform", "long-tailed"):
        _, rows = rows_of(kind, tokenizer, tmp_path, (7, 1, 4))
        for row in rows:
            trained = next(place for place, label in enumerate(row.labels) if label != -100)
            assert len(row.labels) == len(row.input_ids) and row.labels[trained:] == row.input_ids[trained:]
            assert row.input_ids[-1] == end and trained > 0
        assert kind == "long-tailed" or {(len(row.input_ids), sum(label != -100 for label in row.labels)) for row in rows} == {(192, 76)}
    assert rows == rows_of("long-tailed", tokenizer, tmp_path, (7, 1, 4))[1]


def test_names_of_sides() -> None:
    """Groups and names may be mixed; each side takes part once; what is unknown is told."""
    assert sides_of("own,trainer,trl") == ("tunewright", "trainer", "trl")
    assert all((ROOT / "benchmarks" / "drivers" / f"{side.driver}.py").is_file() for side in SIDES.values())
    with pytest.raises(SystemExit, match=r"no side is called axe; there are peers, .*, tunewright"):
        sides_of("own,axe")


def test_parts() -> None:
    """What is not given is as it is without; sides that are given take part in every case, once."""
    assert parts_of(None, None, None) == PARTS and all(part.rounds == 2 for part in parts_of(None, None, 2))
    main, other = cases_of("long-tailed/lora/1,uniform/full/4")
    assert (main, other) == (("long-tailed", "lora", 1), ("uniform", "full", 4))
    assert parts_of((main,), None, None) == tuple(part for part in PARTS if part.case == main)
    assert parts_of((other,), None, None) == (Part(other, PARTS[0].sides, PARTS[0].rounds),)
    assert parts_of((main, other), ("trl",), 1) == (Part(main, ("trl",), 1), Part(other, ("trl",), 1))
    with pytest.raises(argparse.ArgumentTypeError, match="uniform/qlora/1: "):
        cases_of("uniform/qlora/1")


def test_minutes_of_a_part() -> None:
    """By hand: 10 rows of 191 tokens on 100 million weights are 4 x 0.1 x 1910 = 764 GFLOP, at 100 GFLOP/s and the shares 0.65 and 0.29
    11.754 and 26.345 s; two rounds of both, each 14 s to begin: 132.198 s."""
    part = Part(Case("uniform", "lora", 1), ("tunewright", "trl"), 2)
    assert part.minutes(10, 100_000_000, 100.0) == pytest.approx(132.198 / 60, rel=1e-4)


def test_sides_take_turns_and_are_compared(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second round in the other order, after the machine's own speed; a side that logs another loss, and one that fails, are told.
    What processes would say is given here."""
    job: list[tuple[str, Path]] = []

    def said(driver: str, python: Path, work: dict[str, Any], threads: int, folder: Path) -> dict[str, Any]:
        job.append((driver, python))
        if driver == "trl_sft":
            return {"failure": "exit code 1: no"}
        return {"losses": [2.5, 2.25 if driver == "plain_trainer" else 2.26], "cpu": 1.0, "wall": 1.0, "peak_mb": 1, "work": work}

    monkeypatch.setattr(training, "ran", said)
    monkeypatch.setattr(training, "untrained_adapter", lambda model, folder: folder / "adapter")
    wish, here = argparse.Namespace(folder=tmp_path, model=tokenizer, steps=2, batch=1), Path(sys.executable)
    part = Part(Case("uniform", "lora", 1), ("tunewright", "trainer", "trl"), 2)
    faults = training._measure(part, range(2), wish, {"trl": Path("theirs")}, training.Log(tmp_path / "found.jsonl"))
    turns = [("own_training", here), ("plain_trainer", here), ("trl_sft", Path("theirs"))]
    assert job == [("ceiling", here), *turns, ("ceiling", here), *reversed(turns)]
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["round"], line["side"]) for line in lines if line["what"] == "side"] == [
        (0, "tunewright"), (0, "trainer"), (0, "trl"), (1, "trl"), (1, "trainer"), (1, "tunewright")]
    assert len(faults) == 2 and faults[0].endswith(": exit code 1: no")
    assert "tunewright, " in faults[1] and "are up to 1.0e-02 from those of trainer" in faults[1]


@pytest.mark.slow
def test_quick_benchmark_runs_and_both_sides_log_the_same_losses(tmp_path: Path) -> None:
    """Oracle for the losses: plain transformers Trainer + peft, at every step, to 1e-4; the benchmark itself says when they differ."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "training.py"), "--quick", "--cases", "long-tailed/lora/1,packed/lora/1",
         "--rounds", "1", "--folder", str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "quick.jsonl").read_text(encoding="utf-8").splitlines()]
    for kind, number in (("long-tailed", 0), ("packed", 1)):
        runs = [line for line in lines if line["what"] == "side" and line["kind"] == kind]
        assert [(line["round"], line["side"]) for line in runs] in ([(number, "tunewright"), (number, "trainer")],
                                                                    [(number, "trainer"), (number, "tunewright")])
        for line in runs:
            assert line["losses"] == pytest.approx(runs[1]["losses"], abs=1e-4)
            assert line["tokens"] == runs[0]["tokens"] > 0 and min(line["cpu"], line["wall"], line["peak_mb"], line["cpu_before"]) > 0
    assert len([line for line in lines if line["what"] == "ceiling" and line["gflop_per_cpu_s"] > 0]) == 2
