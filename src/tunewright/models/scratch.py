"""A model with random weights, from its configuration alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.models.directory import find_model
from tunewright.models.load import attention_implementation, build_config, stretched

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def initialise_model(model: ModelConfig, precision: PrecisionConfig, seed: int, length_tokens: int = 0) -> PreTrainedModel:
    """The architecture that config.json describes, with the weights that its family starts training from: a function of the seed.

    `length_tokens`: the longest sequence, to which rope_scaling stretches positions.
    No weights file is opened. Random numbers of the run are left as they are.
    """
    import torch
    from transformers import AutoModelForCausalLM

    directory = find_model(model)
    config = stretched(build_config(directory), model, length_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if precision.pure_bf16 else torch.float32, attn_implementation=attention_implementation(model),
            trust_remote_code=False)
    made.name_or_path = made.config._name_or_path = str(directory)
    return made.eval()
