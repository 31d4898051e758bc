"""Batches, checkpoints and the loop. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("save_safetensors", "Writes checkpoints as safetensors instead of .bin.",
            because="only safetensors files are written; the other format is pickle, which can run code when it is opened",
            llamafactory=(inert("save_safetensors", True), inert("no_save_safetensors", False)),
            cli_reference=inert("save_safetensors", False, True)),
    refused("save_on_each_node", "In multi-node training saves checkpoints on every node.",
            because="a run has one output_dir, on storage that all of its nodes share",
            llamafactory=inert("save_on_each_node", False)),
    refused("restore_callback_states_from_checkpoint", "When resuming, restores callback state such as early-stopping counters.",
            because="patience, best metric and log are part of every checkpoint and always restored",
            llamafactory=inert("restore_callback_states_from_checkpoint", False, True)),
    refused("use_mps_device", "Deprecated switch for Apple-silicon MPS; MPS is now detected automatically.",
            because="MPS is used wherever it is present; use_cpu is the way not to", mend="remove it",
            llamafactory=inert("use_mps_device", False, True, deprecated=True)),
    refused("ignore_data_skip", "On resume, does not fast-forward the dataloader, so already seen data may repeat.",
            because="a resumed run goes on at the very row where it stopped, which costs no time here",
            llamafactory=inert("ignore_data_skip", False)),
    refused("dataloader_persistent_workers", "Keeps loader worker processes alive.",
            because="the workers of an epoch are given its order when they start and end with it",
            llamafactory=inert("dataloader_persistent_workers", False),
            mindspeed_fsdp2=inert("dataloader_persistent_workers", False)),
    refused("ray_scope", "Which checkpoint Ray uses to rank hyperparameter-search trials.",
            because="there is no hyperparameter search", llamafactory=inert("ray_scope", "last")),
    refused("save_async", "Saves weights asynchronously so training continues.",
            because="the next step waits until a checkpoint is complete on disk, so that none is ever half of one step and half of another",
            mindspeed_fsdp2=inert("save_async", False)),
)
