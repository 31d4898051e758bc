"""Optimizers. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("galore_layerwise", "Updates layer by layer during backward, saving further memory.",
            because="weights would change during the backward pass, before the gradient is summed over ranks, clipped and checked",
            llamafactory=inert("galore_layerwise", False)),
)
