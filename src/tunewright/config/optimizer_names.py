"""Names of optimizers and schedules: those that we have, and those that other trainers have and we refuse. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunewright.config.param import NOT_BUILT

ADAMW: Final = ("adamw_torch", "adamw_torch_fused")
"""torch's AdamW, the base of GaLore, BAdam and Adam-mini."""

BITSANDBYTES: Final = (
    "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "lion_32bit", "paged_lion_8bit",
    "paged_lion_32bit", "ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "rmsprop_bnb", "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit")
"""Those that bitsandbytes computes."""

OPTIMIZERS: Final = (*ADAMW, "adafactor", "sgd", "adagrad", "rmsprop", "lamb", *BITSANDBYTES)

_GALORE: Final = "GaLore is a switch here: use_galore: true with optim: adamw_torch"
_LAYERWISE: Final = "it would update weights before the gradient is clipped and checked"
_NO_STEP: Final = "it updates weights during the backward pass, before the gradient is clipped and checked"

REFUSED_OPTIMIZERS: Final[Mapping[str, str]] = {
    "adamw_torch_xla": "it needs torch_xla, which this engine does not drive",
    "adamw_torch_npu_fused": "it needs torch_npu, which this engine does not drive",
    "adamw_apex_fused": "apex is replaced by torch's own fused kernel, adamw_torch_fused",
    "adamw_anyprecision": "torchdistx, which it needs, is no longer maintained",
    "adamw_torch_4bit": NOT_BUILT, "adamw_torch_8bit": NOT_BUILT,
    "galore_adamw": _GALORE, "galore_adamw_8bit": _GALORE, "galore_adafactor": _GALORE,
    "galore_adamw_layerwise": _LAYERWISE, "galore_adamw_8bit_layerwise": _LAYERWISE, "galore_adafactor_layerwise": _LAYERWISE,
    "lomo": _NO_STEP, "adalomo": _NO_STEP, "apollo_adamw_layerwise": _LAYERWISE,
    "apollo_adamw": NOT_BUILT, "grokadamw": NOT_BUILT, "stable_adamw": NOT_BUILT,
    "schedule_free_radam": NOT_BUILT, "schedule_free_adamw": NOT_BUILT, "schedule_free_sgd": NOT_BUILT,
}
"""Optimizers of transformers that we refuse, each with the reason."""

_NO_FORMULA: Final = "its document names it in prose only and gives no formula; transformers has none"

REFUSED_SCHEDULES: Final[Mapping[str, str]] = {
    "step_decay": _NO_FORMULA, "exponential": _NO_FORMULA, "cyclic": _NO_FORMULA,
    "reduce_lr_on_plateau": "the rate would depend on evaluations, not on the step alone",
    "cosine_warmup_with_min_lr": NOT_BUILT,
}
"""Schedules of the documents and of transformers that we refuse, each with the reason."""
