"""Number formats. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("upcast_lmhead_output", "Casts lm_head output logits to fp32.",
            because="the loss and the choice of the next token always compute in float32 from the logits",
            llamafactory=inert("upcast_lmhead_output", False, True), cli_reference=inert("upcast_lmhead_output", False, True)),
    refused("fp16_opt_level", "Apex AMP optimization level.",
            because="it is a setting of NVIDIA Apex, which is not used: mixed precision is torch's own",
            llamafactory=inert("fp16_opt_level", "O1")),
    refused("half_precision_backend", "Backend for half-precision training; auto picks one.",
            because="mixed precision is torch's own autocast on every device; Apex is not used",
            llamafactory=(inert("half_precision_backend", "auto"), inert("fp16_backend", "auto", deprecated=True))),
)
