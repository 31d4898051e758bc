"""Selective recomputation. Oracles: the model without it, bit for bit; a count of forward passes; what torch saves for later."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn

from tunewright.errors import InputError
from tunewright.kernels.recompute import keep, matching_modules, recompute


def model() -> nn.Module:
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=12, num_attention_heads=2, num_key_value_heads=2)).train()


@pytest.mark.parametrize(("patterns", "expected"), [
    (("model.layers.{*}",), [f"model.layers.{number}" for number in range(12)]),
    (("model.layers.{}",), [f"model.layers.{number}" for number in range(12)]),
    (("model.layers.{0-2}",), ["model.layers.0", "model.layers.1", "model.layers.2"]),
    (("model.layers.{1,10-11}.mlp",), ["model.layers.1.mlp", "model.layers.10.mlp", "model.layers.11.mlp"]),
    (("layers.3",), ["model.layers.3"]),
    (("model.layers.{0}", "model.layers.{0-1}.mlp"), ["model.layers.0", "model.layers.1.mlp"]),
])
def test_patterns(patterns: tuple[str, ...], expected: list[str]) -> None:
    """A module inside another one that is recomputed is not recomputed twice."""
    assert sorted(matching_modules(model(), patterns)) == sorted(expected)


@pytest.mark.parametrize(("pattern", "message"), [
    ("model.layers.{12-14}", "recompute_modules: 'model.layers.{12-14}' matches no module of this model; leave recompute_modules out to "
                             "recompute every decoder layer"),
    ("model.layers.{a}", "recompute_modules: 'model.layers.{a}' has {a}, which is no range of numbers; write {*}, {0-11} or {0,2,4}"),
    ("layers.{*}.mlp.up_proj", "recompute_modules: 'layers.{*}.mlp.up_proj' matches model.layers.0.mlp.up_proj, a single layer of weights; "
                               "name a module that holds several, such as model.layers.{*}.mlp"),
])
def test_a_pattern_that_cannot_work_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        matching_modules(model(), (pattern,))
    assert str(raised.value) == message


def step(policy: nn.Module) -> tuple[dict[str, Tensor | None], int]:
    """Gradients, and bytes saved for the backward pass, weights left out."""
    own = {weight.untyped_storage().data_ptr() for weight in policy.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    policy.zero_grad()
    ids = torch.arange(40).view(2, 20)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = policy(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return {name: weight.grad for name, weight in policy.named_parameters()}, sum(saved.values())


@pytest.mark.parametrize("pattern", ["model.layers.{*}", "model.layers.{0-5}", "model.layers.{*}.mlp", "model.layers.{*}.self_attn"])
def test_gradients_are_the_same_and_less_is_saved(pattern: str) -> None:
    policy = model()
    expected, whole = step(policy)
    expected = {name: None if grad is None else grad.clone() for name, grad in expected.items()}
    assert recompute(policy, (pattern,)) in (12, 6)
    found, part = step(policy)
    assert all(torch.equal(found[name], grad) for name, grad in expected.items())
    assert part < 0.9 * whole
    keep(policy)
    assert step(policy)[1] == whole
    assert not any("forward" in module.__dict__ for module in policy.modules())


def test_in_evaluation_nothing_is_recomputed() -> None:
    policy, calls = model().eval(), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    policy.get_submodule("model.layers.0.mlp.up_proj").register_forward_hook(count)
    recompute(policy, ("model.layers.{0}",))
    policy(input_ids=torch.arange(8)[None]).logits.sum().backward()
    assert calls == 1
    policy.train()
    policy(input_ids=torch.arange(8)[None]).logits.sum().backward()
    assert calls == 3
