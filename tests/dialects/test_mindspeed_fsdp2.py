"""MindSpeed-LLM's FSDP2 trainer (document 004): sections, inline data sets, overrides, and what its names mean. The oracle is the
document: which name is in which of its tables, and what its texts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dialects import samples
from tests.spec.test_ledger import parameters
from tunewright.config.table import values
from tunewright.dialects.mindspeed_fsdp2 import MINDSPEED_FSDP2
from tunewright.dialects.read import Examined, examine

DIALECT = "mindspeed_fsdp2"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def look(text: str, *arguments: str, dialect: str | None = DIALECT) -> Examined:
    Path("c.yaml").write_text(text, encoding="utf-8")
    return examine(["c.yaml", *arguments], dialect=dialect)


SECTIONS = {"ModelArguments": "model", "DataArguments": "data", "ParallelArguments": "parallel", "TrainingArguments": "training",
            "Fused operators": "optimization", "Profiling": "profiling"}
"""The tables of the document, and the section of the file that each describes."""


def test_every_name_has_the_section_of_its_table() -> None:
    """127 names; the usual section is that of the document's table."""
    groups = {name: entry["group"] for name, entry in parameters(DIALECT).items()}
    assert len(groups) == 127
    found = {name: sections[0] for name, sections in MINDSPEED_FSDP2.sections.items()}
    assert found == {name: next(section for title, section in SECTIONS.items() if group.startswith(title)) for name,
    group in groups.items()}


@pytest.mark.parametrize("name", MINDSPEED_FSDP2.sections)
def test_a_name_in_the_wrong_section(name: str) -> None:
    """Honoured or not, the right section is named; in any section of its own, or in none, it is known."""
    own = MINDSPEED_FSDP2.sections[name]
    wrong = next(section for section in ("training", "model", "data") if section not in own)
    default = parameters(DIALECT)[name].get("default")
    text = yaml.safe_dump({wrong: {name: default}})
    assert [one.line() for one in look(text).problems] == [
        f"c.yaml:2: {wrong}.{name}: belongs to the section {own[0]}, not to {wrong}; write {own[0]}.{name}"]
    assert [one.line() for one in look("{}", f"--{wrong}.{name}=x").problems][-1:] == [
        f"command line: --{wrong}.{name}: belongs to the section {own[0]}, not to {wrong}; write {own[0]}.{name}"]


def test_overrides_of_a_section() -> None:
    """`--section.name` and `section.name=` override the file, each value at its place."""
    reading = look(samples.MINDSPEED_FSDP2, "--training.lr", "1e-6", "--training.save-steps=7", "data.cutoff_len=64",
    "--parallel.recompute",
                   "false", "--training.save_only_model").reading
    current = values(reading.config)
    assert {field: (current[field], reading.origins[field].describe()) for field in (
        "learning_rate", "save_steps", "cutoff_len", "gradient_checkpointing", "save_only_model", "weight_decay")} == {
        "learning_rate": (1e-6, "command line (--training.lr)"), "save_steps": (7.0, "command line (--training.save-steps)"),
        "cutoff_len": (64, "command line (data.cutoff_len)"),
        "gradient_checkpointing": (False, "command line (--parallel.recompute)"),
        "save_only_model": (True, "command line (--training.save_only_model)"), "weight_decay": (0.01, "c.yaml:31 (training.weight_decay)")}


