"""The loss of a reward model. Axes: B pairs."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(chosen - rejected), Ouyang et al. 2022, eq. 1. Scores of whole answers [B], [B] -> [B].

    Only differences matter: adding a constant to all scores changes nothing.
    """
    return -logsigmoid(chosen - rejected)
