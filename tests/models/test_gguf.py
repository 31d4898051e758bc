"""A GGUF file opens as the model it was written from, and can be saved again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.models.tiny import probe_logits, tiny_model
from tunewright.adapters.trainable import save_model
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.errors import InputError
from tunewright.models.load import load_model

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}


def write_gguf(file: Path) -> None:
    """The tiny Llama in float32, written with the `gguf` package as llama.cpp's converter does (rotary halves interleaved)."""
    import gguf

    model = tiny_model("llama")
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(96)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    writer.add_tensor("output.weight", state["lm_head.weight"])
    for layer in range(2):
        for theirs, ours in NAMES.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": 4, "attn_k": 2}.get(ours)
            if heads:
                weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.effect("gguf_file")
def test_gguf_opens_as_the_model_and_saves(tmp_path: Path) -> None:
    """Oracle: the model the file was written from, bit by bit; saving failed before the loader's marks were removed."""
    write_gguf(tmp_path / "m.gguf")
    model = load_model(ModelConfig(model_name_or_path=str(tmp_path), gguf_file="m.gguf"), PrecisionConfig())
    assert torch.equal(probe_logits(model), probe_logits(tiny_model("llama")))
    save_model(model, tmp_path / "saved", "5GB")
    assert torch.equal(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), probe_logits(tiny_model("llama")))


def test_positions_of_a_gguf_are_stretched(tmp_path: Path) -> None:
    """By the formula: 300 tokens in a context of 128 divide each frequency by 3. The weights are the file's."""
    write_gguf(tmp_path / "m.gguf")
    config = ModelConfig(model_name_or_path=str(tmp_path), gguf_file="m.gguf", rope_scaling="linear")
    model = load_model(config, PrecisionConfig(), length_tokens=300)
    plain = load_model(ModelConfig(model_name_or_path=str(tmp_path), gguf_file="m.gguf"), PrecisionConfig(), length_tokens=300)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq * 3, plain.model.rotary_emb.inv_freq, rtol=1e-6, atol=0)
    assert all(torch.equal(one, plain.state_dict()[name]) for name, one in model.state_dict().items())


def test_missing_gguf_names_those_that_are_there(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    with pytest.raises(InputError) as caught:
        load_model(ModelConfig(model_name_or_path=str(tmp_path), gguf_file="n.gguf"), PrecisionConfig())
    assert str(caught.value) == f"gguf_file: no file n.gguf in {tmp_path.resolve()}; there are: m.gguf"
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_model(ModelConfig(model_name_or_path=str(tmp_path)), PrecisionConfig())
