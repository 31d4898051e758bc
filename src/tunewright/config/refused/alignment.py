"""Preference and reinforcement learning. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("pref_beta", "Beta of the preference loss; larger keeps the policy nearer the reference.",
            llamafactory=inert("pref_beta", 0.1)),
    refused("pref_ftx", "Weight of the supervised loss added to the DPO loss.", llamafactory=inert("pref_ftx", 0.0)),
    refused("pref_loss", "Chooses the preference-loss formula.", llamafactory=inert("pref_loss", "sigmoid")),
    refused("dpo_label_smoothing", "cDPO label-flip probability used in the preference loss.",
            llamafactory=inert("dpo_label_smoothing", 0.0)),
    refused("kto_chosen_weight", "Loss weight of desirable (chosen) samples.", llamafactory=inert("kto_chosen_weight", 1.0)),
    refused("kto_rejected_weight", "Loss weight of undesirable (rejected) samples.", llamafactory=inert("kto_rejected_weight", 1.0)),
    refused("simpo_gamma", "Target reward margin in the SimPO loss.", llamafactory=inert("simpo_gamma", 0.5)),
    refused("ppo_buffer_size", "Number of mini-batches collected into the experience buffer per PPO step.",
            llamafactory=inert("ppo_buffer_size", 1)),
    refused("ppo_epochs", "Epochs of updates over the buffer in each PPO step.", llamafactory=inert("ppo_epochs", 4)),
    refused("ppo_score_norm", "Normalizes reward scores.", llamafactory=inert("ppo_score_norm", False)),
    refused("ppo_target", "Target KL of the adaptive KL controller.", llamafactory=inert("ppo_target", 6.0)),
    refused("ppo_whiten_rewards", "Whitens rewards before advantages are computed.", llamafactory=inert("ppo_whiten_rewards", False)),
    refused("ref_model", "Path of the reference model.", llamafactory=inert("ref_model", None)),
    refused("ref_model_adapters", "Adapters loaded onto the reference model.", llamafactory=inert("ref_model_adapters", None)),
    refused("ref_model_quantization_bit", "Quantizes the reference model to this many bits.",
            llamafactory=inert("ref_model_quantization_bit", None)),
    refused("reward_model", "Path of the reward model that scores generations.", llamafactory=inert("reward_model", None)),
    refused("reward_model_adapters", "Adapters loaded onto the reward model.", llamafactory=inert("reward_model_adapters", None)),
    refused("reward_model_quantization_bit", "Quantizes the reward model to this many bits.",
            llamafactory=inert("reward_model_quantization_bit", None)),
    refused("reward_model_type", "How the reward model is provided: LoRA adapter, full model or external API.",
            llamafactory=inert("reward_model_type", "lora")),
)
