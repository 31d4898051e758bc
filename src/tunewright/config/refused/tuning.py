"""Tuning methods. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("tuner_backend", "Library that implements fine-tuning: peft or hqq.", cli_reference=inert("tuner_backend", "peft")),
    refused("plot_lora_matrix", "Draws a heat map of the LoRA matrices after training.", cli_reference=inert("plot_lora_matrix", False)),
    refused("lora_fan_in_fan_out", "Treats adapted layers' weights as stored (fan_in, fan_out), as in Conv1D.",
            cli_reference=inert("lora_fan_in_fan_out", False)),
    refused("quant_lora", "Quantizes the LoRA parameters themselves (for example INT8).", cli_reference=inert("quant_lora", False)),
    refused("use_llama_pro", "Trains only the newly expanded blocks, freezing the rest.", llamafactory=inert("use_llama_pro", False)),
)
