"""Rotary positions stretched over a longer context: the model's configuration changes, no weight does.

linear: Chen et al. 2023 (arXiv 2306.15595), positions divided by the factor. dynamic: NTK-aware, the base grows with the sequence.
yarn: Peng et al. 2023 (arXiv 2309.00071), high frequencies kept, low ones interpolated. llama3: the rule of Llama 3.1.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from tunewright.errors import require

if TYPE_CHECKING:
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)

Parameters = dict[str, Any]

_MORE: Final[Mapping[str, Callable[[int], Parameters]]] = {
    "linear": lambda positions: {},
    "dynamic": lambda positions: {},
    "yarn": lambda positions: {"original_max_position_embeddings": positions},
    "llama3": lambda positions: {"original_max_position_embeddings": positions, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
}
"""Parameters that a method has besides its factor, given the positions that the model was trained on."""


def stretch_positions(config: PretrainedConfig, method: str, length_tokens: int) -> PretrainedConfig:
    """`config` with rotary positions for sequences of `length_tokens`, by `method`; unchanged if the model's context holds them.

    The factor is the smallest whole number by which the context must grow, as LLaMA-Factory derives it from cutoff_len. Raises
    InputError for a model without rotary positions, with several kinds of them, or whose positions are stretched already.
    """
    text = config.get_text_config()
    before: Parameters = getattr(text, "rope_parameters", None) or {}
    kind = text.model_type
    require(bool(before), f"rope_scaling: {kind} has no rotary positions", mend="remove it")
    require("rope_type" in before, f"rope_scaling: {kind} has several kinds of rotary positions", mend="remove it")
    require(before["rope_type"] == "default", f"rope_scaling: the positions of this {kind} are stretched already ({before['rope_type']})",
            mend="remove it")
    positions = text.max_position_embeddings
    factor = float(math.ceil(length_tokens / positions))
    if factor <= 1:
        log.info("rope_scaling changes nothing: the model holds %d positions, and cutoff_len is %d", positions, length_tokens)
        return config
    text.rope_parameters = {**before, "rope_type": method, "factor": factor, **_MORE[method](positions)}
    if method != "dynamic":  # dynamic compares a sequence with the positions that the model was trained on
        text.max_position_embeddings = int(positions * factor)
    return config
