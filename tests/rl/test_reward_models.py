"""Reward models as scorers: an adapter on the policy's base, and a model of its own.

Oracle: plain peft and transformers, one row at a time: the last hidden state of the last token, times the head's weights.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.adapters.lora import load_adapter
from tunewright.adapters.reward_adapter import load_reward_adapter
from tunewright.adapters.trainable import make_trainable, save_trained
from tunewright.config.alignment import AlignmentConfig
from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.run import RunConfig
from tunewright.config.tuning import LoraConfig, TuningConfig
from tunewright.engine.reward_role import open_reward
from tunewright.errors import InputError
from tunewright.kernels import output_head
from tunewright.kernels.lora_groups import switch_over
from tunewright.models.heads import new_value_head
from tunewright.models.load import load_model
from tunewright.models.tokenizer import load_tokenizer
from tunewright.rl.rewards import Answers, ModelScorer, open_scorers
from tunewright.selftest.tiny import write_model

ROWS = ([5, 9, 30], [7], [44, 3, 3, 8, 60, 21])
ENDS = ([12, 2], [90, 33, 71, 2], [2])
ANSWERS = Answers(ROWS, ENDS, ("",) * 3, ("",) * 3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "base")


def settings(base: Path, kind: str = "lora", **lora: Any) -> RunConfig:
    return RunConfig(model=ModelConfig(model_name_or_path=str(base)), tuning=TuningConfig(finetuning_type=kind), lora=LoraConfig(**lora))


def moved(run: RunConfig, seed: int) -> Any:
    """A trainable model whose every trained tensor has moved away from its start."""
    model = make_trainable(load_model(run.model, run.precision), run)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def reward_model(base: Path, directory: Path, kind: str = "lora", **lora: Any) -> Path:
    run = settings(base, kind, **lora)
    model = moved(run, 1)
    head = new_value_head(model, seed=4)
    torch.nn.init.constant_(head.summary.bias, 0.3)
    save_trained(model, directory, load_tokenizer(run.model, TokenizerConfig()))
    return directory


def plain_scores(directory: Path, base: Path | None) -> list[float]:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base or directory)
    model = model if base is None else PeftModel.from_pretrained(model, directory)
    head = load_file(directory / "value_head.safetensors")
    found = []
    for prompt, answer in zip(ROWS, ENDS, strict=True):
        with torch.no_grad():
            state = model.eval()(input_ids=torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states[-1][0, -1]
        found.append(float(state @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"][0]))
    return found


def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[5, 9, 30, 12]])).logits
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("other_layers", [False, True])
def test_an_adapter_takes_turns_with_the_policys(base: Path, tmp_path: Path, batch_size: int, other_layers: bool) -> None:
    """Scores are plain peft's, though the policy's factors moved too; afterwards the policy computes and trains as before, bit for bit.

    `other_layers`: the reward adapts layers that the policy does not.
    """
    directory = reward_model(base, tmp_path, **({"lora_target": ("down_proj", "q_proj"), "lora_rank": 4} if other_layers else {}))
    policy = moved(settings(base, lora_target=("q_proj", "v_proj")), 2)
    trained = [name for name, weight in policy.named_parameters() if weight.requires_grad]
    before = logits(policy)
    policy.train()
    reward = load_reward_adapter(policy, directory)
    switch_over(policy)
    (scorer,) = open_scorers(AlignmentConfig(reward_model=str(directory)), reward, 0, batch_size)
    assert scorer(ANSWERS) == pytest.approx(plain_scores(directory, base), abs=1e-5)
    assert policy.training
    assert [name for name, weight in policy.named_parameters() if weight.requires_grad] == trained
    assert torch.allclose(logits(policy), before, atol=1e-5)
    assert [name for name, weight in reward.v_head.named_parameters() if weight.requires_grad] == []


@pytest.mark.parametrize("trained", [("lm_head",), ("embed_tokens", "lm_head")])
def test_a_policy_that_trains_more_than_its_adapter(base: Path, tmp_path: Path, trained: tuple[str, ...]) -> None:
    """Its projection, which is taken over, and its embeddings train as copies: scores are those of the base, whatever became of them."""
    directory = reward_model(base, tmp_path)
    policy = moved(settings(base, additional_target=trained), 2)
    assert output_head.adopt(policy) is None
    before = logits(policy)
    reward = load_reward_adapter(policy, directory)
    (scorer,) = open_scorers(AlignmentConfig(reward_model=str(directory)), reward, 0, 2)
    assert scorer(ANSWERS) == pytest.approx(plain_scores(directory, base), abs=1e-5)
    assert torch.equal(logits(policy), before)


def test_the_policys_adapter_is_saved_alone(base: Path, tmp_path: Path) -> None:
    """The file has the policy's factors only, and opens to the policy."""
    policy = moved(settings(base), 2)
    load_reward_adapter(policy, reward_model(base, tmp_path / "reward"))
    save_trained(policy, tmp_path / "policy", load_tokenizer(ModelConfig(model_name_or_path=str(base)), TokenizerConfig()))
    assert not (tmp_path / "policy" / "value_head.safetensors").exists()
    opened = load_adapter(load_model(ModelConfig(model_name_or_path=str(base)), PrecisionConfig()), tmp_path / "policy", trainable=False)
    assert torch.allclose(logits(opened), logits(policy), atol=1e-6)


