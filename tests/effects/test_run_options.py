"""What a run does, where, from which model, and with which random numbers: each option changes what its test looks at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.effects.engine_runs import config, history, losses, run, weights
from tests.models.tiny import tiny_model, write_tiny
from tunewright.commands.train import train
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.errors import ConfigError, InputError
from tunewright.models.directory import find_model
from tunewright.models.load import load_model
from tunewright.selftest.tiny import write_model, write_rows
from tunewright.selftest.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.mark.effect("output_dir", "do_predict")
def test_results_and_predictions_go_to_the_output_directory(workspace: Workspace, tmp_path: Path) -> None:
    """One prediction for each held-out row, with the row's own answer as its label."""
    run(workspace, tmp_path / "a", max_steps=1)
    run(workspace, tmp_path / "b", max_steps=1, eval_dataset=workspace.path / "held_out.jsonl", do_predict=True, max_new_tokens=3,
        do_sample=False)
    assert (tmp_path / "a" / "adapter_model.safetensors").is_file() and not (tmp_path / "a" / "generated_predictions.jsonl").exists()
    told = [json.loads(line)["label"] for line in (tmp_path / "b" / "generated_predictions.jsonl").read_text().splitlines()]
    assert told == [json.loads(line)["output"] for line in (workspace.path / "held_out.jsonl").read_text().splitlines()]


@pytest.mark.effect("overwrite_output_dir")
def test_another_run_in_the_directory_is_refused_or_set_aside(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, tmp_path, max_steps=3)
    with pytest.raises(InputError, match="learning_rate"):
        run(workspace, tmp_path, max_steps=3, learning_rate=0.02)
    run(workspace, tmp_path, max_steps=3, learning_rate=0.02, overwrite_output_dir=True)
    assert len(list(tmp_path.glob("previous-*/checkpoint-3"))) == 1


@pytest.mark.effect("model_name_or_path", "finetuning_type")
def test_the_model_and_which_of_it_trains(tmp_path: Path) -> None:
    """Another model has another first loss. Saved is an adapter, or every weight, of which freezing leaves all but some untouched."""
    workspace = Workspace.make(tmp_path)
    for name, changes in {"lora": {}, "full": {}, "freeze": {"freeze_trainable_layers": 1}}.items():
        run(workspace, tmp_path / name, finetuning_type=name, max_steps=2, **changes)
    run(workspace, tmp_path / "other", max_steps=2, model_name_or_path=write_model(tmp_path / "other-model", seed=9))
    assert losses(tmp_path / "lora")[0] != losses(tmp_path / "other")[0]
    assert (tmp_path / "lora" / "adapter_config.json").is_file() and not (tmp_path / "full" / "adapter_config.json").exists()
    base, full, frozen = (weights(tmp_path / name) for name in ("model", "full", "freeze"))
    assert not any(torch.equal(base[name], full[name]) for name in base)
    assert {name for name in base if not torch.equal(base[name], frozen[name])} == {name for name in base if ".layers.1." in name}


@pytest.mark.effect("seed", "data_seed")
def test_seeds(workspace: Workspace, tmp_path: Path) -> None:
    """`seed` gives the first factors and, without `data_seed`, the order of samples. A loss of B = 0 depends on the order alone."""
    for name, changes in {"a": {"seed": 1}, "b": {"seed": 1}, "c": {"seed": 2}, "d": {"seed": 2, "data_seed": 1}}.items():
        run(workspace, tmp_path / name, max_steps=2, logging_steps=1, **changes)
    a, b, c, d = (losses(tmp_path / name) for name in "abcd")
    assert a == b and a[0] != c[0] and a[0] == d[0] and a[1] != d[1]


@pytest.mark.effect("full_determinism")
def test_only_deterministic_operations(workspace: Workspace, tmp_path: Path) -> None:
    """torch itself says whether it would refuse others."""
    assert not torch.are_deterministic_algorithms_enabled()
    run(workspace, tmp_path, max_steps=1, full_determinism=True)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.effect("use_cpu")
def test_the_cpu_is_used_where_it_is_asked_for(workspace: Workspace, tmp_path: Path) -> None:
    """Nothing that needs an accelerator is let through with it, and without one of them nothing changes."""
    with pytest.raises(ConfigError, match="fp16"):
        config(workspace, tmp_path, use_cpu=True, fp16=True)
    run(workspace, tmp_path, max_steps=1, use_cpu=True)
    assert losses(tmp_path)


@pytest.mark.effect("model_revision", "cache_dir")
def test_a_hub_model_is_found_in_the_cache_by_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own layout of a cache: refs name commits, snapshots hold their files. Nothing is asked of the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository = tmp_path / "cache" / "models--org--name"
    for branch, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        write_tiny(repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)

    def found(**fields: str) -> str:
        return find_model(ModelConfig(model_name_or_path="org/name", **fields)).name

    assert found(cache_dir=str(tmp_path / "cache")) == "a" * 40
    assert found(cache_dir=str(tmp_path / "cache"), model_revision="v2") == "b" * 40
    with pytest.raises(InputError, match="the hub did not give it"):
        found(cache_dir=str(tmp_path / "elsewhere"))


