"""Tiny random models of several families, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = ("llama", "qwen3", "qwen3_moe", "gpt2", "gemma")
VOCABULARY = 96


def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """Two layers of width 32, weights large enough that outputs differ visibly."""
    import torch
    import transformers as hf

    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
             "initializer_range": 0.1}
    configs = {
        "llama": lambda: hf.LlamaConfig(**shape),
        "qwen3": lambda: hf.Qwen3Config(**shape, head_dim=8, tie_word_embeddings=True),
        "qwen3_moe": lambda: hf.Qwen3MoeConfig(**shape, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                                               decoder_sparse_step=1),
        "gpt2": lambda: hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1,
                                      eos_token_id=2, initializer_range=0.1),
        "gemma": lambda: hf.GemmaConfig(**shape, head_dim=8),
    }
    torch.manual_seed(seed)
    return hf.AutoModelForCausalLM.from_config(configs[family]()).eval()


def write_tiny(directory: Path, family: str = "llama", seed: int = 0) -> Path:
    """The same, saved by transformers."""
    tiny_model(family, seed).save_pretrained(directory)
    return directory


def probe_logits(model: PreTrainedModel):  # type: ignore[no-untyped-def]
    """Logits [2, 9, V] of fixed ids, in evaluation mode."""
    import torch

    ids = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(7))
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def train_steps(model: PreTrainedModel, steps: int, rate: float = 1e-2) -> None:
    """A few plain SGD steps on fixed ids: what training does to the weights, without our engine."""
    import torch

    generator = torch.Generator().manual_seed(3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    for _ in range(steps):
        ids = torch.randint(3, VOCABULARY, (2, 9), generator=generator)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
