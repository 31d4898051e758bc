"""The life cycle of examples/life_cycle: its data, its own measures by hand, what it calls missed, and all of it in its small form."""

from __future__ import annotations

import importlib
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.repository.source import ROOT
from tunewright.selftest.tiny import write_model

FOLDER = ROOT / "examples" / "life_cycle"
PARTS = ("orders", "measure", "results", "rewards", "page", "life_cycle")
ORDER = {"name": "Ada King", "item": "red kites", "quantity": "3", "city": "Turin"}
STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "ppo", "grpo")


@pytest.fixture(scope="module")
def parts() -> Iterator[dict[str, ModuleType]]:
    """The script's modules, as it imports them itself: by their bare names, which no other test is to see."""
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in PARTS}
    finally:
        sys.path[:] = path
        for name in PARTS:
            sys.modules.pop(name, None)


@pytest.mark.parametrize(("answer", "courtesies", "facts"), [
    ("Thank you, Ada King. We will gladly send 3 red kites to Turin. Have a lovely day!", 3, 4),
    ("Noted. We will send the red kites.", 0, 1),
    ("Thank you. Thank you. We will send 3 red kites. Have a lovely day! Have a lovely day!", 2, 2),
    ("Noted, Ada. We will gladly send 3 blue kites to Rome.", 1, 1),
    ("", 0, 0)])
def test_what_is_counted_in_an_answer(parts: dict[str, ModuleType], answer: str, courtesies: int, facts: int) -> None:
    """Counted by eye. The reward of grpo is the share of the same facts."""
    assert parts["measure"].courtesies(answer) == courtesies
    assert parts["measure"].facts(answer, ORDER) == facts
    assert parts["rewards"].facts([answer], **{name: [value] for name, value in ORDER.items()}) == [facts / 4]


def test_the_better_of_two_answers_has_more_courtesies_and_facts_do_not_tell(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Counted in the texts of the files. Names and cities are in chosen and rejected answers as often, give or take chance: four coins
    of variance 1/4 make the difference of a pair, whose mean is to be within four of its standard errors."""
    orders, measure = parts["orders"], parts["measure"]
    orders.write(tmp_path, orders.FULL)
    pairs, records = measure.read_rows(tmp_path / "pairs.jsonl"), measure.read_rows(tmp_path / "prompts.heldout.jsonl")
    counts = [[measure.courtesies(pair[side][0]["content"]) for side in ("chosen", "rejected")] for pair in pairs]
    assert all(chosen > rejected for chosen, rejected in counts)
    held_out = measure.read_rows(tmp_path / "pairs.heldout.jsonl")
    assert [pair["prompt"] for pair in held_out] == [row["prompt"] for row in records]
    assert {pair["prompt"][1]["content"] for pair in pairs} & {pair["prompt"][1]["content"] for pair in held_out} == set()
    stated = [[sum(mark in pair[side][0]["content"] for mark in (", ", " to ")) for side in ("chosen", "rejected")] for pair in pairs]
    assert abs(sum(chosen - rejected for chosen, rejected in stated)) / len(pairs) < 4 / math.sqrt(len(pairs))
    marks = measure.read_rows(tmp_path / "marked.jsonl")
    assert [row["label"] for row in marks] == [measure.courtesies(row["messages"][-1]["content"]) >= 2 for row in marks]


def test_every_form_of_an_answer_is_made(parts: dict[str, ModuleType]) -> None:
    """Six coins are 64 forms; the fullest and the barest by hand."""
    orders = parts["orders"]
    order = orders.Row("", {"name": "Ada King", "item": "red kites", "quantity": 3, "city": "Turin"}, "")
    fullest = "Thank you, Ada King. We will gladly send 3 red kites to Turin. Have a lovely day!"
    assert orders.answer(order, orders.Form(*[True] * 6)) == fullest
    assert orders.answer(order, orders.Form(*[False] * 6)) == "Noted. We will send the red kites."
    chance = random.Random(0)
    assert len({orders.answer(order, orders.form(chance)) for _ in range(1000)}) == 64


GOOD: dict[str, Any] = {
    "stages": {name: {"eval_loss": [2.0, 1.0]} for name in ("pt", "sft")},
    "reward_model": {"before": 0.5, "accuracy": 0.95, "difference": 1e-6},
    "ranking": {"before": {"sum": 0.5, "mean": 0.6}, **{name: {"sum": 0.7, "mean": 0.7} for name in ("dpo", "kto", "orpo", "simpo")}},
    "answers": {"merged": {"courtesies": 1.5, "facts": 2.5}, "ppo": {"courtesies": 2.5, "facts": 2.5},
                "grpo": {"courtesies": 2.5, "facts": 3.5}},
    "export": {"transformers": "Noted.", "chat": "Noted."}}


@pytest.mark.parametrize(("place", "value", "said"), [
    (("stages", "sft", "eval_loss"), [2.0, 2.0], "sft: the held-out loss falls"),
    (("reward_model", "accuracy"), 0.5, "rm: held-out pairs are told apart"),
    (("reward_model", "difference"), 0.5, "predict scores as transformers and peft do"),
    (("ranking", "kto", "sum"), 0.5, "kto: more held-out pairs are ranked right"),
    (("ranking", "simpo", "mean"), 0.6, "simpo: more held-out pairs are ranked right"),
    (("answers", "ppo", "courtesies"), 1.5, "ppo: more courtesies"),
    (("answers", "grpo", "facts"), 2.5, "grpo: more facts"),
    (("export", "chat"), "Not noted.", "export: transformers answers as chat does")])
def test_a_stage_that_does_not_improve_is_named(parts: dict[str, ModuleType], place: tuple[str, ...], value: Any, said: str) -> None:
    """Of a report in which all is well one figure is spoilt."""
    report = deepcopy(GOOD)
    assert parts["results"].missed(report) == []
    inner = report
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    assert parts["results"].missed(report) == [said]


@pytest.mark.slow
def test_the_whole_life_cycle_in_its_small_form(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Every command runs on what the ones before left, and every figure of the report is a finite number; transformers answers with the
    export what `chat` did, and gives the rewards that `predict` wrote. Started again, it finds everything done."""
    out = tmp_path / "life"
    done = lived(tmp_path, out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    steps = parts["life_cycle"].steps(str(out))
    assert [line for line in done.stdout.splitlines() if line.startswith("== ")] == [
        *(f"== {step.name}" for step in steps), "== measure"]
    assert [step.leaves for step in steps if not (out / step.leaves).is_file()] == []
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert tuple(report["stages"]) == STAGES and all(stage["steps"] == 2 for stage in report["stages"].values())
    assert [value for value in numbers(report) if not math.isfinite(value)] == []
    assert report["export"]["transformers"] == report["export"]["chat"]
    assert report["reward_model"]["difference"] < 1e-5
    assert set(report["answers"]) == {"merged", "dpo", "kto", "orpo", "simpo", "ppo", "grpo"}
    assert parts["page"].page(report).count("```yaml") == len(STAGES)
    again = lived(tmp_path, out)
    assert again.returncode == 0 and again.stdout.count(": done before") == len(steps)


def lived(tmp_path: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The script as it is typed, on a tiny model."""
    model = tmp_path / "model"
    if not model.exists():
        write_model(model)
    command = [sys.executable, str(FOLDER / "life_cycle.py"), "--small", "--model", str(model), "--output", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={
        **os.environ, "PYTHONPATH": str(ROOT / "src"), "TUNEWRIGHT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"})


def numbers(value: Any) -> Iterator[float]:
    """Every number in a report."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, int | float):
        yield float(value)
