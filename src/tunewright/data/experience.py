"""What is known of the answers of a batch since they were made, which the loss of reinforcement learning reads.

Axes: A answer tokens of the batch, in the order of its `Sequences`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Experience:
    """Constants of an update, one number for each answer token [A].

    `advantages`; log-probabilities under the policy that made the answers (`old_logps`, absent where that is the policy itself) and under
    the reference; values at that time and their targets. `figures`: (sum, count) of metrics that were known then. `rewards`: (sum, count)
    over answers, which an evaluation has alone.
    """

    rewards: tuple[float, float]
    figures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    advantages: Tensor | None = None
    old_logps: Tensor | None = None
    reference_logps: Tensor | None = None
    old_values: Tensor | None = None
    returns: Tensor | None = None
