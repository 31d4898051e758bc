"""Log-probabilities of answers under a model, whatever the layout of the batch: what stages with preferences or rewards are built on.

Axes: A answer tokens of the batch, N sequences, B rows, S positions of a row, K positions at which some row predicts an answer token,
D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from tunewright.kernels import output_head
from tunewright.losses import logps
from tunewright.stages.causal_lm import model_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.collate import Batch
    from tunewright.data.sequences import Sequences


def sequence_logps(policy: nn.Module, batch: Batch) -> Tensor:
    """log p(answer | what is before it) of each sequence, the sum over its tokens: [N], in float32 or wider."""
    sequences = sequences_of(batch)
    return logps.sum_by_owner(token_logps(policy, batch), sequences.owners, sequences.count)


def token_logps(policy: nn.Module, batch: Batch) -> Tensor:
    """log p(token | what is before it) of each answer token of `batch.sequences`: [A], in float32 or wider, differentiable.

    A model whose output head is taken over (`kernels.output_head`) computes it from hidden states; the others make logits at the
    positions that predict an answer token of some row. A token's log-probability depends on its own sequence only, not on the layout.
    """
    aims = sequences_of(batch)
    kept = _kept(aims.positions, batch.input_ids.shape[1])
    head = output_head.of(policy)
    if head is None:
        logits = policy(**model_inputs(batch), logits_to_keep=kept.columns, use_cache=False).logits
        return logps.target_logps(kept.of(logits), aims.targets)
    with output_head.hidden_states(head, kept.columns) as taken:
        policy(**model_inputs(batch), logits_to_keep=kept.columns, use_cache=False)
    return head.log_probs(kept.of(taken[0]), aims.targets)


class AnswerStates(NamedTuple):
    """`logps` [A] as of `token_logps`; `hidden` [A, D]: the last hidden states that the tokens are predicted from, what a value head reads;
    `entropy()` [A]: that of the distribution each token is one of, in nats, without a gradient."""

    logps: Tensor
    hidden: Tensor
    entropy: Callable[[], Tensor]


def answer_states(policy: nn.Module, batch: Batch) -> AnswerStates:
    """`token_logps` with what else is known where the answer tokens are predicted, from one forward pass."""
    aims = sequences_of(batch)
    kept = _kept(aims.positions, batch.input_ids.shape[1])
    head = output_head.of(policy)
    if head is None:
        output = policy(**model_inputs(batch), logits_to_keep=kept.columns, output_hidden_states=True, use_cache=False)
        logits, hidden = kept.of(output.logits), kept.of(output.hidden_states[-1][:, kept.columns])
        return AnswerStates(logps.target_logps(logits, aims.targets), hidden, lambda: logps.entropy(logits.detach()))
    with output_head.hidden_states(head, kept.columns) as taken:
        policy(**model_inputs(batch), logits_to_keep=kept.columns, use_cache=False)
    hidden = kept.of(taken[0])
    return AnswerStates(head.log_probs(hidden, aims.targets), hidden, lambda: head.entropies(hidden))


def bare(model: nn.Module) -> nn.Module:
    """The model inside what ranks wrap around it: it is asked without the others."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class _Kept(NamedTuple):
    """`columns` [K]: positions of a row that are kept, ascending. `rows`, `places` [A]: where among B x K each token is predicted."""

    columns: Tensor
    rows: Tensor
    places: Tensor

    def of(self, states: Tensor) -> Tensor:
        """[B, K, D] -> [A, D]. Two answers to one shared prompt are both predicted from its last token."""
        return states[self.rows, self.places]


def _kept(positions: Tensor, length: int) -> _Kept:
    """From places in the flattened [B * S]. Without any, the first position is kept so that the model still runs."""
    columns, places = torch.unique(positions % length, return_inverse=True)
    return _Kept(columns if columns.numel() else columns.new_zeros(1), positions // length, places)


def sequences_of(batch: Batch) -> Sequences:
    """The answers of a batch. Only batches of answers have any, and what asks for them has such a batch."""
    assert batch.sequences is not None, "only batches of answers have sequences"
    return batch.sequences
