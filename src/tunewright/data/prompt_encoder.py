"""Prompts that a model answers by itself to rows of ids, rendered for generation. Nothing of them is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tunewright.data.audit import Note
from tunewright.data.encoding import CUTS, Encoded, tokens_of
from tunewright.data.examples import Tokens
from tunewright.data.records import IGNORE_INDEX, Prompt, Record

EncodePrompts = Callable[[Sequence[Prompt]], Sequence[Sequence[int]]]
_AS: Final = {"proportional": "cut_right"}
"""LLaMA-Factory's rule gives a prompt without an answer the whole of cutoff_len."""


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """Encodes a chunk of prompts. One that is too long is dropped, or loses its start, or its end with the words that open the answer."""

    encode: EncodePrompts
    cutoff_len: int
    cutoff_policy: str

    @property
    def splits(self) -> bool:
        """Never: a prompt is one example."""
        return False

    def __call__(self, records: Sequence[Record]) -> list[Encoded]:
        """Each record in order; pure, so that it can run in any process."""
        prompts = [record for record in records if isinstance(record, Prompt)]
        return [self._encoded(record, np.asarray(ids, np.int32)) for record, ids in zip(records, self.encode(prompts), strict=True)]

    def _encoded(self, record: Record, ids: np.ndarray) -> Encoded:
        size, policy = len(ids), _AS.get(self.cutoff_policy, self.cutoff_policy)
        reason = f"longer than cutoff_len {self.cutoff_len}"
        if size > self.cutoff_len and policy == "drop":
            return Encoded(record.origin, (), (Note(record.origin, "dropped", reason, tokens_of(size), size),), size)
        kept = ids[: self.cutoff_len] if policy == "cut_right" else ids[-self.cutoff_len :]
        piece = Tokens(kept, np.full(len(kept), IGNORE_INDEX, np.int32))
        if size <= self.cutoff_len:
            return Encoded(record.origin, (piece,), (), size)
        note = Note(record.origin, "changed", f"{reason}: {CUTS[policy]}", tokens_of(size), size - self.cutoff_len)
        return Encoded(record.origin, (piece,), (note,), size)
