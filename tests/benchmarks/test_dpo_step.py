"""The benchmark of DPO steps: its pairs are what it says they are, and its own sides run and agree."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.dpo_measured import read_dpo
from benchmarks.pair_rows import ANSWER, PROMPT, read_pairs, write_pairs
from tunewright.selftest.tiny import write_model

ROOT = Path(__file__).resolve().parents[2]


def test_pairs_have_the_lengths_that_are_said(tmp_path: Path) -> None:
    """150 tokens of prompt, two different answers of 80, the same each time."""
    tokenizer = write_model(tmp_path / "tiny")
    for name in ("one", "other"):
        write_pairs(tmp_path / name, tokenizer, 3)
    pairs = read_pairs(tmp_path / "one")
    assert (PROMPT, ANSWER) == (150, 80)
    assert [tuple(map(len, pair)) for pair in pairs] == [(150, 80, 80)] * 3
    assert all(pair.chosen_ids != pair.rejected_ids for pair in pairs)
    assert pairs == read_pairs(tmp_path / "other")


@pytest.mark.slow
def test_our_sides_run_and_log_the_same_losses(tmp_path: Path) -> None:
    """A cached reference with shared prompts, and a live one without; the first loss of an untrained adapter is ln 2."""
    names, model = ["tunewright-cached", "tunewright-unshared"], write_model(tmp_path / "tiny")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "dpo_step.py"), "--model", str(model), "--folder", str(tmp_path), "--rounds", "1",
         "--steps", "2", "--batch", "2", "--sides", ",".join(names), "--output", str(tmp_path / "found.jsonl")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines() if '"side"' in line]
    assert [line["side"] for line in lines] == names
    for line in lines:
        assert line["losses"][0] == pytest.approx(math.log(2), abs=1e-6)
        assert line["losses"] == pytest.approx(lines[0]["losses"], abs=1e-4)
        assert line["pairs"] == 2 and line["cpu"] > 0 and line["peak_mb"] > 0
    measured = read_dpo(tmp_path / "found.jsonl")
    assert measured is not None and list(measured.turns) == names and measured.failures == {}
