"""The load-balancing loss of a mixture of experts. Axes: L layers with a router, T tokens, E experts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def expert_counts(logits: Tensor, top_k: int) -> Tensor:
    """How often each expert is chosen: logits [..., E] -> [E] float64. A token chooses the `top_k` most probable."""
    chosen = logits.topk(top_k, dim=-1).indices
    return one_hot(chosen.flatten(), logits.shape[-1]).sum(dim=0).double()


def probability_sums(logits: Tensor) -> Tensor:
    """The router's probability of each expert, summed over tokens: [..., E] -> [E], in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.softmax(wide, dim=-1).flatten(0, -2).sum(dim=0)


def balance_loss(counts: Tensor, probabilities: Tensor, tokens: float) -> Tensor:
    """E sum_e f_e P_e, Fedus et al. 2021 (Switch Transformers), eq. 4 to 6, over all layers together as transformers takes it.

    counts [E] and probabilities [E] are sums over L x T = `tokens` decisions; f = counts / tokens has no gradient. The result is linear
    in `probabilities`: with the counts of a whole optimizer step, the losses of its parts add up to that of the whole.
    It is `top_k` for routers that choose all experts equally often.
    """
    return len(counts) * ((counts / tokens).to(probabilities.dtype) * probabilities / tokens).sum()
