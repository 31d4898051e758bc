"""What a trained model stands on: its base, the adapters merged below it, and the starting point of PiSSA.

An adapter says which base it belongs to but not that other adapters were merged into that base first, nor which factors
PiSSA took out of it. Without both, loading it again gives another model. They are kept beside the model while it trains
and beside the adapter when it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.adapters.positions import Positions

_SLOT = "tunewright_lineage"


@dataclass(frozen=True, slots=True)
class Lineage:
    """`merged`: adapter directories merged into the base, in order. `initial`: PiSSA's first factors, by module and factor.
    `positions`: how the base's positions were stretched.

    `initial` maps `<module>.lora_A` and `<module>.lora_B` to CPU tensors in the dtype they trained in.
    """

    merged: tuple[str, ...] = ()
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    positions: Positions | None = None


def remember(model: nn.Module, lineage: Lineage) -> None:
    """Keep `lineage` with `model`."""
    setattr(model, _SLOT, lineage)


def lineage_of(model: nn.Module) -> Lineage:
    """The lineage kept with `model`; an empty one for a model on its own."""
    return model.__dict__.get(_SLOT, Lineage())