@pytest.mark.effect("reward_model", "reward_model_type")
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_model_of_its_own(base: Path, tmp_path: Path, kind: str) -> None:
    """Full weights with a head, and an adapter that is merged into its base; a policy that trains in full may have either."""
    directory = reward_model(base, tmp_path / "reward", kind)
    run = settings(base, "full")
    given = AlignmentConfig(reward_model=str(directory), reward_model_type="full")
    tokenizer = load_tokenizer(run.model, TokenizerConfig())
    policy = make_trainable(load_model(run.model, run.precision), run)
    reward = open_reward(replace(run, alignment=given), policy, tokenizer)
    assert reward is not None and not any(weight.requires_grad for weight in reward.parameters())
    assert ModelScorer(reward, 0, 2)(ANSWERS) == pytest.approx(plain_scores(directory, None if kind == "full" else base), abs=1e-5)


@pytest.mark.effect("reward_model_adapters")
def test_adapters_of_a_model_of_its_own(base: Path, tmp_path: Path) -> None:
    """The base named, the adapter beside it: the same rewards as from the adapter's directory; without it there is no head."""
    directory = reward_model(base, tmp_path / "reward")
    run = settings(base)
    tokenizer = load_tokenizer(run.model, TokenizerConfig())
    given = AlignmentConfig(reward_model=str(base), reward_model_type="full", reward_model_adapters=(str(directory),))
    reward = open_reward(replace(run, alignment=given), torch.nn.Module(), tokenizer)
    assert reward is not None and ModelScorer(reward, 0, 3)(ANSWERS) == pytest.approx(plain_scores(directory, base), abs=1e-5)
    with pytest.raises(InputError, match="it is not a reward model"):
        open_reward(replace(run, alignment=replace(given, reward_model_adapters=())), torch.nn.Module(), tokenizer)


@pytest.mark.effect("reward_model_quantization_bit")
def test_a_quantised_model_of_its_own(base: Path, tmp_path: Path) -> None:
    """8 bits: the adapter stays live on quantised layers, and the rewards are near those of the floats, but not the same."""
    pytest.importorskip("bitsandbytes")
    directory = reward_model(base, tmp_path / "reward")
    run = settings(base)
    given = AlignmentConfig(reward_model=str(directory), reward_model_type="full", reward_model_quantization_bit=8)
    reward = open_reward(replace(run, alignment=given), torch.nn.Module(), load_tokenizer(run.model, TokenizerConfig()))
    assert reward is not None
    found, expected = ModelScorer(reward, 0, 3)(ANSWERS), plain_scores(directory, base)
    assert found == pytest.approx(expected, abs=0.1) and found != pytest.approx(expected, abs=1e-6)


def test_a_service_is_no_model(base: Path) -> None:
    run = replace(settings(base), alignment=AlignmentConfig(reward_model="http://127.0.0.1:1/", reward_model_type="api"))
    assert open_reward(run, torch.nn.Module(), None) is None  # type: ignore[arg-type]


def test_a_reward_model_with_other_tokens_is_refused(base: Path, tmp_path: Path) -> None:
    directory = reward_model(base, tmp_path / "reward", "full")
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    run = replace(settings(base), alignment=AlignmentConfig(reward_model=str(directory), reward_model_type="full"))
    with pytest.raises(InputError, match=r"another one than the policy's: '[ab]' is \d+ here and \d+ there; serve it over HTTP"):
        open_reward(run, torch.nn.Module(), load_tokenizer(run.model, TokenizerConfig()))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "biases": ({"lora_bias": "all", "lora_target": ("q_proj",)}, "trained with lora_bias"),
    "whole modules": ({"additional_target": ("embed_tokens", "lm_head")}, "trained with additional_target"),
    "PiSSA": ({"pissa_init": True}, "trained with pissa_init"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_changes_the_base_cannot_take_turns(base: Path, tmp_path: Path, case: str) -> None:
    lora, words = REFUSED[case]
    directory = reward_model(base, tmp_path / "reward", **lora)
    with pytest.raises(InputError, match=f"{words}.*reward_model_type: full"):
        load_reward_adapter(moved(settings(base), 2), directory)


def test_a_base_of_another_name_is_told(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be the same model that was moved, or another one of the same shape."""
    directory = reward_model(base, tmp_path / "reward")
    load_reward_adapter(moved(settings(base), 2), directory)
    assert not caplog.messages
    load_reward_adapter(moved(settings(write_model(tmp_path / "other")), 2), directory)
    assert caplog.messages == [f"reward_model: its adapter was trained on {base}, and works on {tmp_path}/other here: if that is another "
                               "model, so are its rewards"]


def test_an_adapter_needs_a_policy_with_one_and_the_same_base(base: Path, tmp_path: Path) -> None:
    directory = reward_model(base, tmp_path / "reward")
    with pytest.raises(InputError, match="the policy has no adapter; set finetuning_type: lora"):
        load_reward_adapter(load_model(ModelConfig(model_name_or_path=str(base)), PrecisionConfig()), directory)
    (directory / "merged_adapters.json").write_text(json.dumps({"merged_adapters": ["/saves/sft"]}))
    with pytest.raises(InputError, match="stands on a base with /saves/sft merged into it, the policy on one with no adapter"):
        load_reward_adapter(moved(settings(base), 2), directory)
    (directory / "merged_adapters.json").unlink()
    (directory / "value_head.safetensors").unlink()
    with pytest.raises(InputError, match="it is not a reward model; train one with stage: rm"):
        load_reward_adapter(moved(settings(base), 2), directory)
