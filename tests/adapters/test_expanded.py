"""LLaMA Pro: exactly the inserted blocks train. Positions by hand from the paper: M blocks in N groups, the last of each is new."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from tunewright.adapters.expanded import expanded_blocks
from tunewright.adapters.trainable import make_trainable
from tunewright.config.run import RunConfig
from tunewright.config.tuning import FreezeConfig, LoraConfig, TuningConfig
from tunewright.errors import InputError


def model() -> hf.PreTrainedModel:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=2))


def trained_layers(run: RunConfig) -> set[int]:
    trained = make_trainable(model(), run)
    names = [name for name, parameter in trained.named_parameters() if parameter.requires_grad]
    return {int(name.partition("layers.")[2].partition(".")[0]) for name in names}


@pytest.mark.parametrize(("blocks", "inserted", "positions"), [
    (40, 8, [4, 9, 14, 19, 24, 29, 34, 39]), (6, 2, [2, 5]), (6, 6, [0, 1, 2, 3, 4, 5]), (6, 1, [5])])
def test_positions(blocks: int, inserted: int, positions: list[int]) -> None:
    """LLaMA Pro 8B has 40 blocks, 8 of them new."""
    assert expanded_blocks(blocks, inserted) == positions


@pytest.mark.effect("use_llama_pro")
@pytest.mark.parametrize("kind", ["freeze", "lora"])
def test_only_the_inserted_blocks_train(kind: str) -> None:
    run = RunConfig(tuning=TuningConfig(finetuning_type=kind), lora=LoraConfig(lora_target=("q_proj", "mlp.up_proj")),
                    freeze=FreezeConfig(freeze_trainable_layers=2, use_llama_pro=True))
    assert trained_layers(run) == {2, 5}
    everywhere = RunConfig(tuning=run.tuning, lora=run.lora, freeze=FreezeConfig(freeze_trainable_layers=2))
    assert trained_layers(everywhere) == ({4, 5} if kind == "freeze" else set(range(6)))


def test_unequal_groups_are_refused() -> None:
    with pytest.raises(InputError, match="6 layers do not fall into 4 groups of equal size"):
        expanded_blocks(6, 4)
