"""The forward pass that pre-training and supervised fine-tuning share: next-token cross-entropy of the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from tunewright.data.records import IGNORE_INDEX
from tunewright.kernels import output_head
from tunewright.losses.language_modeling import correct_tokens, cross_entropy_sum, kept_positions
from tunewright.stages.stage import Loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.data.collate import Batch
    from tunewright.kernels.output_head import OutputHead


def trained_tokens(batch: Batch) -> int:
    """Tokens of the batch that the loss is a sum over."""
    return int((batch.targets != IGNORE_INDEX).sum())


def next_token_loss(policy: nn.Module, batch: Batch, smoothing: float = 0.0, z_weight: float = 0.0) -> Loss:
    """Cross-entropy, with `z_weight` times the z-loss, summed over the trained tokens; logits are computed only where some row has a label.

    In evaluation (no gradient) `metrics` also has the token accuracy, which would cost training a pass over the logits, and the loss
    is that of the plain targets, without `smoothing` and z-loss: evaluations stay comparable.
    """
    kept = kept_positions(batch.targets)
    head = output_head.of(policy)
    added = (smoothing, z_weight) if torch.is_grad_enabled() else (0.0, 0.0)
    if head is not None:
        return _without_logits(policy, head, batch, kept, added)
    logits = policy(**model_inputs(batch), logits_to_keep=kept, use_cache=False).logits
    targets = batch.targets[:, kept]
    total = cross_entropy_sum(logits, targets, *added)
    return _loss(total, batch, lambda: correct_tokens(logits, targets))


def _without_logits(policy: nn.Module, head: OutputHead, batch: Batch, kept: Tensor, added: tuple[float, float]) -> Loss:
    """The same from the hidden states of the trained positions alone. `added`: the smoothing and the weight of the z-loss."""
    with output_head.hidden_states(head, kept) as taken:
        policy(**model_inputs(batch), logits_to_keep=kept, use_cache=False)
    targets = batch.targets[:, kept]
    trained = targets != IGNORE_INDEX
    hidden, aims = taken[0][trained], targets[trained]
    return _loss(head.loss_sum(hidden, aims, *added), batch, lambda: head.correct(hidden, aims))


def _loss(total: Tensor, batch: Batch, correct: Callable[[], int]) -> Loss:
    count = trained_tokens(batch)
    if torch.is_grad_enabled():
        return Loss(total, count)
    return Loss(total, count, {"accuracy": (correct(), count)})


def model_inputs(batch: Batch) -> dict[str, Any]:
    """Keyword arguments of a transformers model for this batch.

    A batch laid end to end carries no mask: its segments' bounds go under the names that transformers gives to variable-length
    attention (`cu_seq_lens_q`, ...), which our packed attention and FlashAttention read alike. Prefixes, if there are any, go under
    `prefix_lens`, which only ours reads: `KernelPlan.shares_prefixes` says whether a batch may have them.
    """
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    if batch.bounds is None:
        return {**inputs, "attention_mask": batch.attention_mask}
    longest = int(batch.bounds.diff().max())
    bounds = batch.bounds.to(batch.input_ids.device)
    segmented = {**inputs, "attention_mask": None, "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds,
                 "max_length_q": longest, "max_length_k": longest}
    return segmented if batch.prefixes is None else {**segmented, "prefix_lens": batch.prefixes}
