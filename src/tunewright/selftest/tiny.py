"""A tiny model directory with a real tokenizer and chat template, and rows to train on: what end-to-end tests run with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = [
    "anchor", "bridge", "candle", "dune", "ember", "falcon", "garden", "harbor", "island", "jungle", "kettle", "lantern", "meadow",
    "needle", "orchard", "pebble", "quarry", "river", "saddle", "timber", "umbrella", "valley", "willow", "yonder", "zephyr"]
DELTA_NET = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 4,
             "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "head_dim": 8,
             "layer_types": ["linear_attention", "full_attention"]}
"""A Qwen3-Next of two layers, the first of them recurrent."""
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
"""A mixture of experts in both layers."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def write_model(directory: Path, *, kind: str = "llama", seed: int = 0) -> Path:
    """A random two-layer model with a byte-level BPE tokenizer in ChatML; a few hundred kilobytes."""
    import torch
    import transformers

    tokenizer = _tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "tie_word_embeddings": True}
    torch.manual_seed(seed)
    more: dict[str, dict[str, Any]] = {"qwen3_next": DELTA_NET, "qwen3_moe": EXPERTS}
    configs = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config, "qwen3_next": transformers.Qwen3NextConfig,
               "qwen3_moe": transformers.Qwen3MoeConfig}
    config = configs[kind](**shape, **more.get(kind, {}))
    transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write_rows(path: Path, count: int, *, seed: int = 0, longest: int = 12) -> Path:
    """`count` Alpaca rows of ragged length in JSONL."""
    chance = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            words = chance.choices(WORDS, k=chance.randint(1, longest))
            file.write(json.dumps({"instruction": " ".join(words), "output": " ".join(reversed(words))}) + "\n")
    return path


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator([" ".join(WORDS), "system user assistant"], trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", bos_token="<|im_start|>", eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    return tokenizer
