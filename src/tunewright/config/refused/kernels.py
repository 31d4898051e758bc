"""Kernels, compilation and activation memory. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("use_unsloth", "Loads and trains the LoRA model through Unsloth's patched kernels.",
            because="it replaces the model's code and the trainer's by Unsloth's; what it does for speed and memory is here under names of "
            "its own", mend="remove it: LoRA, loss and norms are fast without it, and use_unsloth_gc, enable_liger_kernel and "
            "quantization_bit are there",
            llamafactory=inert("use_unsloth", False), cli_reference=inert("use_unsloth", False)),
    refused("use_ipex", "Uses Intel Extension for PyTorch on CPU.",
            because="Intel has ended the extension and moved its optimisations into torch itself", mend="remove it",
            llamafactory=inert("use_ipex", False)),
)
