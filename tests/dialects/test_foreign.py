"""Files of axolotl and TRL in our names: their documented keys, worked by hand; nothing is dropped, and no secret is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dialects.generated import write
from tunewright.config.param import DIALECTS
from tunewright.config.table import names_in, table, values
from tunewright.dialects.axolotl import AXOLOTL
from tunewright.dialects.document import Document
from tunewright.dialects.foreign import FOREIGN, Understood, recognised, refuse_foreign, understand
from tunewright.dialects.read import examine_written, read_config
from tunewright.dialects.trl import TRL
from tunewright.errors import InputError

AXOLOTL_FILE = {
    "base_model": "NousResearch/Llama-3.2-1B", "datasets": [{"path": "rows.jsonl", "type": "alpaca"}], "val_set_size": 0.1,
    "output_dir": "./out", "adapter": "lora", "sequence_len": 4096, "sample_packing": True, "pad_to_sequence_len": True, "lora_r": 32,
    "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_linear": True, "gradient_accumulation_steps": 4, "micro_batch_size": 2,
    "num_epochs": 4, "optimizer": "adamw_torch", "lr_scheduler": "cosine", "learning_rate": "2e-4", "train_on_inputs": False,
    "bf16": "auto", "gradient_checkpointing": True, "logging_steps": 1, "flash_attention": True, "warmup_steps": 10,
    "evals_per_epoch": 4, "saves_per_epoch": 1, "weight_decay": 0.0,
}
"""The usual shape of axolotl's examples/llama-3/lora-1b.yml."""

TRL_FILE = {
    "model_name_or_path": "Qwen/Qwen2-0.5B", "dataset_name": "rows.jsonl", "learning_rate": 2e-4, "num_train_epochs": 1, "packing": True,
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "gradient_checkpointing": True, "eval_strategy": "no",
    "use_peft": True, "lora_r": 32, "lora_alpha": 16, "lora_target_modules": "all-linear", "output_dir": "out", "max_length": 2048,
    "attn_implementation": "sdpa", "report_to": "none", "assistant_only_loss": True,
}
"""The command line of TRL's sft.py documentation, as a file."""


def read(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], Understood]:
    """The values of the run that a file of that program means, and what was understood."""
    understood = understand(Document("f.yaml", given, {(key,): line for line, key in enumerate(given, 1)}), name)
    examined = examine_written(understood.settings, (), place="f.yaml")
    assert not examined.problems, examined.problems
    return values(examined.reading.config), understood


def told(understood: Understood) -> list[str]:
    return [line.detail for line in understood.report]


def test_a_whole_axolotl_file() -> None:
    """Every key has its value; only what changes nothing is told."""
    found, understood = read("axolotl", AXOLOTL_FILE)
    wanted = {
        "model_name_or_path": "NousResearch/Llama-3.2-1B", "dataset": ({"file_name": "rows.jsonl", "formatting": "alpaca"},),
        "val_size": 0.1, "output_dir": "./out", "finetuning_type": "lora", "cutoff_len": 4096, "packing": True, "neat_packing": True,
        "lora_rank": 32, "lora_alpha": 16.0, "lora_dropout": 0.05, "lora_target": ("all",), "gradient_accumulation_steps": 4,
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "num_train_epochs": 4.0, "optim": "adamw_torch",
        "lr_scheduler_type": "cosine", "learning_rate": 2e-4, "train_on_prompt": False, "bf16": True, "gradient_checkpointing": True,
        "logging_steps": 1.0, "flash_attn": "fa2", "warmup_steps": 10, "warmup_ratio": 0.0, "eval_strategy": "steps",
        "eval_steps": 1 / 16, "save_strategy": "epoch", "weight_decay": 0.0, "save_total_limit": 4}
    assert {name: found[name] for name in wanted} == wanted
    assert told(understood) == ["f.yaml:8: pad_to_sequence_len: changes memory only"]


