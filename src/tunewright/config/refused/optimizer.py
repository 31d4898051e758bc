"""Optimizers. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("optim_target_modules", "Modules to which a special optimizer (such as GaLore) applies.",
            llamafactory=inert("optim_target_modules", None)),
    refused("use_badam", "Trains with the BAdam block-coordinate optimizer.", llamafactory=inert("use_badam", False)),
    refused("badam_mode", "BAdam updates either layer blocks or a ratio of parameters.", llamafactory=inert("badam_mode", "layer")),
    refused("badam_start_block", "First block index to train.", llamafactory=inert("badam_start_block", None)),
    refused("badam_switch_mode", "Order in which BAdam visits blocks.", llamafactory=inert("badam_switch_mode", "ascending")),
    refused("badam_switch_interval", "Steps between BAdam block switches.", llamafactory=inert("badam_switch_interval", 50)),
    refused("badam_update_ratio", "Fraction of parameters updated.", llamafactory=inert("badam_update_ratio", 0.05)),
    refused("badam_mask_mode", "Chooses adjacent or randomly scattered parameters to update.",
            llamafactory=inert("badam_mask_mode", "adjacent")),
    refused("badam_verbose", "BAdam verbosity: 0 silent, 1 block prefix, 2 trainable parameters.",
            llamafactory=inert("badam_verbose", 0)),
    refused("use_galore", "Projects gradients to low rank so optimizer state uses less memory.",
            llamafactory=inert("use_galore", False)),
    refused("galore_target", "Modules GaLore applies to; all means every linear module.", llamafactory=inert("galore_target", "all")),
    refused("galore_rank", "Rank of the GaLore gradient projection.", llamafactory=inert("galore_rank", 16)),
    refused("galore_update_interval", "Steps between recomputations of the projection.",
            llamafactory=inert("galore_update_interval", 200)),
    refused("galore_scale", "Scale applied to the back-projected update.", llamafactory=inert("galore_scale", 0.25)),
    refused("galore_proj_type", "Which side(s) of the gradient are projected.", llamafactory=inert("galore_proj_type", "std")),
    refused("galore_layerwise", "Updates layer by layer during backward, saving further memory.",
            llamafactory=inert("galore_layerwise", False)),
    refused("use_adam_mini", "Trains with the Adam-mini optimizer.", llamafactory=inert("use_adam_mini", False)),
)
