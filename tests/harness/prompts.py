"""Prompts with one or several answers, laid out by hand, and their log-probabilities by transformers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tunewright.data.collate import Batch
from tunewright.data.sequences import Sequences


class Group(NamedTuple):
    """A prompt [p] and its answers [a] each, token ids."""

    prompt: Tensor
    answers: list[Tensor]

    def rows(self) -> list[Tensor]:
        """Each answer behind its own copy of the prompt."""
        return [torch.cat((self.prompt, answer)) for answer in self.answers]


def groups(shapes: Sequence[tuple[int, Sequence[int]]], seed: int = 5, vocabulary: int = 64) -> list[Group]:
    """Random tokens: (length of the prompt, lengths of its answers) for each."""
    chance = torch.Generator().manual_seed(seed)
    return [Group(torch.randint(3, vocabulary, (prompt,), generator=chance),
                  [torch.randint(3, vocabulary, (answer,), generator=chance) for answer in answers]) for prompt, answers in shapes]


def shared(given: Sequence[Group]) -> Batch:
    """Each prompt once, with its first answer; the other answers behind it, as continuations of the prompt."""
    ids, positions, prefixes, bounds = [], [], [], [0]
    where, targets = [], []
    for group in given:
        root, length = bounds[-1], len(group.prompt)
        for number, row in enumerate(group.rows()):
            prefix = length if number else 0
            begin = bounds[-1]
            ids.append(row[prefix:])
            positions.append(torch.arange(prefix, len(row)))
            prefixes.append(prefix)
            bounds.append(begin + len(row) - prefix)
            first = root + length - 1
            where.append(torch.tensor([first, *range(begin + length - prefix, bounds[-1] - 1)]))
            targets.append(row[length:])
    return Batch(torch.cat(ids)[None], torch.full((1, bounds[-1]), -100), torch.cat(positions)[None], None,
                 torch.tensor(bounds, dtype=torch.int32), (), _sequences(where, targets), torch.tensor(prefixes, dtype=torch.int32))


def _sequences(where: list[Tensor], targets: list[Tensor]) -> Sequences:
    owners = torch.repeat_interleave(torch.arange(len(targets)), torch.tensor([len(one) for one in targets]))
    return Sequences(torch.cat(where), torch.cat(targets), owners, len(targets))


def one_by_one(model: nn.Module, given: Sequence[Group]) -> Tensor:
    """[A] log-probabilities of all answer tokens: each row by itself, through transformers' forward and torch's log_softmax."""
    found = []
    for group in given:
        for row in group.rows():
            logits = model(input_ids=row[None], attention_mask=torch.ones_like(row)[None], use_cache=False).logits[0]
            logps = torch.log_softmax(logits, dim=-1)[:-1].gather(-1, row[1:, None])[:, 0]
            found.append(logps[len(group.prompt) - 1:])
    return torch.cat(found)
