"""Loss options. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("calculate_per_token_loss", "Scales cross-entropy by the number of non-padding tokens in the global batch.",
            because="the loss is always divided by the trained tokens of the whole optimizer step over all ranks",
            mindspeed_fsdp2=inert("calculate_per_token_loss", False, True)),
)
