"""What optimizers keep, planned from shapes. Oracle: each of them built by the engine, after one step, its state counted."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tunewright.config.optimization import OptimizerConfig
from tunewright.config.optimizer_names import BITSANDBYTES, OPTIMIZERS
from tunewright.config.tuning import LoraConfig
from tunewright.engine.optimizers.build import build_optimizer
from tunewright.planning.optimizer_state import Weight, state_bytes

METHODS: tuple[dict[str, Any], ...] = (
    *({"use_galore": True, "galore_rank": 4, "galore_proj_type": kind} for kind in ("std", "reverse_std", "left", "right", "full")),
    {"use_adam_mini": True}, {"use_badam": True, "badam_mode": "ratio", "badam_update_ratio": 0.25},
    {"optim": "sgd", "optim_args": {"momentum": 0.9}}, {"optim": "rmsprop", "optim_args": {"momentum": 0.9, "centered": True}},
    {"optim": "adafactor", "optim_args": {"beta1": 0.9}})


def model() -> nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(
        vocab_size=200, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=False))


def counted(state: Any) -> int:
    """Bytes of the tensors of more than one number, but tables that all weights share."""
    found, seen = 0, set()
    for one in state.values():
        for name, value in (one.items() if isinstance(one, dict) else ()):
            for tensor in (value if isinstance(value, tuple | list) else (value,)):
                if isinstance(tensor, torch.Tensor) and tensor.numel() > 1 and "qmap" not in name and tensor.data_ptr() not in seen:
                    seen.add(tensor.data_ptr())
                    found += tensor.numel() * tensor.element_size()
    return found


@pytest.mark.parametrize("changes", [*({"optim": name} for name in OPTIMIZERS), *METHODS], ids=str)
def test_state_is_as_large_as_planned(changes: dict[str, Any]) -> None:
    """To a hundredth: counters, and means over heads instead of rows, are left out."""
    if changes.get("optim") in BITSANDBYTES and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    policy, config = model(), OptimizerConfig(**({"optim": "adamw_torch"} | changes))
    optimizer = build_optimizer(policy, config, LoraConfig())
    policy(input_ids=torch.arange(12)[None], labels=torch.arange(12)[None]).loss.backward()
    optimizer.step()
    outside = (policy.get_input_embeddings().weight, policy.get_output_embeddings().weight)
    weights = [Weight(tuple(one.shape), one.element_size(), one.dim() == 2 and not any(one is other for other in outside))
               for one in policy.parameters()]
    assert state_bytes(config, weights) == pytest.approx(counted(optimizer.state), rel=0.01, abs=64)
