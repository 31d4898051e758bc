"""What the doctor says of rows agrees with what a run makes of them; memory does not grow with texts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunewright.config.data import DataConfig, TemplateConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.data.audit import Note
from tunewright.data.doctor.examine import Plan, Tokens, examine
from tunewright.data.doctor.report import DoctorReport
from tunewright.data.pipeline import build
from tunewright.data.records import IGNORE_INDEX
from tunewright.data.row_encoder import row_encoder
from tunewright.data.templates import Renderer, load_renderer
from tunewright.errors import InputError
from tunewright.selftest.tiny import write_model

SRC = Path(__file__).parents[3] / "src"
CUTOFF = 24
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "wizard"]), st.sampled_from(["", "anchor", "bridge " * 9])),
                 min_size=1, max_size=5)
GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "anchor"}]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def renderer(tokenizer: PreTrainedTokenizerBase) -> Renderer:
    return load_renderer(TemplateConfig(), tokenizer)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "d.jsonl"


def run_of(file: Path, **data: Any) -> RunConfig:
    return RunConfig(run=RunControl(do_train=True), data=DataConfig(**{
        "dataset": (str(file),), "data_cache_dir": "none", "cutoff_len": CUTOFF, "max_dropped_fraction": 1.0, **data}))


def diagnosed(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> tuple[DoctorReport, list[dict[str, Any]]]:
    lines: list[str] = []
    tokens = Tokens(row_encoder(run, tokenizer, renderer), renderer.control)
    report = examine(Plan(run, tokens, 4, lines.append, lambda line: None))
    return report, [json.loads(line) for line in lines]


@settings(max_examples=40)
@given(st.lists(TURNS, max_size=12), st.sampled_from(["drop", "cut_right", "cut_left", "proportional"]), st.sampled_from([1, 2]))
def test_the_audit_is_that_of_a_run(file: Path, tokenizer: PreTrainedTokenizerBase, renderer: Renderer,
                                    conversations: list[list[tuple[str, str]]], policy: str, workers: int) -> None:
    """The oracle is the run itself: the same notes, the same rows kept, the same trained tokens; rows in = rows kept + rows dropped."""
    rows = [GOOD, *({"messages": [{"role": role, "content": text} for role, text in turns]} for turns in conversations)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = run_of(file, cutoff_policy=policy, preprocessing_num_workers=workers)
    prepared = build(run, tokenizer, renderer, report=lambda line: None)
    report, lines = diagnosed(run, tokenizer, renderer)
    assert prepared.train is not None
    (audit,) = prepared.audit.sets
    (found,) = report.sets
    assert sorted(map(str, (Note.from_json(line) for line in lines))) == sorted(map(str, audit.notes))
    wanted = {key: value for key, value in audit.to_json().items() if key not in ("tokens", "trained_tokens", "reasons", "dataset")}
    tally = found.tally.to_json()
    assert {key: tally[key] for key in wanted} == wanted
    assert sorted(map(str, tally["reasons"])) == sorted(map(str, audit.to_json()["reasons"]))
    assert tally["rows"] == len(rows) == len(prepared.train) + tally["dropped"]
    assert found.tokens is not None and found.tokens.trained.total == prepared.train.num_trained_tokens
    assert sum(found.tokens.length_histogram.counts) == sum(found.tokens.trained_histogram.counts) == found.characters.rows
    assert report.problems == ()


def test_the_audit_of_a_run_says_the_lengths(file: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> None:
    """data_audit.json: the oracle is the prepared set, summed here."""
    rows = [GOOD, GOOD | {"messages": [*GOOD["messages"], {"role": "user", "content": "b"}]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "anchor " * 30}]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared = build(run_of(file), tokenizer, renderer, report=lambda line: None)
    prepared.audit.write(tmp_path / "data_audit.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "data_audit.jsonl").read_text().splitlines()]
    assert [(line["line"], line["action"]) for line in lines] == [(2, "dropped"), (3, "changed")]
    assert prepared.train is not None
    lengths = sorted(len(one.input_ids) for one in prepared.train)  # type: ignore[attr-defined]
    trained = sorted(int(np.sum(one.labels != IGNORE_INDEX)) for one in prepared.train)  # type: ignore[attr-defined]
    spreads = [{"rows": 2, "total": sum(of), "least": of[0], "median": of[0], "p95": of[1], "most": of[1]} for of in (lengths, trained)]
    reasons = [
        {"action": "dropped", "reason": "turns out of order", "count": 1, "first": f"{file}:2"},
        {"action": "changed", "reason": f"longer than cutoff_len {CUTOFF}: cut at its end", "count": 1, "first": f"{file}:3"}]
    assert json.loads((tmp_path / "data_audit.json").read_text()) == {"sets": [
        {"dataset": str(file), "rows": 3, "kept": 2, "dropped": 1, "changes": 1, "reasons": reasons, "tokens": spreads[0],
         "too_long": {"cut": 1, "split": 0, "dropped": 0, "tokens_lost": lines[1]["tokens_lost"]}, "trained_tokens": spreads[1]}]}
    assert lines[1]["tokens_lost"] == int(lines[1]["detail"].split()[0]) - CUTOFF


def test_a_file_that_breaks_off_is_reported_with_what_was_read(file: Path, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> None:
    """Rows before the break are checked and measured, the next set too, and the break is the problem."""
    file.write_text((json.dumps(GOOD) + "\n") * 3 + '{"messages": [')
    other = file.with_name("other.jsonl")
    other.write_text(json.dumps(GOOD) + "\n")
    report, _ = diagnosed(run_of(file, dataset=(str(file), str(other))), tokenizer, renderer)
    assert [one.tally.rows for one in report.sets] == [3, 1]
    assert [one.tokens.lengths.rows for one in report.sets if one.tokens] == [3, 1]
    assert len(report.problems) == 1 and str(report.problems[0].where).startswith(f"{file}:4")


def test_a_row_that_the_template_refuses_is_found_in_its_chunk(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A template that cannot render one row of many: that row is named, the others are measured."""
    template = tokenizer.chat_template
    refusing = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>",
                                   pad_token="<|pad|>")
    refusing.chat_template = (
        "{% for message in messages %}{% if message['content'] == 'anchor bridge' %}{{ raise_exception('no bridges') }}{% endif %}"
        "{% endfor %}" + str(template))
    file.write_text("".join(json.dumps({"instruction": text, "output": "anchor"}) + "\n" for text in ("candle", "anchor bridge", "dune")))
    report, lines = diagnosed(run_of(file), refusing, load_renderer(TemplateConfig(), refusing))
    assert [(line["line"], line["reason"]) for line in lines] == [(2, "cannot be read")]
    assert [one.check for one in report.findings if one.level == "error"] == ["unreadable-row"]
    assert len(report.problems) == 1 and "no bridges" in report.problems[0].message and str(report.problems[0].where).endswith(":2")


