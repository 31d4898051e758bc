"""What a LoRA adapter adds to each weight of its model, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunewright.adapters.pissa import ADAPTER

if TYPE_CHECKING:
    import numpy as np
    from peft import PeftModel

CELLS = 128
"""Rows and columns that a picture can show; larger updates are averaged in blocks."""


def adapter_updates(adapted: PeftModel) -> Iterator[tuple[str, np.ndarray]]:
    """Module name and [at most CELLS, at most CELLS] float64: the mean of |scaling B A| over blocks of the weight, module by module."""
    from peft.tuners.lora import LoraLayer

    for name, module in adapted.base_model.model.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER in (*module.lora_A, *module.lora_embedding_A):
            yield name, block_means(module.get_delta_weight(ADAPTER).detach().abs().double().cpu().numpy())


def block_means(values: np.ndarray) -> np.ndarray:
    """Means over equal blocks of a matrix, so that at most CELLS rows and columns are left."""
    import numpy as np

    for axis in (0, 1):
        size = values.shape[axis]
        starts = np.unique(np.arange(min(size, CELLS)) * size // min(size, CELLS))
        lengths = np.diff([*starts, size])
        values = np.add.reduceat(values, starts, axis=axis) / (lengths[:, None] if axis == 0 else lengths[None, :])
    return values
