"""What the planner's tests share: small models in directories, and the run that trains one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewright.config.derive import derived
from tunewright.config.run import RunConfig
from tunewright.config.table import build
from tunewright.selftest.tiny import _tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def write(directory: Path, config: str = "LlamaConfig", **changes: Any) -> Path:
    """A random model with a tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    shape = SHAPE | {"tie_word_embeddings": True} | changes
    transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**shape)).save_pretrained(directory)
    _tokenizer().save_pretrained(directory)
    return directory


def run_of(model: Path, **changes: Any) -> RunConfig:
    """A resolved run."""
    return derived(build({"model_name_or_path": str(model), "output_dir": "out", "dataset": ("rows",)} | changes))[0]
