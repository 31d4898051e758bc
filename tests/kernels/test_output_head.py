"""Models run without logits. Oracle: transformers' own logits and torch's cross_entropy over them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.kernels.test_isolation import SHAPE, sequences, tiny
from tunewright.data.collate import collate_padded
from tunewright.kernels import output_head
from tunewright.stages.pretrain import PreTraining
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

MODELS: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen3": {}, "qwen3_moe": {}, "gpt_oss": {}, "gemma2": {}, "mistral": {}, "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25}, "phi": {}, "glm4": {}, "gpt_neox": {},
}


Lengths = Sequence[Sequence[int]]
RAGGED: Lengths = [[6], [9], [4]]


def made(kind: str, **changes: Any) -> nn.Module:
    if not MODELS[kind] and not changes and kind in ("llama", "qwen3", "qwen3_moe", "gpt_oss", "gemma2", "mistral"):
        return tiny(kind)
    import transformers

    torch.manual_seed(2)
    return transformers.AutoModelForCausalLM.from_config(
        transformers.CONFIG_MAPPING[kind](**SHAPE, **MODELS[kind], **changes), dtype=torch.float64)


def losses(model: nn.Module, lengths: Lengths = RAGGED, z_weight: float = 0.0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = SupervisedFineTuning(z_loss_weight=z_weight).loss({Role.POLICY: model}, collate_padded(sequences(lengths), 0))
    (loss.sum / loss.count).backward()
    return loss.sum.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def stock(model: nn.Module, lengths: Lengths = RAGGED, z_weight: float = 0.0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    batch = collate_padded(sequences(lengths), 0)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids).logits[:, :-1]
    aims = batch.targets[:, :-1]
    loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), aims.reshape(-1), reduction="sum")
    loss = loss + z_weight * (torch.logsumexp(logits[aims != -100], -1) ** 2).sum()
    (loss / int((aims != -100).sum())).backward()
    return loss.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradients_of_whole_models(kind: str) -> None:
    """Factors, caps and a bias at the end of a model included; every weight trains, tied ones too."""
    model = made(kind)
    lengths = [[9], [9]] if kind == "gemma2" else RAGGED  # on padding it gives NaN, with or without us
    wanted = stock(model, lengths)
    assert output_head.adopt(model) is None
    torch.testing.assert_close(losses(model, lengths), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["llama", "granite", "cohere"])
def test_the_z_loss_of_whole_models(kind: str) -> None:
    """Cross-entropy plus w logsumexp^2 of the model's own logits, by both ways to the loss; factors at the end of a model included."""
    model = made(kind)
    wanted = stock(model, z_weight=0.1)
    torch.testing.assert_close(losses(model, z_weight=0.1), wanted, rtol=1e-9, atol=1e-11)
    assert output_head.adopt(model) is None
    torch.testing.assert_close(losses(model, z_weight=0.1), wanted, rtol=1e-9, atol=1e-11)
    assert float(wanted[0]) > float(stock(model)[0]) + 1


@pytest.mark.parametrize("stage", [SupervisedFineTuning, PreTraining])
def test_an_evaluation_has_no_z_loss(stage: type[SupervisedFineTuning | PreTraining]) -> None:
    """Without a gradient, the loss is transformers' plain cross-entropy by both ways; of either stage."""
    model = made("llama")
    wanted = stock(model)[0]
    batch = collate_padded(sequences(RAGGED), 0)
    for _ in range(2):
        with torch.no_grad():
            found = stage(z_loss_weight=0.1).loss({Role.POLICY: model}, batch)
        torch.testing.assert_close(found.sum, wanted, rtol=1e-9, atol=0)
        output_head.adopt(model)


def test_no_logits_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projection is given no position at all."""
    model = tiny("llama")
    assert output_head.adopt(model) is None
    shapes: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda _, arguments, output: shapes.append(tuple(output.shape)))
    losses(model)
    assert shapes == [(3, 0, 64)]


def test_the_auxiliary_loss_of_experts_is_as_before() -> None:
    """The model's own forward runs to its end."""
    model = tiny("qwen3_moe")
    ids = torch.arange(8).unsqueeze(0)
    wanted = model(input_ids=ids, output_router_logits=True).aux_loss
    assert output_head.adopt(model) is None
    head = output_head.of(model)
    assert head is not None
    with output_head.hidden_states(head) as taken:
        found = model(input_ids=ids, output_router_logits=True, logits_to_keep=torch.tensor([7])).aux_loss
    assert torch.equal(found, wanted)
    assert taken[0].shape == (1, 1, 32)