def test_too_many_dropped_is_what_a_run_says(file: Path, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> None:
    """The oracle is the error of the run, word for word."""
    bad = {"messages": [{"role": "user", "content": "a"}]}
    file.write_text("".join(json.dumps(row) + "\n" for row in [GOOD, *[bad] * 7]))
    run = run_of(file, max_dropped_fraction=0.5)
    with pytest.raises(InputError) as raised:
        build(run, tokenizer, renderer, report=lambda line: None)
    report, _ = diagnosed(run, tokenizer, renderer)
    assert [problem.line() for problem in report.problems] == [raised.value.line()]


MEASURED = """
import resource, sys
from tunewright.config.data import DataConfig
from tunewright.config.run import RunConfig
from tunewright.data.doctor.examine import Plan, examine
def peak(name):
    examine(Plan(RunConfig(data=DataConfig(dataset=(name,))), None, 4, lambda line: None, lambda line: None))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
few = peak(sys.argv[1])
print(peak(sys.argv[2]) - few)
"""


@pytest.mark.slow
def test_memory_is_a_few_numbers_a_row(tmp_path: Path) -> None:
    """80,000 rows, 36 MB of text: the peak of the process grows by less than 300 bytes a row (measured about 200, sorting included)."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(3000)]
    for name, count in (("few.jsonl", 2000), ("many.jsonl", 80_000)):
        with (tmp_path / name).open("w") as file:
            for _ in range(count):
                question, answer = (" ".join(chance.choices(words, k=length)) for length in (15, 40))
                file.write(json.dumps({"instruction": question, "output": answer}) + "\n")
    done = subprocess.run([sys.executable, "-c", MEASURED, "few.jsonl", "many.jsonl"], cwd=tmp_path, capture_output=True, text=True,
                          check=True, env={**os.environ, "PYTHONPATH": str(SRC)})
    assert int(done.stdout) * 1024 < 300 * 80_000
