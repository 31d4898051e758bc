"""Every rule between parameters: a run that breaks it and nothing else, and a near one that keeps it. Worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright.config import checks
from tunewright.config.checks import Context
from tunewright.config.origin import Origin
from tunewright.config.rules.rule import PURPOSES
from tunewright.config.rules.unread import UNREAD
from tunewright.config.table import build, table

FULL = {"model_name_or_path": "demo", "dataset": ("d",), "output_dir": "out"}

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("two-half-formats", {"fp16": True, "pure_bf16": True}, {"bf16": True, "pure_bf16": True}),
    ("fp16-on-cpu", {"fp16": True, "use_cpu": True}, {"bf16": True, "use_cpu": True}),
    ("step-count-not-whole", {"logging_steps": 1.5}, {"logging_steps": 0.5}),
    ("warmup-longer-than-run", {"warmup_steps": 11, "max_steps": 10}, {"warmup_steps": 10, "max_steps": 10}),
    ("max-steps-is-zero", {"max_steps": 0}, {"max_steps": -1}),
    ("huge-learning-rate", {"learning_rate": 1.5}, {"learning_rate": 1.0}),
    ("evaluation-without-data", {"eval_strategy": "epoch"}, {"eval_strategy": "epoch", "val_size": 5.0}),
    ("eval-on-start-without-data", {"eval_on_start": True}, {"eval_on_start": True, "eval_dataset": ("e",)}),
    ("best-model-without-evaluation", {"load_best_model_at_end": True},
     {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 100.0, "val_size": 0.1}),
    ("early-stopping-without-evaluation", {"early_stopping_patience": 1},
     {"early_stopping_patience": 1, "eval_strategy": "epoch", "save_strategy": "epoch", "val_size": 0.1, "load_best_model_at_end": True}),
    ("early-stopping-without-best", {"early_stopping_patience": 1, "eval_strategy": "epoch", "val_size": 0.1}, {}),
    ("unknown-metric", {"metric_for_best_model": "eval_acuracy"}, {"metric_for_best_model": "accuracy", "compute_accuracy": True}),
    ("greater-loss", {"greater_is_better": True}, {"greater_is_better": False}),
    ("generation-in-pretraining", {"predict_with_generate": True, "stage": "pt", "val_size": 0.1},
     {"predict_with_generate": True, "val_size": 0.1}),
    ("accuracy-with-generation", {"predict_with_generate": True, "compute_accuracy": True, "val_size": 0.1}, {"compute_accuracy": True}),
    ("generation-without-data", {"predict_with_generate": True}, {"predict_with_generate": True, "eval_dataset": ("e",)}),
    ("val-size-not-whole", {"val_size": 1.5}, {"val_size": 2.0}),
    ("two-evaluation-sets", {"val_size": 0.1, "eval_dataset": ("e",)}, {"val_size": 0.1}),
    ("val-size-without-dataset", {"val_size": 0.1, "dataset": (), "do_train": False, "do_eval": True}, {"val_size": 0.1}),
    ("prompt-with-masked-history", {"train_on_prompt": True, "mask_history": True}, {"train_on_prompt": True}),
    ("conversation-masks-in-pretraining", {"mask_history": True, "stage": "pt"}, {"mask_history": True}),
    ("mapping-without-file", {"dataset": ({"formatting": "alpaca"},)}, {"dataset": ({"file_name": "a"},)}),
    ("no-model", {"model_name_or_path": None}, {}),
    ("no-dataset", {"dataset": ()}, {"dataset": (), "do_train": False, "do_eval": True, "eval_dataset": ("e",)}),
    ("no-output", {"output_dir": None}, {}),
    ("nothing-to-do", {"do_train": False}, {"do_train": False, "do_predict": True, "val_size": 0.1}),
    ("extra-work-without-data", {"do_eval": True}, {"do_eval": True, "eval_dataset": ("e",)}),
    ("nothing-trains", {"finetuning_type": "none"}, {"finetuning_type": "none", "do_train": False, "do_eval": True, "val_size": 0.1}),
    ("no-layers", {"finetuning_type": "freeze", "freeze_trainable_layers": 0},
     {"finetuning_type": "freeze", "freeze_trainable_layers": -2}),
    ("broken-pattern", {"additional_target": ("a(",)}, {"lora_target": ("layers\\.[0-9]{1,2}\\.q_proj",)}),
    ("no-target", {"lora_target": ()}, {"lora_target": (), "finetuning_type": "full"}),
    ("adapter-variant-without-lora", {"use_rslora": True, "finetuning_type": "freeze"}, {"use_rslora": True}),
    ("adapter-without-lora", {"adapter_name_or_path": ("org/a",), "finetuning_type": "freeze"}, {"adapter_name_or_path": ("org/a",)}),
    ("conversion-without-pissa", {"pissa_convert": True}, {"pissa_convert": True, "pissa_init": True}),
    ("pissa-iterations", {"pissa_iter": 0}, {"pissa_iter": -1}),
    ("pissa-on-an-adapter", {"pissa_init": True, "adapter_name_or_path": ("org/a",)},
     {"pissa_init": True, "adapter_name_or_path": ("org/a",), "create_new_adapter": True}),
    ("pissa-with-dora", {"pissa_init": True, "pissa_convert": True, "use_dora": True}, {"pissa_init": True, "use_dora": True}),
    ("small-loraplus-ratio", {"loraplus_lr_ratio": 0.5}, {"loraplus_lr_ratio": 16.0}),
    ("output-is-a-file", {"output_dir": "file"}, {"output_dir": "directory"}),
    ("output-is-the-model", {"output_dir": "directory/../directory", "model_name_or_path": "./directory"},
     {"model_name_or_path": "./directory"}),
    ("model-not-found", {"model_name_or_path": "./absent"}, {"model_name_or_path": "org/model"}),
    ("adapter-not-found", {"adapter_name_or_path": ("./directory",)}, {"adapter_name_or_path": ("adapter",)}),
    ("resume-not-found", {"resume_from_checkpoint": "directory"}, {"resume_from_checkpoint": "checkpoint"}),
    ("template-not-found", {"template": "absent.jinja"}, {"template": "file.jinja"}),
    ("never-read", {"finetuning_type": "full", "lora_rank": 4}, {"finetuning_type": "full"}),
    ("no-export", {}, {"export_dir": "e"}),
    ("nothing-to-preview", {"dataset": ()}, {}),
    ("nothing-to-evaluate", {"dataset": ()}, {}),
]

PURPOSE_OF = {"no-export": "export", "nothing-to-preview": "preview", "nothing-to-evaluate": "eval"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file", "file.jinja"):
        Path(name).write_text("x")
    Path("directory").mkdir()
    Path("checkpoint").mkdir()
    Path("checkpoint/manifest.json").write_text("{}")
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text("{}")


def broken(given: dict[str, Any], purpose: Any) -> list[str]:
    """The rules that a run breaks, errors and notes."""
    origins = {field: Origin("file", "c.yaml:1", field) for field in given}
    return [str(finding.problem.rule) for finding in checks.findings(build({**FULL, **given}), Context(origins, purpose))]


@pytest.mark.parametrize(("rule", "breaks", "keeps"), CASES, ids=[rule for rule, _, _ in CASES])
def test_rule(rule: str, breaks: dict[str, Any], keeps: dict[str, Any]) -> None:
    """The rule is broken, alone or beside notes, and kept by the near run."""
    purpose = PURPOSE_OF.get(rule, "train")
    found = broken(breaks, purpose)
    assert found.count(rule) == 1 and set(found) <= {rule, "never-read"}
    assert rule not in broken(keeps, purpose)


def test_every_rule_has_a_case_and_an_identifier_of_its_own() -> None:
    """No rule without a test."""
    identifiers = [rule.id for rule in checks.RULES]
    assert sorted(identifiers) == sorted({rule for rule, _, _ in CASES}) and len(set(identifiers)) == len(identifiers)
    assert all(field in table() for rule in checks.RULES for field in rule.fields)
    assert all(purpose in PURPOSES for rule in checks.RULES for purpose in rule.purposes)


def test_a_complete_run_breaks_nothing() -> None:
    """The defaults with a model, data and a directory are ready to train."""
    assert broken({}, "train") == []


def test_without_purpose_only_what_always_holds() -> None:
    """A chat needs no data set, a reading without purpose not even a model."""
    assert checks.findings(build({}), Context()) == []
    assert [one.problem.rule for one in checks.findings(build({}), Context(purpose="chat"))] == ["no-model"]


def test_rules_on_wrong_values_are_left_out() -> None:
    """A field that could not be read breaks no further rule."""
    origins = {"fp16": Origin("file", "c.yaml:1", "fp16")}
    run = build({"fp16": True, "use_cpu": True})
    assert checks.findings(run, Context(origins), skip={"use_cpu"}) == []


UNREAD_CASES: dict[int, dict[str, Any]] = {
    0: {"finetuning_type": "full", "lora_dropout": 0.1}, 1: {"freeze_trainable_layers": 3}, 2: {"pissa_iter": 3},
    3: {"loraplus_lr_embedding": 1e-3}, 4: {"adapter_folder": "x"}, 5: {"stage": "pt", "default_system": "x"},
    6: {"split_special_tokens": True}, 7: {"neat_packing": False}, 8: {"packing": True, "group_by_length": True},
    9: {"warmup_ratio": 0.1, "warmup_steps": 3}, 10: {"lr_scheduler_type": "constant", "warmup_ratio": 0.1},
    11: {"max_steps": 3, "num_train_epochs": 2.0}, 12: {"optim": "adafactor", "adam_beta1": 0.8},
    13: {"save_strategy": "epoch", "save_steps": 3.0}, 14: {"eval_steps": 3.0}, 15: {"eval_delay": 1.0},
    16: {"logging_strategy": "epoch", "logging_steps": 3.0}, 17: {"early_stopping_threshold": 0.1},
    18: {"metric_for_best_model": "loss"}, 19: {"use_reentrant_gc": True}, 20: {"logging_dir": "x"},
}


@pytest.mark.parametrize("number", range(len(UNREAD)))
def test_unread(number: int) -> None:
    """Each reason of never-read: the field it names is told with that reason."""
    entry, given = UNREAD[number], UNREAD_CASES[number]
    origins = {field: Origin("file", "c.yaml:1", field) for field in given}
    lines = [finding.problem.line() for finding in checks.findings(build({**FULL, **given}), Context(origins, "train"))
             if finding.problem.rule == "never-read"]
    field = next(field for field in entry.fields if field in given)
    assert lines == [f"c.yaml:1: {field}: is not read by this run: {entry.why}"]


def test_unwritable_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that may not be written to is told before anything is made. (A superuser may write anywhere, hence access.)"""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / "directory")
    origins = {"output_dir": Origin("command line", "command line", "--output_dir")}
    found = checks.findings(build({**FULL, "output_dir": "directory/a/b"}), Context(origins, "train"))
    assert [one.problem.line() for one in found] == [
        f"command line: --output_dir: directory/a/b cannot be made: {tmp_path}/directory is not writable; "
        "name a directory that can be written"]
