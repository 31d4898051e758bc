"""Tuning methods. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("tuner_backend", "Library that implements fine-tuning: peft or hqq.",
            because="HQQ quantises weights, it does not tune; adapters are peft's", mend="write peft, or leave it out",
            cli_reference=inert("tuner_backend", "peft")),
    refused("quant_lora", "Quantizes the LoRA parameters themselves (for example INT8).",
            because="peft trains and applies adapters in floating point only, and they are a hundredth of the model",
            mend="leave it out; a smaller lora_rank makes a smaller adapter", cli_reference=inert("quant_lora", False)),
)