def test_models_that_do_something_else_with_logits_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe finds what the configuration does not tell."""
    model = made("granite")
    model.config.logits_scaling = 4.0
    monkeypatch.setattr(output_head, "_shape_of", lambda model: output_head.Shape())
    assert (output_head.adopt(model) or "").startswith("the model changes its logits in a way of its own (by ")
    assert output_head.of(model) is None
    head = nn.Sequential(nn.Linear(32, 64))
    monkeypatch.setattr(model, "get_output_embeddings", lambda: head)
    assert output_head.adopt(model) == "the output projection is a Sequential"
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    assert output_head.adopt(model) == "the model has no output projection"


def test_wrapped_models_are_found() -> None:
    """As torch wraps one for several ranks, and peft for adapters."""
    from peft import LoraConfig, get_peft_model

    model = tiny("llama")
    assert output_head.adopt(model) is None

    class Wrapped(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    head = output_head.of(model)
    assert head is not None
    assert output_head.of(Wrapped(model)) is head
    assert output_head.of(Wrapped(get_peft_model(model, LoraConfig(target_modules=["q_proj"])))) is head
    assert output_head.of(nn.Linear(1, 1)) is None


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_head_that_trains_beside_adapters(kind: str) -> None:
    """peft puts a copy of the head in its place and trains that."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny(kind), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False))
    wanted = stock(model)
    assert output_head.adopt(model) is None
    assert any("lm_head.modules_to_save" in name for name in wanted[1])
    torch.testing.assert_close(losses(model), wanted, rtol=1e-6, atol=1e-9)
    with model.disable_adapter():
        assert output_head.of(model) is None


def test_a_model_that_has_been_taken_over_leaves_memory() -> None:
    """No list of heads keeps it."""
    model = tiny("llama")
    assert output_head.adopt(model) is None
    assert (known := weakref.ref(model))() is not None
    del model
    gc.collect()
    assert known() is None


def test_accuracy_without_a_gradient() -> None:
    """Counted from the hidden states as from logits."""
    model = tiny("llama").eval()
    batch = collate_padded(sequences([[6], [9], [4]]), 0)
    with torch.no_grad():
        wanted = SupervisedFineTuning().loss({Role.POLICY: model}, batch).metrics
        assert output_head.adopt(model) is None
        assert SupervisedFineTuning().loss({Role.POLICY: model}, batch).metrics == wanted


def answers(lengths: Sequence[int] = (6, 9, 4)) -> Any:
    """Rows of which only the last two tokens are trained."""
    examples = sequences([[length] for length in lengths])
    for example in examples:
        example.labels[:-2] = -100
    return collate_padded(examples, 0)


def trained(model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, batch)
    (loss.sum / loss.count).backward()
    return loss.sum.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def rows_of_the_last_mlp(model: nn.Module, batch: Any) -> list[int]:
    """How many positions its products are formed for."""
    seen: list[int] = []
    inside = model.model.layers[-1].mlp.down_proj
    with inside.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[-2])):
        trained(model, batch)
    return seen


TRIMMED = {"llama": True, "qwen3": True, "mistral": True, "gemma2": True, "granite": True, "cohere": True, "glm4": True,
           "qwen3_moe": False, "gpt_oss": False, "phi": False, "gpt_neox": False}
"""Phi and GPT-NeoX have other names; experts count what they are given."""


@pytest.mark.parametrize("kind", TRIMMED)
def test_the_last_layer_computes_what_is_predicted_from(kind: str) -> None:
    """Loss and every gradient are those of the whole layer."""
    model = made(kind)
    batch = answers((9, 9, 9) if kind == "gemma2" else (6, 9, 4))
    wanted = trained(model, batch)
    assert output_head.adopt(model) is None
    head = output_head.of(model)
    assert head is not None and (head.last is not None) == TRIMMED[kind]
    torch.testing.assert_close(trained(model, batch), wanted, rtol=1e-6, atol=1e-9)
    if TRIMMED[kind]:
        kept = len({position for row in batch.targets for position in torch.nonzero(row != -100).flatten().tolist()})
        assert rows_of_the_last_mlp(model, batch) == [kept]


def test_a_layer_that_is_run_again_is_run_whole() -> None:
    """The hooks are gone by then."""
    model = tiny("llama")
    batch = answers()
    wanted = trained(model, batch)
    assert output_head.adopt(model) is None
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert set(rows_of_the_last_mlp(model, batch)) == {9}
    torch.testing.assert_close(trained(model, batch), wanted, rtol=1e-6, atol=1e-9)


def test_a_layer_that_draws_is_run_whole() -> None:
    """So that gradient checkpointing draws the same."""
    model = tiny("llama")
    model.model.layers[-1].mlp.add_module("dropout", nn.Dropout(0.5))
    assert output_head.adopt(model) is None
    head = output_head.of(model)
    assert head is not None and head.last is None


def test_a_last_layer_that_mixes_tokens_behind_its_attention_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the names and does something else."""
    model = tiny("llama")
    mlp = model.model.layers[-1].mlp
    own = type(mlp).forward
    monkeypatch.setattr(type(mlp), "forward", lambda self, hidden: own(self, hidden.cumsum(1)))
    assert output_head.adopt(model) is None
    head = output_head.of(model)
    assert head is not None and head.last is None
