"""The page of the benchmarks: figures worked by hand from lines written here, and the page in docs from the results in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.generation import compared
from benchmarks.measured import read_cases
from benchmarks.table import page
from benchmarks.targets import spread

ROOT = Path(__file__).resolve().parents[2]
CASE = {"kind": "long-tailed", "tuning": "lora", "threads": 1}


def line(what: str, run: str = "2026-01-01T00:00:00Z", **told: Any) -> dict[str, Any]:
    return {"run": run, "what": what, **({} if what == "machine" else CASE), **told}


def side(name: str, number: int, cpu: float, peak: int, **told: Any) -> dict[str, Any]:
    return line("side", side=name, round=number, tokens=1000, cpu=cpu, wall=2 * cpu, cpu_before=7.0, peak_mb=peak, losses=[2.5, 2.4],
                versions={"torch": "1.0"}, **told)


LINES = [
    line("machine", processor="abacus", cores=2, model="small", parameters=50_000_000),
    line("workload", rows=8, batch=4, mean_tokens=191.0, longest=700, counted_tokens=1000, counted_trained=400, counted_padded=1600,
         efficiency=0.625, steps=2),
    line("ceiling", round=0, gflop_per_cpu_s=100.0), line("ceiling", round=1, gflop_per_cpu_s=50.0),
    side("tunewright", 0, 4.0, 1500), side("trainer", 0, 10.0, 6000), side("trainer", 1, 24.0, 6000), side("tunewright", 1, 8.0, 1500),
    side("tunewright-without-loss", 0, 5.0, 2000), line("side", side="trl", round=0, tokens=1000, failure="exit code 1: none")]


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    (folder / "training.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def test_figures_are_medians_of_rounds_and_ratios_of_pairs(tmp_path: Path) -> None:
    """By hand. Ours takes 4 and 8 s for 1000 tokens: 250 and 125 tokens per CPU s, half of that by the clock. Plain Trainer's 10 and 24 s
    are 2.5 and 3 times ours of the same round, not 17 / 6. A token is 4 x 50 million operations: 0.2 GFLOP; 250 x 0.2 of 100 and 125 x 0.2
    of 50 are half the ceiling each."""
    text = page(written(tmp_path, LINES))
    assert ("| tunewright | 187.5 (125.0 to 250.0) | 93.8 (62.5 to 125.0) |  |  | 50 % | 1500 | 7 | 2.50000 |") in text
    assert "| plain Trainer + peft | 70.8 (41.7 to 100.0) | 35.4 (20.8 to 50.0) | 2.75 (2.50 to 3.00) | 2.75 (2.50 to 3.00) | " in text
    assert "| LoRA SFT, long-tailed rows: times the speed of plain Trainer + peft | at least 2.3 | 2.75 (2.50 to 3.00) | met |" in text
    assert "share of the matrix-product ceiling | at least 65 % | 50 % | **missed** |" in text
    assert "| LoRA SFT, long-tailed rows: peak memory over plain Trainer's, same batches | at most 0.5 | 0.25 | met |" in text
    assert "| LoRA SFT, uniform rows: times the speed of plain Trainer + peft | at least 1.5 | | not measured |" in text
    assert "| without loss | 1.25 | 2000 |" in text
    assert "| TRL, default (checkpointing) | failed: exit code 1: none |" in text
    assert "40 % of them with a label; 38 % of a padded batch is padding" in text


def test_packed_rows_are_told_as_such(tmp_path: Path) -> None:
    """By hand: one timed step of 1600 places, of which 600 are left."""
    text = page(written(tmp_path, [{**one, "kind": "packed"} if "kind" in one else one for one in LINES]))
    assert "## Training: packed rows, LoRA of rank 8" in text
    assert "rows packed into one sequence of up to 1600 tokens a step; 191 tokens on average, 700 at the most; 1 steps are timed" in text
    assert "38 % of their room is left. abacus" in text


def test_parts_of_different_runs_are_put_together(tmp_path: Path) -> None:
    """By hand. A later run of tunewright alone, which takes 2 and 4 s, is what is shown of it; plain Trainer is compared with the
    tunewright of its own rounds all the same: 10 / 4 and 24 / 8."""
    later = [{**one, "run": "2026-02-02T00:00:00Z", **({"cpu": one["cpu"] / 2} if "cpu" in one else {})} for one in LINES
             if one.get("side", "tunewright") == "tunewright"]
    (case,) = read_cases(written(tmp_path, [*LINES, *later]) / "training.jsonl")
    assert [list(turn.values()) for turn in ({key: line["cpu"] for key, line in case.runs[side].items()}
                                             for side in ("tunewright", "trainer"))] == [[2.0, 4.0], [10.0, 24.0]]
    assert case.ratios("trainer", "cpu") == [2.5, 3.0]


@pytest.mark.parametrize("change", [{"counted_tokens": 900}, {"model": "large"}])
def test_runs_of_other_rows_or_models_are_not_put_together(tmp_path: Path, change: dict[str, Any]) -> None:
    """A newer run whose rows or model are others is shown alone."""
    later = [{**one, "run": "2026-02-02T00:00:00Z", **{name: new for name, new in change.items() if name in one}} for one in LINES
             if one.get("side", "tunewright") == "tunewright"]
    (case,) = read_cases(written(tmp_path, [*LINES, *later]) / "training.jsonl")
    assert list(case.runs) == ["tunewright"] and list(case.own) == [("2026-02-02T00:00:00Z", 0), ("2026-02-02T00:00:00Z", 1)]


def test_no_figure_without_a_measurement(tmp_path: Path) -> None:
    """A page can be made before anything was measured, and from a run whose other half is missing."""
    assert "## Training" not in page(tmp_path)
    alone = page(written(tmp_path, [one for one in LINES if one.get("side", "trainer") == "trainer"]))
    assert "| plain Trainer + peft | 70.8 (41.7 to 100.0) | 35.4 (20.8 to 50.0) |  |  | " in alone
    assert "times the speed of plain Trainer + peft | at least 2.3 | | not measured |" in alone


def test_dpo_is_compared_in_the_same_round(tmp_path: Path) -> None:
    """By hand. 12 pairs: ours with a live reference takes 4 and 5 s, a cached one 2 and 3; TRL's live one 12 and 10, 3 and 2 times 4 and 5,
    6 and 10 / 3 times 2 and 3; in 6000 MB, of which ours are a quarter. Its cached one failed. A run on another batch is left out."""
    peaks = {"tunewright": 1500, "tunewright-cached": 1500, "trl": 6000}

    def lines(run: str, batch: int, cpu: dict[str, list[float]]) -> list[dict[str, Any]]:
        told = {"pairs": 12, "wall": 24.0, "cpu_before": 9.0, "losses": [0.69315, 0.6], "versions": {"torch": "1.0"}}
        return [{"run": run, "what": "machine", "processor": "abacus", "cores": 2, "model": "small", "parameters": 1},
                {"run": run, "what": "workload", "prompt": 150, "answer": 80, "batch": batch, "steps": 4, "pairs": 12},
                *({"run": run, "what": "side", "side": name, "round": number, "cpu": one, "peak_mb": peaks[name], **told}
                  for name, taken in cpu.items() for number, one in enumerate(taken))]

    found = lines("2026-02-02T00:00:00Z", 4, {"tunewright": [4.0, 5.0], "tunewright-cached": [2.0, 3.0], "trl": [12.0, 10.0]})
    found.append({"run": "2026-02-02T00:00:00Z", "what": "side", "side": "trl-cached", "round": 0, "failure": "exit code 1: none"})
    older = lines("2026-01-01T00:00:00Z", 2, {"tunewright": [1.0], "trl": [1.0]})
    (tmp_path / "dpo_step.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*older, *found]))
    text = page(tmp_path)
    assert "| tunewright, live reference | 2.700 (2.400 to 3.000) | 0.500 |  | 1.83 (1.67 to 2.00) | 1500 | 9 | 0.69315 |" in text
    assert ("| TRL, live reference, checkpointing (default) | 1.100 (1.000 to 1.200) | 0.500 | 2.50 (2.00 to 3.00) | 4.67 (3.33 to 6.00) | "
            "6000 | 9 | 0.69315 |") in text
    theirs = "TRL, live reference, checkpointing (default)"
    assert f"| DPO, live reference: times the speed of {theirs} | at least 2.5 | 2.50 (2.00 to 3.00) | met |" in text
    assert f"| DPO, cached reference: times the speed of {theirs} | at least 4 | 4.67 (3.33 to 6.00) | met |" in text
    assert f"| DPO, live reference: peak memory over that of {theirs} | at most 0.5 | 0.25 | met |" in text
    assert "| TRL, cached reference, checkpointing | failed: exit code 1: none |" in text


def test_generation_is_compared_by_tokens_of_the_answers(tmp_path: Path) -> None:
    """By hand: "a b" and "c" are three tokens of a tokenizer of words. In 1 and 2 s that is 3 and 1.5 a second; the other side takes 2
    and 6 s: 1.5 and 0.5; 2 and 3 times. One of two answers is the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "d": 3}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))

    def run(cpu: float, last: str) -> dict[str, Any]:
        return {"cpu": cpu, "answers": ["a b", last], "peak_mb": 10, "versions": {"torch": "1.0"}}

    runs = {"tunewright predict": [run(1.0, "c"), run(2.0, "c")], "transformers generate": [run(2.0, "d"), run(6.0, "d")]}
    told = compared(runs, tmp_path)
    assert told["same"] == 1 and told["sides"] == {
        "tunewright predict": {"tokens_per_cpu_s": [3.0, 1.5], "faster": []},
        "transformers generate": {"tokens_per_cpu_s": [1.5, 0.5], "faster": [2.0, 3.0]}}
    result = {"model": "small", "prompts": 2, "new_tokens": 2, "batch": 1, **told}
    (tmp_path / "generation.json").write_text(json.dumps(result))
    assert "| transformers generate | 1.0 (0.5 to 1.5) | 2.50 (2.00 to 3.00) |" in page(tmp_path)


@pytest.mark.parametrize(("values", "shown"), [([3.0], "3.0"), ([2.0, 2.0], "2.0"), ([1.0, 9.0, 2.0], "2.0 (1.0 to 9.0)"), ([], "")])
def test_spread(values: list[float], shown: str) -> None:
    """By hand."""
    assert spread(values, ".1f") == shown


def test_page_in_docs_is_made_of_the_results_in_the_repository() -> None:
    """Anything else would be a figure that nobody measured."""
    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8") == page(ROOT / "benchmarks" / "results")
