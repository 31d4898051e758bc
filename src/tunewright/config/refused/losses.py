"""Loss options. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("ignore_pad_token_for_loss", "Excludes padding tokens from the loss.",
            llamafactory=(inert("ignore_pad_token_for_loss", True), inert("no_ignore_pad_token_for_loss", False)),
            mindspeed_fsdp2=inert("ignore_pad_token_for_loss", True)),
    refused("label_smoothing_factor", "Label-smoothing factor applied to the cross-entropy loss.",
            llamafactory=inert("label_smoothing_factor", 0.0)),
    refused("neftune_noise_alpha", "Adds NEFTune uniform noise to input embeddings, scaled by alpha over sqrt(length*dim), in training.",
            llamafactory=inert("neftune_noise_alpha", None)),
    refused("calculate_per_token_loss", "Scales cross-entropy by the number of non-padding tokens in the global batch.",
            mindspeed_fsdp2=inert("calculate_per_token_loss", False)),
    refused("chunk_loss_size", "Computes the loss in sequence chunks of this length to save memory; null computes it at once.",
            mindspeed_fsdp2=inert("chunk_loss_size", None)),
)
