"""Examples to tensors: padded rows, or rows laid end to end.

Axes: B rows, S positions of the longest row, T positions of all rows together, N segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from tunewright.data.records import IGNORE_INDEX
from tunewright.data.sequences import Sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunewright.data.experience import Experience


class Example(NamedTuple):
    """One training sequence: token ids, labels (IGNORE_INDEX where not trained) and the bounds of its segments.

    `bounds` is [0, length] for a plain row and [0, end of row 1, ..., length] for a packed sequence. The label at a
    position is the token *at* that position (Hugging Face's convention): the loss shifts. The first label of each segment
    is always IGNORE_INDEX, because nothing precedes it. A pair of answers is two segments, prompt + chosen and prompt + rejected.
    `mark`: 1 for an answer that was called desirable, -1 for one that was not, 0 where nobody said so.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    bounds: NDArray[np.int32]
    sample_id: int
    mark: int = 0


_STAY: Final = ("bounds", "prefixes")
"""What kernels read as numbers, so that it stays where it was made."""


@dataclass(frozen=True, slots=True)
class Batch:
    """input_ids, targets, position_ids [B, S] int64 (or [1, T] laid end to end); attention_mask [B, S] int64 or None.

    `targets`: the token that each position is to predict, IGNORE_INDEX where it is to predict none: the labels, one to the left.
    `bounds` [N + 1] int32: where each segment begins and the last one ends, on a [1, T] batch; None on a padded one.
    `prefixes` [N] int32, beside `bounds`: segment n continues after the first prefixes[n] tokens of the nearest segment before it that
    is by itself, which has 0; None where all are.
    `unread`: tokens at the ends of rows that were left out, because nothing is predicted from them.
    `sequences`: the answers of pairs or feedback; targets are IGNORE_INDEX throughout there. `marks` [R] int8: of rows of feedback.
    `reference` [sequences.count]: log-probabilities of the sequences under the reference model. `kl`: divergences from it that hold for
    the whole optimizer step: [1], or of pairs [2], that of chosen and of rejected answers. `routing` [E + 2]: what the routers of a mixture
    of E experts decide in the whole step (`engine.router_balance`). `experience`: of answers that the policy gave in this step; it is made
    on the device.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    bounds: torch.Tensor | None
    sample_ids: tuple[int, ...]
    sequences: Sequences | None = None
    prefixes: torch.Tensor | None = None
    marks: torch.Tensor | None = None
    reference: torch.Tensor | None = None
    kl: torch.Tensor | None = None
    routing: torch.Tensor | None = None
    experience: Experience | None = None
    unread: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of the rows, without padding; one that several rows share counts for each of them, and one that was left out counts."""
        shared = 0 if self.prefixes is None else int(self.prefixes.sum())
        return int(self.attention_mask.sum()) if self.attention_mask is not None else self.input_ids.numel() + shared + self.unread

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; torch's data loader calls this."""
        pinned: dict[str, Any] = {name: part.pin_memory() for name, part in self._parts().items()}
        return replace(self, **pinned)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; `bounds` and `prefixes` stay on the CPU, where kernels read them as numbers."""
        moved: dict[str, Any] = {name: part.to(device) if isinstance(part, Sequences) else part.to(device, non_blocking=True)
                                 for name, part in self._parts().items()}
        return replace(self, **moved)

    def _parts(self) -> dict[str, torch.Tensor | Sequences]:
        """Every tensor that a model or a loss computes with."""
        found = ((one.name, getattr(self, one.name)) for one in fields(self) if one.name not in _STAY)
        return {name: part for name, part in found if isinstance(part, torch.Tensor | Sequences)}


Positions = Callable[[Example], "NDArray[np.int64]"]
"""Positions of the tokens of a sequence that is padded."""


def positions_of_rows(example: Example) -> NDArray[np.int64]:
    """From 0 on in each row of the sequence, as LLaMA-Factory numbers them."""
    return np.concatenate([np.arange(length) for length in np.diff(example.bounds)]).astype(np.int64)


def positions_run_on(example: Example) -> NDArray[np.int64]:
    """From 0 on through the whole sequence: for FlashAttention, which takes a position 0 for the beginning of a row of its own."""
    return np.arange(len(example.input_ids), dtype=np.int64)


def collate_flat(examples: Sequence[Example]) -> Batch:
    """Lay the segments of all examples end to end in one row; positions restart at each segment."""
    lengths = np.concatenate([np.diff(example.bounds) for example in examples])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.concatenate([positions_of_rows(example) for example in examples])
    return Batch(
        input_ids=_row([example.input_ids for example in examples]),
        targets=_row([_targets(example.labels) for example in examples]),
        position_ids=torch.from_numpy(positions).unsqueeze(0),
        attention_mask=None,
        bounds=torch.from_numpy(bounds.astype(np.int32)),
        sample_ids=tuple(example.sample_id for example in examples),
    )


SHORTEST_SHARED: Final = 8
"""Tokens from which on a beginning is shared: for fewer, putting the keys together costs what it saves."""


def collate_flat_shared(examples: Sequence[Example]) -> Batch:
    """`collate_flat` without what need not be computed: a segment that begins as an earlier one does (a system prompt, tools) continues
    that one instead of repeating it, and none goes on behind its last prediction.

    What is shared carries no label of the later segment, and neither does the token after it, so every target still has its predictor
    right before it. Which tokens a segment shares depends on it and on the nearest one before it that stands by itself, its root.
    """
    rows = [(example.input_ids[start:end], example.labels[start:end])
            for example in examples for start, end in pairwise(example.bounds.tolist())]
    roots, prefixes = [0], [0]
    for number, row in enumerate(rows[1:], start=1):
        shared = _shared(rows[roots[-1]][0], *row)
        prefixes.append(shared if shared >= SHORTEST_SHARED else 0)
        roots.append(roots[-1] if prefixes[-1] else number)
    ends = [_read(labels, prefix) for (_, labels), prefix in zip(rows, prefixes, strict=True)]
    for root, prefix in zip(roots, prefixes, strict=True):
        ends[root] = max(ends[root], prefix)
    own = [(ids[prefix:end], _targets(labels)[prefix:end]) for (ids, labels), prefix, end in zip(rows, prefixes, ends, strict=True)]
    return Batch(
        input_ids=_row([ids for ids, _ in own]),
        targets=_row([targets for _, targets in own]),
        position_ids=_row([np.arange(prefix, prefix + len(ids)) for (ids, _), prefix in zip(own, prefixes, strict=True)]),
        attention_mask=None,
        bounds=torch.from_numpy(np.cumsum([0, *(len(ids) for ids, _ in own)]).astype(np.int32)),
        sample_ids=tuple(example.sample_id for example in examples),
        prefixes=torch.tensor(prefixes, dtype=torch.int32) if any(prefixes) else None,
        unread=sum(len(ids) for ids, _ in rows) - sum(prefixes) - sum(len(ids) for ids, _ in own),
    )


def _shared(root: NDArray[np.int32], ids: NDArray[np.int32], labels: NDArray[np.int32]) -> int:
    """Tokens at the beginning of a row that are the root's too, and end before the token that precedes the row's first label."""
    most = min(len(root), len(ids))
    differing = np.flatnonzero(root[:most] != ids[:most])
    trained = np.flatnonzero(labels != IGNORE_INDEX)
    first_label = int(trained[0]) if len(trained) else len(ids)
    return max(0, min(int(differing[0]) if len(differing) else most, first_label - 1))


def _read(labels: NDArray[np.int32], prefix: int) -> int:
    """Tokens of a row up to the one that predicts its last label; one behind what it shares at the least."""
    trained = np.flatnonzero(labels != IGNORE_INDEX)
    return max(int(trained[-1]) if len(trained) else 0, prefix + 1)


def collate_padded(examples: Sequence[Example], pad_token_id: int, pad_label: int = IGNORE_INDEX,
                   positions: Positions = positions_of_rows) -> Batch:
    """Pad each example on the right to the longest; a packed example's segments see each other (plain packing).

    `pad_label` is the label of padding: IGNORE_INDEX, or `pad_token_id` where it trains. Padding is numbered on, so that no position
    0 begins a row there.
    """
    longest = max(len(example.input_ids) for example in examples)
    shape = (len(examples), longest)
    input_ids = torch.full(shape, pad_token_id, dtype=torch.int64)
    labels = torch.full(shape, pad_label, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    position_ids = torch.arange(longest).repeat(len(examples), 1)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[row, :length] = torch.from_numpy(example.input_ids.astype(np.int64))
        labels[row, :length] = torch.from_numpy(example.labels.astype(np.int64))
        attention_mask[row, :length] = 1
        position_ids[row, :length] = torch.from_numpy(positions(example))
    return Batch(
        input_ids=input_ids,
        targets=torch.from_numpy(_targets(labels.numpy())),
        position_ids=position_ids,
        attention_mask=attention_mask,
        bounds=None,
        sample_ids=tuple(example.sample_id for example in examples),
    )


def without_labels(batch: Batch) -> Batch:
    """The same batch with nothing to train on: what a rank runs when the tail of an epoch leaves it no rows."""
    return replace(batch, targets=torch.full_like(batch.targets, IGNORE_INDEX), sample_ids=(),
                   sequences=None if batch.sequences is None else Sequences.none(),
                   marks=None if batch.marks is None else batch.marks[:0], reference=None)


def _targets(labels: NDArray[Any]) -> NDArray[Any]:
    """The label one to the right of each position, IGNORE_INDEX at the last: [..., S] -> [..., S].

    Because the first label of every segment is IGNORE_INDEX (see `Example`), no position predicts across the border of two packed rows.
    """
    found = np.full_like(labels, IGNORE_INDEX)
    found[..., :-1] = labels[..., 1:]
    return found


def _row(parts: Sequence[NDArray[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64)).unsqueeze(0)
