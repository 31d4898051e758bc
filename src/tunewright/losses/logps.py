"""Log-probabilities of tokens, and what they come to for each sequence.

Axes: A answer tokens of all sequences of a batch, V vocabulary, N sequences, T tokens of the longest sequence. `owners [A]` says to
which sequence each token belongs; it ascends, so a sequence's tokens stand together. `count` is N: sequences without a token count too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def target_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits)[target]: logits [..., V] float, targets [...] int -> [...], in float32 or wider.

    As the target's logit minus log-sum-exp, like `language_modeling.cross_entropy_sum`, so that each token costs the same in both.
    """
    wide = _wide(logits)
    return wide.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(wide, dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """-sum of p log p of softmax(logits), in nats: logits [..., V] -> [...], in float32 or wider. A logit of -inf adds nothing."""
    logps = torch.log_softmax(_wide(logits), dim=-1)
    return -(logps.exp() * logps.masked_fill(logps == -torch.inf, 0.0)).sum(dim=-1)


def count_by_owner(owners: Tensor, count: int) -> Tensor:
    """How many tokens each sequence has: owners [A] -> [N] int64."""
    return torch.bincount(owners, minlength=count)


def sum_by_owner(token_logps: Tensor, owners: Tensor, count: int) -> Tensor:
    """The sum over each sequence's tokens: token_logps [A] float, owners [A] ascending -> [N], in float32 or wider; 0 without a token.

    Added up in float64 and rounded once. A sequence's sum depends on its own tokens only, never on what else is in the batch, and
    needs no atomic additions, so it is the same in every run. Naive equivalent: `zeros(count).index_add(0, owners, token_logps)`.
    """
    if count == 0:  # what a rank has that runs without rows; torch reduces no empty tensor
        return token_logps[:0].to(torch.promote_types(token_logps.dtype, torch.float32))
    totals = torch.segment_reduce(token_logps.double(), "sum", lengths=count_by_owner(owners, count), axis=0, initial=0.0)
    return totals.to(torch.promote_types(token_logps.dtype, torch.float32))


def mean_by_owner(token_logps: Tensor, owners: Tensor, count: int) -> Tensor:
    """The mean over each sequence's tokens: token_logps [A] float, owners [A] ascending -> [N]; 0 for a sequence without a token."""
    return sum_by_owner(token_logps, owners, count) / count_by_owner(owners, count).clamp(min=1)


def rows_by_owner(values: Tensor, owners: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One row for each sequence: values [A], owners [A] ascending -> (rows [N, T] with zeros after the end, mask [N, T] bool).

    `rows[mask]` gives the values back in their order.
    """
    lengths = count_by_owner(owners, count)
    longest = int(lengths.max()) if lengths.numel() else 0
    mask = torch.arange(longest, device=owners.device) < lengths.unsqueeze(-1)
    rows = values.new_zeros(mask.shape)
    rows[mask] = values
    return rows, mask


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
