"""Next-token cross-entropy, as a sum over trained tokens.

Axes: B rows, S positions, N trained tokens, K kept positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunewright.data.records import IGNORE_INDEX


def kept_positions(targets: Tensor) -> Tensor:
    """The positions at which at least one row has something to predict: targets [B, S] -> [K] int64, ascending.

    Only their logits are needed. If there are none, the first position is kept so that the model still runs.
    """
    kept = (targets != IGNORE_INDEX).any(dim=0).nonzero().squeeze(-1)
    return kept if kept.numel() else torch.zeros(1, dtype=torch.int64, device=targets.device)


def cross_entropy_sum(logits: Tensor, targets: Tensor, smoothing: float = 0.0, z_weight: float = 0.0) -> Tensor:
    """Sum of -log softmax(logits)[target] over the targets that are not IGNORE_INDEX.

    logits [..., V] float, targets [...] int -> scalar, in float32 or wider. Computed as logsumexp minus the target's logit:
    over a large vocabulary torch's log_softmax on CPU is the less accurate of the two in float32. Splitting the positions
    in any way and adding the results gives the same sum. Without a target the sum is zero, with a zero gradient.
    `smoothing` spreads that share of each target evenly over all V tokens (Szegedy et al. 2016, section 7).
    `z_weight` is that of the z-loss, logsumexp(logits)^2, which is added for each target (Chowdhery et al. 2022, section 5).
    """
    trained = targets != IGNORE_INDEX
    logits_NV = logits[trained]
    wide_NV = logits_NV.float() if logits_NV.dtype in (torch.float16, torch.bfloat16) else logits_NV
    if wide_NV.shape[0] == 0:
        return logits.sum() * 0.0
    target_logit_N = wide_NV.gather(-1, targets[trained].unsqueeze(-1)).squeeze(-1)
    if smoothing:
        target_logit_N = (1 - smoothing) * target_logit_N + smoothing * wide_NV.mean(dim=-1)
    total_N = torch.logsumexp(wide_NV, dim=-1)
    loss_N = total_N - target_logit_N
    return (loss_N + z_weight * total_N.square() if z_weight else loss_N).sum()


def correct_tokens(logits: Tensor, targets: Tensor) -> int:
    """How many trained tokens the logits rank first: logits [..., V], targets [...] -> count."""
    trained = targets != IGNORE_INDEX
    return int((logits.argmax(dim=-1)[trained] == targets[trained]).sum())
