"""The value head: what it computes, where it hangs, and its file. Oracles: torch's linear layer, peft and transformers, the layout of the
file as trl's AutoModelForCausalLMWithValueHead names its tensors and LLaMA-Factory stores them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.models.tiny import tiny_model
from tunewright.errors import InputError
from tunewright.kernels.output_head import last_hidden_states
from tunewright.models.heads import (
    VALUE_HEAD_FILE,
    causal_lm,
    load_value_head,
    new_value_head,
    read_value_head,
    reload_value_head,
    save_value_head,
    value_head_of,
    without_value_head,
)


def adapted(model):  # type: ignore[no-untyped-def]
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_is_a_linear_layer_in_a_format_of_its_own(dtype: torch.dtype) -> None:
    """value = w . h + b in float32, or float64 under a float64 model, also where mixed precision is on (oracle: the sum of products)."""
    head = new_value_head(tiny_model("llama").to(dtype), seed=3)
    torch.nn.init.constant_(head.summary.bias, 0.25)
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(hidden)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    assert found.dtype is wide and found.shape == (2, 5)
    assert torch.allclose(found, (hidden.to(wide) * head.summary.weight[0]).sum(-1) + 0.25, rtol=1e-5, atol=1e-6)


def test_a_new_head_is_a_function_of_the_seed() -> None:
    """Within 1 / sqrt(32), the bias zero; the process's own random numbers are left alone."""
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, same, other = (new_value_head(tiny_model("llama"), seed) for seed in (1, 1, 2))
    torch.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.summary.weight, same.summary.weight) and not torch.equal(one.summary.weight, other.summary.weight)
    assert float(one.summary.weight.detach().abs().max()) <= 32**-0.5 and float(one.summary.weight.detach().std()) > 0.05
    assert one.summary.bias.tolist() == [0.0]


def test_the_file_comes_back_bit_by_bit_in_the_layout_of_the_peers(tmp_path: Path) -> None:
    head = new_value_head(tiny_model("llama"), seed=3)
    torch.nn.init.constant_(head.summary.bias, 1 / 3)
    model = tiny_model("llama")
    model.add_module("v_head", head)
    save_value_head(model, tmp_path)
    with safe_open(tmp_path / VALUE_HEAD_FILE, "pt") as file:
        assert {name: tuple(file.get_tensor(name).shape) for name in file.keys()} == {  # noqa: SIM118 - not a mapping
            "v_head.summary.weight": (1, 32), "v_head.summary.bias": (1,)}
    found = load_value_head(tiny_model("llama"), tmp_path)
    assert torch.equal(found.summary.weight, head.summary.weight) and torch.equal(found.summary.bias, head.summary.bias)


def test_trl_reads_the_same_values(tmp_path: Path) -> None:
    """Numbers of AutoModelForCausalLMWithValueHead of trl 0.24.0, given the files of this model and head (torch 2.13, CPU)."""
    model = tiny_model("llama")
    head = new_value_head(model, seed=3)
    torch.nn.init.constant_(head.summary.bias, 0.25)
    with torch.no_grad():
        found = head(last_hidden_states(model, {"input_ids": torch.tensor([[5, 9, 30, 12, 2], [7, 90, 33, 71, 2]])}, torch.arange(5)))
    expected = torch.tensor([[1.051845, 0.931217, 1.105907, 0.94576, 0.898331], [-0.160755, -0.619025, -0.622708, -0.979942, -0.831596]])
    assert torch.allclose(found, expected, atol=1e-5)


def test_it_is_found_through_adapters_and_ranks() -> None:
    model = tiny_model("llama")
    wrapped = adapted(model)
    head = new_value_head(wrapped, seed=0)
    assert value_head_of(model) is value_head_of(wrapped) is head and causal_lm(wrapped) is model
    holder = torch.nn.Module()
    holder.module = wrapped  # as DistributedDataParallel holds it
    assert value_head_of(holder) is head
    names = {name for name, weight in wrapped.named_parameters() if weight.requires_grad and "v_head" in name}
    assert names == {"base_model.model.v_head.summary.weight", "base_model.model.v_head.summary.bias"}
    assert value_head_of(tiny_model("llama")) is None


def test_merging_keeps_the_head_and_saving_leaves_it_out(tmp_path: Path) -> None:
    model = tiny_model("llama")
    names = set(model.state_dict())
    wrapped = adapted(model)
    head = new_value_head(wrapped, seed=0)
    order = [name for name, _ in wrapped.named_parameters()]
    with without_value_head(wrapped):
        assert not any("v_head" in name for name in wrapped.state_dict())
    assert [name for name, _ in wrapped.named_parameters()] == order
    merged = wrapped.merge_and_unload()
    assert value_head_of(merged) is head
    with without_value_head(merged):
        assert set(merged.state_dict()) == names


def test_a_checkpoint_puts_its_numbers_back(tmp_path: Path) -> None:
    model = tiny_model("llama")
    reload_value_head(model, tmp_path)  # a model without a head needs no file
    head = new_value_head(model, seed=0)
    save_value_head(model, tmp_path)
    wanted = head.summary.weight.detach().clone()
    torch.nn.init.zeros_(head.summary.weight)
    reload_value_head(model, tmp_path)
    assert torch.equal(head.summary.weight, wanted)
    (tmp_path / VALUE_HEAD_FILE).unlink()
    with pytest.raises(InputError, match=f"no {VALUE_HEAD_FILE}"):
        reload_value_head(model, tmp_path)


WEIGHT, BIAS = torch.zeros(1, 32), torch.zeros(1)
STRANGE = {
    "other names": ({"summary.weight": WEIGHT, "summary.bias": BIAS}, r"not a value head: summary.bias \[1\], summary.weight \[1, 32\]"),
    "two values": ({"v_head.summary.weight": torch.zeros(2, 32), "v_head.summary.bias": torch.zeros(2)}, "not a value head"),
    "no bias": ({"v_head.summary.weight": WEIGHT}, "not a value head"),
    "one more": ({"v_head.summary.weight": WEIGHT, "v_head.summary.bias": BIAS, "lm_head.weight": torch.ones(1, 32)}, "not a value head"),
    "another width": ({"v_head.summary.weight": torch.zeros(1, 16), "v_head.summary.bias": BIAS}, "takes 16 numbers of each token, the "
                      "model has 32"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_file_that_is_no_head_of_this_model_is_refused(tmp_path: Path, case: str) -> None:
    tensors, words = STRANGE[case]
    save_file(tensors, tmp_path / VALUE_HEAD_FILE)
    with pytest.raises(InputError, match=words):
        load_value_head(tiny_model("llama"), tmp_path)


def test_a_pickled_head_is_never_loaded(tmp_path: Path) -> None:
    assert read_value_head(tmp_path) is None
    with pytest.raises(InputError, match="not a reward model"):
        load_value_head(tiny_model("llama"), tmp_path)
    (tmp_path / "value_head.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InputError, match="pickled") as refused:
        read_value_head(tmp_path)
    assert "v_head.summary.weight" in str(refused.value) or "v_head.summary.weight" in str(refused.value.mend)
