"""One complete run in each vocabulary, from the sample of its own document, and the same run written in our names.

The oracle is identity: the two runs give the same losses, gradient norms, learning rates and evaluations, bit for bit. Our side is
written out by hand from the table of defaults in the specification. Of a sample only the model and the data are replaced, and what would
take hours: lengths, numbers of workers, and steps between two evaluations or checkpoints. What else is replaced says so beside it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.dialects import samples
from tunewright.cli import main
from tunewright.selftest.tiny import write_model

pytestmark = pytest.mark.slow

ROWS = [(f"What is the {word}?", f"The {word} is {word[::-1]}.") for word in
        ("anchor", "bridge", "candle", "dune", "ember", "falcon", "garden", "harbor", "island", "jungle", "kettle", "lantern")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs seed the process's generators and may demand determinism; other tests must not notice."""
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the number format of the first run of a process
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        yield
    torch.use_deterministic_algorithms(deterministic)
    AcceleratorState._reset_state(reset_partial_state=True)


def alpaca(path: str, *, instruction: str = "instruction", output: str = "output") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps([{instruction: question, output: answer} for question, answer in ROWS]), encoding="utf-8")


def train(*words: str) -> None:
    """The command, in this process; the token cache is left out so that both runs read the data themselves."""
    assert main(["train", *words, "data_cache_dir=none", "disable_tqdm=true"]) == 0


def train_natively(settings: dict[str, Any]) -> None:
    Path("ours.json").write_text(json.dumps({"dialect": "native", **settings}))
    train("ours.json")


def history(output_dir: str) -> list[dict[str, Any]]:
    """What was logged, without times."""
    found: list[dict[str, Any]] = json.loads((Path(output_dir) / "trainer_state.json").read_text())["log_history"]
    return [{name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name} for entry in found]


def same_runs(theirs: str, ours: str, *, weights: str = "adapter_model.safetensors") -> list[dict[str, Any]]:
    """The log of both, after saying that the runs are one: every figure, and every byte of what was trained."""
    assert history(theirs) == history(ours)
    assert (Path(theirs) / weights).read_bytes() == (Path(ours) / weights).read_bytes()
    return history(theirs)