def test_a_whole_trl_file() -> None:
    """Every key has its value, and TRL's defaults stand where it has others than we have."""
    found, understood = read("trl", TRL_FILE)
    wanted = {
        "model_name_or_path": "Qwen/Qwen2-0.5B", "dataset": ("rows.jsonl",), "learning_rate": 2e-4, "num_train_epochs": 1.0,
        "packing": True, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "gradient_checkpointing": True,
        "eval_strategy": "no", "finetuning_type": "lora", "lora_rank": 32, "lora_alpha": 16.0, "lora_dropout": 0.05,
        "lora_target": ("all",), "output_dir": "out", "cutoff_len": 2048, "flash_attn": "sdpa", "train_on_prompt": False,
        "lr_scheduler_type": "linear", "bf16": True}
    assert {name: found[name] for name in wanted} == wanted and told(understood) == []


AXOLOTL_KEYS = [
    ({"adapter": "qlora", "load_in_4bit": True}, {"finetuning_type": "lora", "quantization_bit": 4}),
    ({"adapter": "qlora"}, {"finetuning_type": "lora", "quantization_bit": 4}),
    ({"adapter": "lora", "load_in_8bit": True}, {"finetuning_type": "lora", "quantization_bit": 8}),
    ({}, {"finetuning_type": "full", "cutoff_len": 512, "num_train_epochs": 1.0, "save_strategy": "epoch", "warmup_ratio": 0.03}),
    ({"saves_per_epoch": 2, "num_epochs": 3}, {"save_strategy": "steps", "save_steps": 1 / 6}),
    ({"saves_per_epoch": 0}, {"save_strategy": "no"}),
    ({"save_steps": 50}, {"save_strategy": "steps", "save_steps": 50.0}),
    ({"lr_scheduler": "cosine", "cosine_min_lr_ratio": 0.1},
     {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
    ({"bf16": "full"}, {"pure_bf16": True, "bf16": False}),
    ({"bf16": "true", "fp16": True}, {"bf16": True, "fp16": False}),
    ({"sdp_attention": True}, {"flash_attn": "sdpa"}), ({"eager_attention": True}, {"flash_attn": "disabled"}),
    ({"flash_attention": False}, {"flash_attn": "auto"}),
    ({"chat_template": "tokenizer_default"}, {"template": "auto"}), ({"chat_template": "chatml"}, {"template": "chatml"}),
    ({"chat_template": "jinja", "chat_template_jinja": "t.jinja"}, {"template": "t.jinja"}),
    ({"peft_use_dora": True, "adapter": "lora"}, {"use_dora": True}),
    ({"lora_target_linear": True, "lora_target_modules": ["q_proj"], "adapter": "lora"}, {"lora_target": ("q_proj",)}),
    ({"gradient_checkpointing_kwargs": {"use_reentrant": True}, "gradient_checkpointing": True}, {"use_reentrant_gc": True}),
    ({"datasets": [{"path": "a", "data_files": ["x.jsonl", "y.jsonl"], "type": "completion", "field": "body"}]},
     {"dataset": tuple({"file_name": one, "formatting": "text", "columns": {"prompt": "body"}} for one in ("x.jsonl", "y.jsonl")),
      "stage": "pt"}),
    ({"datasets": [{"path": "a.jsonl", "type": "chat_template", "field_messages": "conversations",
                    "message_property_mappings": {"role": "from", "content": "value"}}]},
     {"dataset": ({"file_name": "a.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations"}},), "stage": "sft"}),
    ({"datasets": [{"path": "a.jsonl", "type": {"field_instruction": "q", "field_output": "a"}}]},
     {"dataset": ({"file_name": "a.jsonl", "formatting": "alpaca", "columns": {"prompt": "q", "response": "a"}},)}),
    ({"datasets": ["a.jsonl"], "test_datasets": [{"path": "b.jsonl"}]}, {"dataset": ("a.jsonl",), "eval_dataset": ("b.jsonl",)}),
    ({"use_tensorboard": True}, {"report_to": ("tensorboard",)}),
]


@pytest.mark.parametrize(("given", "wanted"), AXOLOTL_KEYS)
def test_axolotl_keys(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    """One or a few keys, and what the program does without them."""
    found, _ = read("axolotl", given)
    assert {name: found[name] for name in wanted} == wanted


TRL_KEYS = [
    ({}, {"finetuning_type": "full", "cutoff_len": 1024, "learning_rate": 2e-5, "per_device_train_batch_size": 8, "bf16": True,
          "gradient_checkpointing": True, "lr_scheduler_type": "linear"}),
    ({"use_peft": True}, {"finetuning_type": "lora", "lora_rank": 16, "lora_alpha": 32.0, "lora_dropout": 0.05}),
    ({"use_peft": False}, {"finetuning_type": "full"}),
    ({"use_peft": True, "load_in_4bit": True}, {"finetuning_type": "lora", "quantization_bit": 4}),
    ({"fp16": True}, {"fp16": True, "bf16": False}), ({"dtype": "bfloat16"}, {"pure_bf16": True, "bf16": False}),
    ({"completion_only_loss": False}, {"train_on_prompt": True}), ({"completion_only_loss": True}, {"train_on_prompt": False}),
    ({"max_length": None}, {"cutoff_len": 2**24}), ({"max_seq_length": 99}, {"cutoff_len": 99}),
    ({"truncation_mode": "keep_end"}, {"cutoff_policy": "cut_left"}), ({"packing_strategy": "bfd"}, {"neat_packing": True}),
    ({"datasets": [{"path": "a.jsonl", "split": "train"}]}, {"dataset": ("a.jsonl",)}),
    ({"gradient_checkpointing_kwargs": {"use_reentrant": False}}, {"use_reentrant_gc": False}),
]


@pytest.mark.parametrize(("given", "wanted"), TRL_KEYS)
def test_trl_keys(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    """One or a few keys, and what the program does without them."""
    found, _ = read("trl", given)
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(("name", "given", "lines"), [
    ("axolotl", {"plugins": ["x"], "unheard_of": 3, "strict": False, "lora_model_dir": None}, [
        "f.yaml:1: plugins: not understood (axolotl's, or a misspelling); it is left out",
        "f.yaml:2: unheard_of: not understood (axolotl's, or a misspelling); it is left out",
        "f.yaml:3: strict: settings are always checked", "f.yaml:4: lora_model_dir: is empty, and is left out"]),
    ("axolotl", {"datasets": [{"path": "a", "type": "input_output", "shards": 4, "split": "train"}]}, [
        "f.yaml:1: datasets[0].type: not understood; it is left out", "f.yaml:1: datasets[0].shards: not understood; it is left out"]),
    ("axolotl", {"datasets": [{"type": "alpaca"}]}, ["f.yaml:1: datasets[0]: no path is given; it is left out"]),
    ("axolotl", {"adapter": "llama-adapter"}, ["f.yaml:1: adapter: of adapters, only lora and qlora are understood"]),
    ("axolotl", {"num_epochs": "many"}, ["f.yaml:1: num_epochs many: 'many' is not a number; here it is 3"]),
    ("trl", {"loss_type": "dft", "assistant_only_loss": False}, ["f.yaml:1: loss_type: the loss is the cross-entropy of the next token"]),
    ("trl", {"dataset_train_split": "train", "dataset_test_split": "validation", "assistant_only_loss": True}, [
        f"f.yaml:{line}: {key}: the split is not chosen by name; name the file" for line, key in (
            (1, "dataset_train_split"), (2, "dataset_test_split"))]),
    ("trl", {"lora_r": 8}, ["assistant_only_loss is not given: TRL then trains every token of rows with `messages` or `text`; here "
                            "answers are trained, and with train_on_prompt: true the prompts too"]),
])
def test_what_is_not_understood_is_told(name: str, given: dict[str, Any], lines: list[str]) -> None:
    """A line for each, with the place."""
    assert told(read(name, given)[1]) == lines


@pytest.mark.parametrize("name", FOREIGN)
def test_no_key_is_dropped(name: str) -> None:
    """Each key of the tables, at odd values, is a setting or a line; so is each that is in no table."""
    for key in (*FOREIGN[name].keys, "unknown_key", "hub_token"):
        for value in (True, "x", ["a"], {"b": 1}, [{"path": "a", "type": {"b": 1}}, 3]):
            understood = understand(Document("f.yaml", {key: value}, {}), name)
            here = {one.key for one in understood.settings if one.source == "file"} | {line.field for line in understood.report}
            assert key in here, (key, value)


@pytest.mark.parametrize("name", FOREIGN)
def test_secrets_are_never_copied(name: str) -> None:
    """Not under any of the usual names, nor inside the values of keys that are not understood, nor from a list or mapping."""
    secret = "hf_SECRETSECRETSECRET"
    given = {"hub_token": secret, "hf_hub_token": secret, "wandb_api_key": secret, "push_to_hub_token": secret, "my_password": secret,
             "model_init_kwargs": {"token": secret}, "plugins": [secret], "odd": secret, "optim_args": {"a": [secret]}}
    understood = understand(Document("f.yaml", given, {}), name)
    settings = [one for one in understood.settings if one.name != "optim_args"]
    assert secret not in repr(settings) + repr(understood.report)
    assert {line.field for line in understood.report} >= set(given) - {"optim_args"}
    assert "set the environment variable HF_TOKEN" in next(line.detail for line in understood.report if line.field == "hub_token")


@pytest.mark.parametrize(("keys", "name"), [
    (AXOLOTL_FILE, "axolotl"), (TRL_FILE, "trl"), ({"base_model", "sequence_len"}, "axolotl"), ({"dataset_name", "use_peft"}, "trl"),
    ({"base_model", "micro_batch_size", "dialect"}, None), ({"model_name_or_path", "lora_r"}, None), ({"base_model"}, None), (set(), None),
])
def test_recognition(keys: dict[str, Any], name: str | None) -> None:
    """By two keys that only the other program has."""
    assert recognised(keys) == name


def test_none_of_our_files_is_taken_for_theirs() -> None:
    """All the names of a vocabulary together, and each pair of a name with any other, are ours."""
    for dialect in ("native", *DIALECTS):
        assert recognised(names_in(dialect)) is None
    assert not {"base_model", "sequence_len", "micro_batch_size", "num_epochs"} & set(table())


@pytest.mark.parametrize(("given", "title"), [(AXOLOTL_FILE, "an axolotl"), (TRL_FILE, "a TRL")])
def test_training_from_such_a_file_says_how_to_convert_it(given: dict[str, Any], title: str, tmp_path: Path) -> None:
    """One line; with a vocabulary given, the file is read as told."""
    import json

    path = write(tmp_path / "f.json", json.dumps(given))
    with pytest.raises(InputError) as error:
        read_config([path])
    assert str(error.value) == f"{path}: this looks like {title} file; run `tunewright convert {path} --to native -o NEW.yaml`"
    with pytest.raises(InputError, match=r"unknown key|is a name of"):
        read_config([path], dialect="native")
    refuse_foreign([Document("ours.yaml", {"lora_rank": 4, "dataset": "a"}, {})])


def test_the_tables_name_parameters_of_ours_or_of_theirs() -> None:
    """A key that is only renamed stands for a parameter that we have, or one that we refuse and can say why."""
    from tunewright.config.refused.table import refused_in

    ours = set(table()) | set(refused_in("native"))
    for foreign in (AXOLOTL, TRL):
        assert {name for name in foreign.keys.values() if isinstance(name, str)} <= ours