@pytest.mark.effect("trust_remote_code")
def test_code_of_a_model_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    """The directory brings a class whose forward pass adds one to the logits of a plain Llama."""
    write_tiny(tmp_path)
    (tmp_path / "odd.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OddConfig(LlamaConfig):\n    model_type = 'odd'\n"
        "class Odd(LlamaForCausalLM):\n    config_class = OddConfig\n"
        "    def forward(self, *args, **kwargs):\n        found = super().forward(*args, **kwargs)\n"
        "        found.logits = found.logits + 1\n        return found\n")
    file = tmp_path / "config.json"
    classes = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.Odd"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "odd", "auto_map": classes}))
    with pytest.raises(InputError, match="model_type 'odd' is not known"):
        load_model(ModelConfig(model_name_or_path=str(tmp_path)), PrecisionConfig())
    trusted = load_model(ModelConfig(model_name_or_path=str(tmp_path), trust_remote_code=True), PrecisionConfig())
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(trusted(ids).logits, tiny_model("llama")(ids).logits + 1)


@pytest.mark.effect("split_special_tokens")
def test_special_tokens_in_documents(workspace: Workspace, tmp_path: Path) -> None:
    """`<|im_end|>` written in a document is one token, or the characters that spell it: more tokens, and none of that id."""
    file = tmp_path / "documents.jsonl"
    file.write_text(json.dumps({"text": "river <|im_end|> stone"}) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(workspace.path / "model")
    for split in (False, True):
        seen = run(workspace, tmp_path / str(split), stage="pt", dataset=file, packing=False, max_steps=1, split_special_tokens=split)
        ids = tokenizer("river <|im_end|> stone", split_special_tokens=split)["input_ids"]
        assert (tokenizer.convert_tokens_to_ids("<|im_end|>") in ids) is not split
        assert seen["total_tokens"] == len(ids) + 1  # and the end of the document


@pytest.mark.effect("print_param_status")
def test_every_parameter_is_printed(workspace: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A frozen norm is in no other line of a run."""
    run(workspace, tmp_path / "a", max_steps=1)
    assert "model.layers.0.input_layernorm.weight" not in capfd.readouterr().err
    run(workspace, tmp_path / "b", max_steps=1, print_param_status=True)
    assert "model.layers.0.input_layernorm.weight" in capfd.readouterr().err


@pytest.mark.effect("lora_dropout")
def test_dropout_drops(workspace: Workspace, tmp_path: Path) -> None:
    """B is zero at the first step, so that dropout shows from the second on."""
    for name, dropout in (("a", 0.0), ("b", 0.5)):
        run(workspace, tmp_path / name, max_steps=3, logging_steps=1, lora_dropout=dropout)
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert a[0] == b[0] and a[1:] != b[1:]


@pytest.mark.effect("pissa_convert")
def test_a_pissa_adapter_is_saved_as_an_ordinary_one_too(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, tmp_path / "a", max_steps=1, pissa_init=True)
    run(workspace, tmp_path / "b", max_steps=1, pissa_init=True, pissa_convert=True)
    converted = [path.parent for path in (tmp_path / "b").rglob("adapter_config.json") if "checkpoint" not in str(path)]
    assert len(converted) == len([path for path in (tmp_path / "a").rglob("adapter_config.json") if "checkpoint" not in str(path)]) + 1
    ranks = {json.loads((path / "adapter_config.json").read_text())["r"] for path in converted}
    assert ranks == {8, 16}  # W + 2r: the converted one carries the first factors too


@pytest.mark.effect("dataset", "dataset_dir")
def test_which_rows(workspace: Workspace, tmp_path: Path) -> None:
    """A registered name is looked up in dataset_dir; the steps of an epoch count its rows, 8 a step."""
    write_rows(tmp_path / "data" / "few.jsonl", 8)
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"few": {"file_name": "few.jsonl"}}))
    run(workspace, tmp_path / "a", num_train_epochs=1, dataset="few", dataset_dir=tmp_path / "data")
    run(workspace, tmp_path / "b", num_train_epochs=1)
    steps = [json.loads((tmp_path / name / "trainer_state.json").read_text())["max_steps"] for name in "ab"]
    assert steps == [2, 6]
    with pytest.raises(InputError):
        train(config(workspace, tmp_path / "c", dataset="few", dataset_dir=workspace.path))


@pytest.mark.effect("train_on_prompt", "mask_history")
def test_which_tokens_train(workspace: Workspace, tmp_path: Path) -> None:
    """Two turns: both answers train, or the last alone, or everything; counted in the log of the first step."""
    file = tmp_path / "turns.jsonl"
    words = ("river", "stone", "dune", "ember")
    turns = [{"role": role, "content": word} for role, word in zip(("user", "assistant") * 2, words, strict=True)]
    file.write_text(json.dumps({"messages": turns}) + "\n")
    counted = {}
    for name, changes in {"answers": {}, "last": {"mask_history": True}, "all": {"train_on_prompt": True}}.items():
        run(workspace, tmp_path / name, dataset=file, max_steps=1, logging_steps=1, **changes)
        counted[name] = history(tmp_path / name)[0]["loss"], (tmp_path / name / "data_audit.jsonl").read_text()
    assert len({loss for loss, _ in counted.values()}) == 3
