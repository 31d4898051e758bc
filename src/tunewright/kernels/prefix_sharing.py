"""One prompt, several answers: a segment that continues the beginning of an earlier one instead of holding a copy of it.

`prefix_lens` [N] goes to the attention beside the bounds of the N segments. Segment n with `prefix_lens[n]` = P > 0 continues after the
first P tokens of its *root*, the nearest earlier segment whose prefix is 0: its tokens have positions P, P + 1, ..., and its queries see
the root's first P keys and, causally, their own. So a prompt goes through the model once, whatever the number of its answers:

    root     p p p p a a a      prefix 0     prompt and first answer
    next             b b        prefix 4     b sees p p p p b, as if the row were p p p p b b
    next             c c c c    prefix 4     c sees p p p p c

For a pair, the root is the segment before. Naive equivalent: every segment as a row of its own, with its prefix written out. Outputs and
gradients are those of that row up to the order of summation: no token sees one that it would not see there, and every other
operation of the models that are let in (`kernels.isolation.barrier`) is one on single tokens. What is counted per token, not per answer,
sees a shared prompt once: a router's auxiliary loss, and what is drawn at random (dropout, noise on embeddings).

Axes: H heads, T positions of the whole row, D head width, R queries of one segment, K keys that it sees, C segments of one length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from tunewright.kernels.probe import LOG_PROB_TOLERANCE, probe_tokens, quiet_run

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Segment(NamedTuple):
    """The tokens [start, end) of a row; `prefix` is how many tokens from `root` on they continue. `copies` segments of one length, end to
    end, that continue nothing or all the same tokens may be taken as one."""

    start: int
    end: int
    root: int = 0
    prefix: int = 0
    copies: int = 1

    def length(self) -> int:
        """Its own tokens, those of one copy."""
        return (self.end - self.start) // self.copies


def stacked(parts: Sequence[Segment]) -> list[Segment]:
    """Neighbours of one length and one prefix as one segment of several copies: fewer and larger products. A root stays by itself."""
    roots = {part.root for part in parts if part.prefix}
    kinds = groupby(parts, lambda part: (part.length(), part.root, part.prefix, part.start if part.start in roots else None))
    runs = [list(run) for _, run in kinds]
    return [run[0]._replace(end=run[-1].end, copies=len(run)) for run in runs]


def own(parts: Sequence[Segment], states: Tensor) -> list[Tensor]:
    """[1, H, T, D] -> for each segment a view [C, H, R, D] of its own tokens, C copies. The segments are the whole row."""
    _, heads, _, width = states.shape
    pieces = states.split([part.end - part.start for part in parts], dim=2)
    return [piece.view(heads, part.copies, part.length(), width).transpose(0, 1) for part, piece in zip(parts, pieces, strict=True)]


def seen(parts: Sequence[Segment], states: Tensor, window: int | None) -> list[Tensor]:
    """[1, H, T, D] -> for each segment [C, H, K, D], those that its queries see: what a window reaches of the prefix, then its own."""
    pieces = own(parts, states)
    by_start = {part.start: piece for part, piece in zip(parts, pieces, strict=True)}
    found = []
    for part, piece in zip(parts, pieces, strict=True):
        if part.prefix:
            first = 0 if window is None else max(0, part.prefix - window + 1)
            shared = by_start[part.root][:, :, first:part.prefix]
            piece = torch.cat((shared.expand(part.copies, -1, -1, -1), piece), dim=2)
        found.append(piece)
    return found


def by_segment(parts: Sequence[Segment], query: Tensor, key: Tensor, value: Tensor,
               window: int | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each segment its queries [C, H, R, D], and the keys and values [C, G, K, D] that they see."""
    return zip(own(parts, query), seen(parts, key, window), seen(parts, value, window), strict=True)


@lru_cache(maxsize=1)
def segments(bounds: Tensor, prefix_lens: Tensor | None) -> tuple[Segment, ...]:
    """The segments of a row: bounds [N + 1] int, prefix_lens [N] int or None for segments that stand by themselves.

    Every layer asks for those of the same two tensors; reading them waits for an accelerator, if they lie on one.
    """
    spans = list(pairwise(bounds.tolist()))
    root, found = Segment(0, 0), []
    for (start, end), prefix in zip(spans, [0] * len(spans) if prefix_lens is None else prefix_lens.tolist(), strict=True):
        assert prefix <= root.length(), f"a segment continues {prefix} tokens of one that has {root.length()}"
        if not prefix:
            root = Segment(start, end)
        found.append(Segment(start, end, root.start, prefix) if prefix else root)
    return tuple(found)


def seen_mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """[R, K] bool, true where a query may look: the last key is the last query's own; no key behind it, and `window` keys at most."""
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return seen if window is None else seen.triu(keys - queries - window + 1)


def hiding_mask(queries: int, keys: int, window: int | None, like: Tensor, least: float = -torch.inf) -> Tensor:
    """[R, K] to be added to products: 0 where `seen_mask` is true, else `least`. Made for each block of a row: two operations."""
    hidden = like.new_full((queries, keys), least)
    ahead = hidden.triu(keys - queries + 1)
    return ahead if window is None else ahead.add_(hidden.tril(keys - queries - window))


PROMPT, ANSWERS = 5, (3, 4)
"""Tokens of the prompt and of the two answers that a model is tried on."""


def disproof(model: PreTrainedModel) -> str | None:
    """Run the model on a prompt with two answers, shared and not; how the log-probabilities differ, if they do."""
    ids = probe_tokens(model, PROMPT + sum(ANSWERS))[0]
    prompt, first, second = ids.split((PROMPT, *ANSWERS))
    with quiet_run(model):
        apart = _log_probs(model, [torch.cat((prompt, first)), torch.cat((prompt, second))], None)
        shared = _log_probs(model, [torch.cat((prompt, first)), second], PROMPT)
    kept = torch.cat((apart[:PROMPT + ANSWERS[0]], apart[-ANSWERS[1]:]))
    worst = float((shared - kept).abs().max())
    return None if worst <= LOG_PROB_TOLERANCE.get(model.dtype, 1e-4) else f"the model mixes tokens in a way of its own (by {worst:.1e})"


def _log_probs(model: PreTrainedModel, rows: list[Tensor], prefix: int | None) -> Tensor:
    """[T, V] of rows laid end to end, the second of which continues `prefix` tokens of the first."""
    lengths = [len(row) for row in rows]
    device = rows[0].device
    bounds = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32, device=device)
    starts = (0, prefix or 0)
    positions = torch.cat([torch.arange(start, start + length, device=device) for start, length in zip(starts, lengths, strict=True)])
    told: dict[str, Any] = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": max(lengths), "max_length_k": max(lengths)}
    if prefix is not None:
        told["prefix_lens"] = torch.tensor(starts, dtype=torch.int32, device=device)
    logits = model(input_ids=torch.cat(rows)[None], position_ids=positions[None], attention_mask=None, use_cache=False, **told).logits
    return torch.log_softmax(logits[0].double(), dim=-1)
