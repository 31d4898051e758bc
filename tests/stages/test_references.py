"""What the policy is compared with: no base that its adapter changed, numbers that are kept under what made them, and a start at ln 2."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.effects.engine_runs import config, history, run
from tunewright.adapters.lora import load_adapter, new_adapter, save_adapter
from tunewright.adapters.switched_off import AdapterSwitchedOff
from tunewright.adapters.trainable import make_trainable, save_trained
from tunewright.config.tuning import LoraConfig
from tunewright.engine.evaluate import Measured
from tunewright.engine.roles import reference_facts
from tunewright.errors import InputError
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.tiny import write_model
from tunewright.selftest.workspace import Workspace

IDS = torch.arange(3, 11)[None]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    path = tmp_path_factory.mktemp("references")
    write_model(path / "model")
    for name, count, seed in (("rows", 8, 0), ("held_out", 6, 1)):
        write_pairs(path / f"{name}.jsonl", count, seed=seed)
    return Workspace(path)


@pytest.fixture
def own_number_format() -> Iterator[None]:
    """accelerate keeps the number format of the first run of a process; and runs seed the process's generators."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with torch.random.fork_rng():
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


def tiny() -> Any:
    """A model with biases in its projections; the same in every call."""
    import transformers

    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(transformers.Qwen2Config(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)).eval()


@pytest.mark.parametrize(("options", "said"), [
    ({"pissa_init": True}, "pissa_init took its first factors out of the base"), ({"lora_bias": "lora_only"}, "lora_bias trained biases")])
def test_an_adapter_that_changed_the_base_leaves_no_reference(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    """New, and continued by a run whose own options say nothing of it."""
    made = new_adapter(tiny(), LoraConfig(lora_target=("q_proj",), lora_rank=2, **options), 0)
    with pytest.raises(InputError, match=said):
        AdapterSwitchedOff(made)
    save_adapter(made, tmp_path)
    with pytest.raises(InputError, match=said):
        AdapterSwitchedOff(load_adapter(tiny(), tmp_path, trainable=True))


def test_a_plain_adapter_leaves_the_base() -> None:
    """Bit for bit the logits of a model that never had one, and what trains still does."""
    made = new_adapter(tiny(), LoraConfig(lora_target=("q_proj",), lora_rank=2), 0)
    trained = [name for name, weight in made.named_parameters() if weight.requires_grad]
    for name, weight in made.named_parameters():
        if ".lora_" in name:
            weight.data.normal_()
    with torch.no_grad():
        off, on, plain = AdapterSwitchedOff(made)(input_ids=IDS).logits, made(input_ids=IDS).logits, tiny()(input_ids=IDS).logits
    assert torch.equal(off, plain) and not torch.equal(on, plain)
    assert [name for name, weight in made.named_parameters() if weight.requires_grad] == trained


def test_a_continued_run_has_the_base_it_began_with(workspace: Workspace, tmp_path: Path) -> None:
    """A token is added, whose rows train in full beside the adapter: without it there are those of the start, after an interruption too."""
    import transformers

    asked = config(workspace, tmp_path / "run", stage="dpo", add_special_tokens="<zz>")
    tokenizer = load_tokenizer(asked.model, asked.tokenizer)
    found = []
    for checkpoint in (None, tmp_path / "checkpoint"):
        base = transformers.AutoModelForCausalLM.from_pretrained(workspace.path / "model")
        policy = make_trainable(base, asked, checkpoint=checkpoint, tokenizer=tokenizer)
        with torch.no_grad():
            found.append(AdapterSwitchedOff(policy)(input_ids=torch.tensor([[5, 9, len(tokenizer) - 1, 7]])).logits)
            for weight in (one for one in policy.parameters() if one.requires_grad):
                weight.add_(0.1)
        save_trained(policy, tmp_path / "checkpoint", tokenizer)
    assert torch.equal(*found)


def test_kept_numbers_know_how_new_rows_began(workspace: Workspace, tmp_path: Path) -> None:
    """Rows of new tokens stand in every softmax of the reference: other first numbers are another reference."""
    described = tmp_path / "tokens.json"
    found = []
    for text, how in (("river", "desc_init"), ("valley", "desc_init"), ("river", "noise_init")):
        described.write_text(json.dumps({"<zz>": text}))
        asked = config(workspace, tmp_path / "run", stage="dpo", new_special_tokens_config=described, init_special_tokens=how)
        found.append(json.dumps(reference_facts(asked, load_tokenizer(asked.model, asked.tokenizer))))
    assert len(set(found)) == 3


def test_a_mean_over_nothing_is_not_told() -> None:
    """Feedback that is good throughout has no reward of bad answers; a file with NaN would be no JSON."""
    told = Measured({"loss": [(1.0, 2.0)], "rewards/chosen": [(3.0, 2.0)], "rewards/rejected": [(0.0, 0.0)]}, 2, 1, 1.0).metrics("eval")
    assert told["eval_rewards/chosen"] == 1.5 and "eval_rewards/rejected" not in told


@pytest.mark.slow
@pytest.mark.usefixtures("own_number_format")
def test_a_run_takes_the_place_of_a_reward_model(capsys: pytest.CaptureFixture[str], workspace: Workspace, tmp_path: Path) -> None:
    """Nothing of the old run stays in its directory, its value head included. Mixed precision is that of training in evaluations, too: the
    first one, before a step, is ln 2 with a reward of nothing, though prompts are computed for each answer as slow_paths asks."""
    common = {"dataset": workspace.path / "rows.jsonl", "max_steps": 1, "save_strategy": "no"}
    run(workspace, tmp_path, stage="rm", bf16=True, **common)
    assert (tmp_path / "value_head.safetensors").is_file()
    capsys.readouterr()
    run(workspace, tmp_path, stage="dpo", bf16=True, eval_on_start=True, eval_dataset=workspace.path / "held_out.jsonl",
        slow_paths="prefix", overwrite_output_dir=True, **common)
    assert not (tmp_path / "value_head.safetensors").exists()
    assert len(list(tmp_path.glob("previous-*/value_head.safetensors"))) == 1
    assert "prompts: computed once for each answer: slow_paths asks for it" in capsys.readouterr().err
    first = next(entry for entry in history(tmp_path) if "eval_loss" in entry)
    assert first["eval_loss"] == pytest.approx(math.log(2), abs=1e-6) and first["eval_rewards/margins"] == pytest.approx(0, abs=1e-6)
