"""Batches, checkpoints and the loop. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("save_safetensors", "Writes checkpoints as safetensors instead of .bin.",
            llamafactory=(inert("save_safetensors", True), inert("no_save_safetensors", False)),
            cli_reference=inert("save_safetensors", False)),
    refused("dataloader_pin_memory", "Pins host memory in data loaders.",
            llamafactory=(inert("dataloader_pin_memory", True), inert("no_dataloader_pin_memory", False)),
            cli_reference=inert("dataloader_pin_memory", True), mindspeed_fsdp2=inert("dataloader_pin_memory", True)),
    refused("save_on_each_node", "In multi-node training saves checkpoints on every node.",
            llamafactory=inert("save_on_each_node", False)),
    refused("restore_callback_states_from_checkpoint", "When resuming, restores callback state such as early-stopping counters.",
            llamafactory=inert("restore_callback_states_from_checkpoint", False)),
    refused("use_mps_device", "Deprecated switch for Apple-silicon MPS; MPS is now detected automatically.",
            llamafactory=inert("use_mps_device", False, deprecated=True)),
    refused("dataloader_drop_last", "Drops the last batch when the dataset size is not divisible by batch size.",
            llamafactory=inert("dataloader_drop_last", False), mindspeed_fsdp2=inert("dataloader_drop_last", False)),
    refused("dataloader_prefetch_factor", "Number of batches each loader worker prefetches.",
            llamafactory=inert("dataloader_prefetch_factor", None), mindspeed_fsdp2=inert("dataloader_prefetch_factor", None)),
    refused("ignore_data_skip", "On resume, does not fast-forward the dataloader, so already seen data may repeat.",
            llamafactory=inert("ignore_data_skip", False)),
    refused("dataloader_persistent_workers", "Keeps loader worker processes alive.",
            llamafactory=inert("dataloader_persistent_workers", False),
            mindspeed_fsdp2=inert("dataloader_persistent_workers", False)),
    refused("auto_find_batch_size", "Halves the batch size and retries when CUDA runs out of memory.",
            llamafactory=inert("auto_find_batch_size", False)),
    refused("ray_scope", "Which checkpoint Ray uses to rank hyperparameter-search trials.", llamafactory=inert("ray_scope", "last")),
    refused("min_lr", "Learning rate at which the cosine schedule ends.", mindspeed_fsdp2=inert("min_lr", 1e-06)),
    refused("save_async", "Saves weights asynchronously so training continues.", mindspeed_fsdp2=inert("save_async", False)),
    refused("save_epochs", "Saves weights every N epochs.", mindspeed_fsdp2=inert("save_epochs", 1)),
    refused("save_hf_weights", "After training also saves Hugging Face format weights.", mindspeed_fsdp2=inert("save_hf_weights", True)),
)