MEANINGS: list[tuple[str, dict[str, Any]]] = [
    ("", {"finetuning_type": "full", "learning_rate": 1e-5, "weight_decay": 0.01, "adam_beta2": 0.95, "warmup_ratio": 0.03,
    "logging_steps": 1.0,
          "dataset_dir": "./configs/fsdp2/data", "flash_attn": "disabled", "resume_from_checkpoint": "none", "save_total_limit": 3,
          "gradient_checkpointing": False, "packing": False, "enable_thinking": True, "eval_strategy": "no", "do_eval": False}),
    ("data:\n  dataset:\n    file_name: ./my_data.json\n    formatting: alpaca\n",
     {"dataset": ({"file_name": "./my_data.json", "formatting": "alpaca"},)}),
    ("data:\n  dataset:\n    file_name: a.json\n    formatting: sharegpt\n    columns:\n      messages: turns\n    tags:\n      role_tag: "
    "who\n",
     {"dataset": ({"file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "turns"}, "tags": {"role_tag": "who"}},)}),
    ("data:\n  dataset: alpaca_full, sharegpt4_zh\n", {"dataset": ("alpaca_full", "sharegpt4_zh")}),
    ("data:\n  dataset: ./raw/texts.parquet\ntraining:\n  stage: pt\n", {"dataset": ("./raw/texts.parquet",), "stage": "pt"}),
    ("data:\n  enable_thinking: null\n", {"enable_thinking": None}),
    ("data:\n  enable_thinking: None\n", {"enable_thinking": None}),
    ("data:\n  neat_packing: True\n", {"neat_packing": True, "packing": True}),
    ("data:\n  packing: True\n", {"neat_packing": False, "packing": True}),
    ("training:\n  resume_from_checkpoint: None\n", {"resume_from_checkpoint": "none"}),
    ("training:\n  resume_from_checkpoint: ./output/checkpoint-5\n", {"resume_from_checkpoint": "./output/checkpoint-5"}),
    ("training:\n  optimizer: adamw\n", {"optim": "adamw_torch"}),
    ("optimization:\n  use_flash_attn: true\n", {"flash_attn": "fa2"}),
    ("model:\n  use_flash_attn: true\n", {"flash_attn": "fa2"}),
    ("model:\n  cache_dir: None\n", {"cache_dir": None}),
    ("training:\n  num_train_epochs: 0.5\n", {"num_train_epochs": 0.5}),
    ("data:\n  val_size: 0.1\n", {"val_size": 0.1}),
    ("parallel:\n  fsdp_modules:\n    - model.layers.{*}\n    - model.embed_tokens\n    - lm_head\n", {"finetuning_type": "full"}),
]


@pytest.mark.parametrize(("text", "meaning"), MEANINGS, ids=[text.replace("\n", " ") for text, _ in MEANINGS])
def test_meaning(text: str, meaning: dict[str, Any]) -> None:
    """The file gives these values, without a problem."""
    examined = look(text or "{}")
    current = values(examined.reading.config)
    assert [one.line() for one in examined.problems] == []
    assert {field: current[field] for field in meaning} == meaning


PROBLEMS = [
    ("trainning:\n  lr: 1e-5\n", "c.yaml:1: trainning: unknown section; did you mean training?"),
    ("training:\n  save_steps: 0.5\n", "c.yaml:2: training.save_steps: 0.5 is a fraction of the run, which this vocabulary does not have; "
     "write a whole number of steps"),
    ("training:\n  logging_steps: 0.5\n", "c.yaml:2: training.logging_steps: 0.5 is a fraction of the run, which this vocabulary does not "
    "have; "
     "write a whole number of steps"),
    ("training:\n  lr: 1e-5\nlr: 1e-6\n", "c.yaml:3: lr: given twice, as training.lr at c.yaml:2 too; remove one of them"),
    ("training:\n  learning_rate: 1e-5\n", "c.yaml:2: training.learning_rate: is a name of the native vocabulary, not of mindspeed_fsdp2; "
     "write lr"),
    ("training:\n  lr_shceduler_type: cosine\n", "c.yaml:2: training.lr_shceduler_type: unknown key; did you mean lr_scheduler_type?"),
]


@pytest.mark.parametrize(("text", "report"), PROBLEMS, ids=[text.replace("\n", " ") for text, _ in PROBLEMS])
def test_what_is_refused(text: str, report: str) -> None:
    """The whole report."""
    assert [one.line() for one in look(text).problems] == [report]


def test_neat_packing_overrules_packing() -> None:
    """The document: it sets packing; so much is said."""
    assert look("data:\n  neat_packing: true\n  packing: false\n").reading.notes == (
        "c.yaml:2: data.neat_packing: true turns packing on, as in MindSpeed-LLM",)
