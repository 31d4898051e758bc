"""What the reference model says of the answers of a batch: asked in each step, or looked up where it was asked beforehand.

Axes: N sequences of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tunewright.kernels.prefix_sharing import segments
from tunewright.kernels.probe import quiet_run
from tunewright.stages.sequence_logps import bare, sequence_logps, sequences_of
from tunewright.stages.stage import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tunewright.data.collate import Batch
    from tunewright.stages.stage import Models


class RememberedReference(nn.Module):
    """The log-probabilities of a reference model, by the content of the sequence (`sequence_keys`): it needs no weights any more."""

    def __init__(self, logps: Mapping[str, float], dtype: torch.dtype) -> None:
        super().__init__()
        self._logps, self._dtype = logps, dtype

    def of(self, batch: Batch) -> Tensor:
        """[N]. Raises KeyError for a sequence that was not asked about."""
        return torch.tensor([self._logps[key] for key in sequence_keys(batch)], dtype=self._dtype, device=batch.input_ids.device)


def reference_logps(models: Models, batch: Batch) -> Tensor:
    """log p(answer | prompt) of each sequence under the reference: [N], in float32 or wider, without a gradient."""
    reference = models[Role.REFERENCE]
    return reference.of(batch) if isinstance(reference, RememberedReference) else quiet_logps(reference, batch)


def quiet_logps(model: nn.Module, batch: Batch) -> Tensor:
    """The same under any model, in evaluation mode: no dropout, no gradient, and no random number of the run is used up."""
    with quiet_run(bare(model)):
        return sequence_logps(bare(model), batch)


def sequence_keys(batch: Batch) -> list[str]:
    """A name for each sequence that depends on its tokens and on which of them are the answer, and on nothing else: the same in every
    layout. 32 hexadecimal digits (BLAKE2b) of the number of tokens, the tokens, and the places that predict an answer token."""
    aims = sequences_of(batch)
    places = batch.position_ids.flatten()[aims.positions].cpu().numpy().astype("<i8")
    borders = np.cumsum(np.bincount(aims.owners.cpu().numpy(), minlength=aims.count))
    answers = np.split(places, borders[:-1]) if aims.count else []
    return [_key(tokens, answer) for tokens, answer in zip(_rows(batch), answers, strict=False)]


def _key(tokens: NDArray[np.int64], places: NDArray[np.int64]) -> str:
    content = len(tokens).to_bytes(8, "little") + tokens.astype("<i8").tobytes() + places.tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _rows(batch: Batch) -> Iterator[NDArray[np.int64]]:
    """The tokens of each row of a batch, with the prefix that it shares written out; sequence n is in row n."""
    ids = batch.input_ids.cpu().numpy()
    if batch.bounds is None:
        assert batch.attention_mask is not None, "a padded batch has a mask"
        lengths = batch.attention_mask.sum(dim=1).tolist()
        yield from (row[:length] for row, length in zip(ids, lengths, strict=True))
        return
    for segment in segments(batch.bounds, batch.prefixes):
        yield np.concatenate([ids[0, segment.root:segment.root + segment.prefix], ids[0, segment.start:segment.end]])