def replaced(text: str, **values: Any) -> str:
    """A YAML sample with other values of some keys, at whatever depth they stand."""
    lines = text.splitlines()
    for key, value in values.items():
        places = [number for number, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
        assert len(places) == 1, key
        head = lines[places[0]].partition(":")[0]
        lines[places[0]] = f"{head}: {value}"
    return "\n".join(lines) + "\n"


def test_llamafactory(model: Path) -> None:
    """Its YAML: LoRA in bfloat16 with registered data sets, a tenth held back and evaluated."""
    alpaca("data/identity.json")
    alpaca("data/demo.json", instruction="q", output="a")
    Path("data/dataset_info.json").write_text(json.dumps({
        "identity": {"file_name": "identity.json"},
        "alpaca_en_demo": {"file_name": "demo.json", "columns": {"prompt": "q", "response": "a"}}}))
    small = {"preprocessing_num_workers": 1, "logging_steps": 1, "eval_steps": 1, "save_steps": 2, "num_train_epochs": 2.0}
    Path("theirs.yaml").write_text(replaced(samples.LLAMAFACTORY, model_name_or_path=model, output_dir="theirs", **small))
    train("theirs.yaml")
    train_natively({
        "model_name_or_path": str(model), "dataset": "identity,alpaca_en_demo", "template": "llama3", "cutoff_len": 1024,
        "max_samples": 1000,
        "output_dir": "ours", "overwrite_output_dir": True, "finetuning_type": "lora", "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "learning_rate": 1e-4, "num_train_epochs": 2,
        "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "bf16": True, "val_size": 0.1, "per_device_eval_batch_size": 1,
        "eval_strategy": "steps", "eval_steps": 1, "save_steps": 2, "logging_steps": 1, "optim": "adamw_torch", "weight_decay": 0,
        "gradient_checkpointing": True, "use_reentrant_gc": True, "neat_packing": False, "seed": 42})
    log = same_runs("theirs", "ours")
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert {"training_loss.png", "checkpoint-6"} <= {path.name for path in Path("theirs").iterdir()}


def test_cli_reference(model: Path) -> None:
    """Its command line: LoRA with eager attention on files called by their names, the best evaluation kept."""
    alpaca("data/alpaca_zh.json")
    Path("data/identity.csv").write_text("instruction,output\n" + "".join(f'"{q}","{a}"\n' for q, a in ROWS), encoding="utf-8")
    words = shlex.split(samples.CLI_REFERENCE)
    small = {"--model_name_or_path": str(model), "--output_dir": "theirs", "--eval_steps": "1", "--save-steps": "1", "--logging_steps": "1"}
    for name, value in small.items():
        words[words.index(name) + 1] = value
    train(*words)
    train_natively({
        "model_name_or_path": str(model), "dataset": ["data/alpaca_zh.json", "data/identity.csv"], "cutoff_len": 512, "output_dir": "ours",
        "finetuning_type": "lora", "lora_rank": 8, "lora_alpha": 32, "lora_dropout": 0.05, "lora_target": "q_proj,v_proj",
        "flash_attn": "disabled", "learning_rate": 5e-5, "num_train_epochs": 3, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1, "lr_scheduler_type": "cosine", "warmup_ratio": 0.03, "weight_decay": 0, "max_grad_norm": 1,
        "optim": "adamw_torch_fused", "eval_strategy": "steps", "eval_steps": 1, "val_size": 0.1, "load_best_model_at_end": True,
        "metric_for_best_model": "loss", "greater_is_better": False, "early_stopping_patience": 3, "logging_steps": 1, "save_steps": 1,
        "save_total_limit": 3, "gradient_checkpointing": True, "use_reentrant_gc": True})
    log = same_runs("theirs", "ours")
    assert [entry["step"] for entry in log if "eval_loss" in entry] == list(range(1, 10))
    assert (Path("theirs") / "training_loss.png").is_file()


def test_mindspeed_fsdp2(model: Path) -> None:
    """Its YAML sections: full tuning on an inline data set, with an override of a section; the saved model opens by itself."""
    alpaca("my_data.json")
    Path("theirs.yaml").write_text(replaced(samples.MINDSPEED_FSDP2, model_name_or_path=model, output_dir="theirs", save_steps=5))
    train("theirs.yaml", "--training.lr", "1e-3")
    train_natively({
        "model_name_or_path": str(model), "dataset": {"file_name": "./my_data.json", "formatting": "alpaca"}, "template": "qwen3",
        "cutoff_len": 2048, "max_samples": 100000, "enable_thinking": True, "output_dir": "ours", "finetuning_type": "full",
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "seed": 42, "optim": "adamw_torch", "learning_rate": 1e-3,
        "weight_decay": 0.01, "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8, "max_grad_norm": 1,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03, "min_lr": 1e-6, "num_train_epochs": 3, "save_steps": 5, "save_total_limit": 3, "logging_steps": 1,
        "gradient_checkpointing": True, "flash_attn": "disabled", "neat_packing": False, "packing": False,
        "pure_bf16": True, "reduce_dtype": "fp32"})
    log = same_runs("theirs", "ours", weights="model.safetensors")
    assert len(log) == 36 and log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["learning_rate"] < 2e-5

    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained("theirs").num_parameters() > 0


@pytest.mark.effect("report_to")
def test_sft_json(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its JSON with its table: LoRA, metrics to TensorBoard and, asked for as the document describes it, to the console."""
    table = Path("data/csv/aspcoder_train.csv")
    table.parent.mkdir(parents=True)
    table.write_text("category,human,assistant\n" + "".join(f'asp,"{q}","{a}"\n' for q, a in ROWS * 3), encoding="utf-8")
    written = json.loads(samples.SFT_JSON)
    assert main(["train", "--dialect", "sft_json", f"model_name_or_path={model}", "output_dir=refused", "data_cache_dir=none"]) == 2
    assert "fp16: mixed precision with float16 needs an accelerator, and there is none; write fp16: false" in capfd.readouterr().err
    # On a machine without an accelerator fp16, and with it the run, is refused: that key is replaced, and the length of the warm-up.
    small = {"logging_steps": 1, "save_steps": 2, "warmup_steps": 2, "report_to": "tensorboard,console"}
    Path("theirs.json").write_text(json.dumps({**written, **small, "model_name_or_path": str(model), "output_dir": "theirs",
    "fp16": False}))
    train("theirs.json")
    printed = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    train_natively({
        "model_name_or_path": str(model), "dataset": str(table), "template": "qwen2.5", "cutoff_len": 1024, "output_dir": "ours",
        "finetuning_type": "lora", "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.05, "num_train_epochs": 1,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 16, "learning_rate": 2e-4, "weight_decay": 0, "max_grad_norm": 0.3,
        "optim": "paged_adamw_32bit", "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2, "gradient_checkpointing": True,
        "logging_steps": 1, "save_steps": 2, "save_total_limit": 1, "seed": 42, "full_determinism": True})
    log = same_runs("theirs", "ours")
    assert [entry["learning_rate"] for entry in log] == [0, 1e-4, 2e-4]
    assert [entry["loss"] for entry in printed if "loss" in entry] == [entry["loss"] for entry in log]
    lines = table.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["conversation"][0]["human"] for line in lines] == [question for question, _ in ROWS * 3]
    assert list((Path("theirs") / "runs").glob("events.out.tfevents.*"))


def test_qlora_script(model: Path) -> None:
    """Its YAML: LoRA over 4 bits with an 8-bit paged optimizer, like lengths together; evaluated each epoch, on rows that our own
    val_size holds back, because the document has no name for them."""
    alpaca("formatted_samples.json")
    Path("theirs.yaml").write_text(replaced(samples.QLORA_SCRIPT, model_name=model, output_dir="theirs", n_epochs=2))
    train("theirs.yaml", "--val_size", "4")
    train_natively({
        "model_name_or_path": str(model), "dataset": "formatted_samples.json", "cutoff_len": 4096, "output_dir": "ours", "val_size": 4,
        "finetuning_type": "lora", "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.05, "quantization_bit": 4,
        "double_quantization": True,
        "quantization_type": "nf4", "compute_dtype": "float16", "optim": "paged_adamw_8bit", "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1, "num_train_epochs": 2, "weight_decay": 0, "learning_rate": 1e-4, "max_grad_norm": 0.3,
        "gradient_checkpointing": True, "do_eval": True, "eval_strategy": "epoch", "lr_scheduler_type": "cosine", "warmup_ratio": 0.03,
        "logging_steps": 1, "group_by_length": True, "save_strategy": "epoch", "save_total_limit": 3,
        "trust_remote_code": True})
    log = same_runs("theirs", "ours")
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [2, 4]
    assert sorted(path.name for path in Path("theirs").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert "eval_loss" in json.loads((Path("theirs") / "all_results.json").read_text())
