"""Answers of the policy to prompts, drawn so that each is a function of its key alone.

A token is drawn by adding Gumbel noise to the processed log-probabilities and taking the largest (Gumbel 1954; Maddison et al. 2014,
section 2): that is a draw from their softmax. The noise of an answer comes from a generator of its own, whose seed is a digest of the
answer's key, so neither the other rows of the batch, nor the rank, nor what was drawn before has a part in it. What is left is the rounding
of the logits, which may depend on the padding, and decides only between tokens that are equal to its last digits.

Axes: B answers that are made at a time, S tokens of the longest prompt among them, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from tunewright.errors import refuse
from tunewright.inference.generate import Answering, decoding, room
from tunewright.kernels.probe import quiet_run

if TYPE_CHECKING:
    from torch import Tensor, nn

_WARPERS: Final = {
    "min_p": ("MinPLogitsWarper", "min_p"), "typical_p": ("TypicalLogitsWarper", "mass"),
    "epsilon_cutoff": ("EpsilonLogitsWarper", "epsilon"), "eta_cutoff": ("EtaLogitsWarper", "epsilon")}
"""Settings of a generation file that bound what is drawn from -> class of transformers, name of its argument."""
_IDLE: Final = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
"""What such a setting is where it bounds nothing, which its class does not take."""


class Request(NamedTuple):
    """A prompt to be answered, and what its answer's randomness is a function of: (seed, step, sample id, number of the generation)."""

    ids: Sequence[int]
    key: tuple[int, ...]


class Answered(NamedTuple):
    """The tokens of an answer, with the one that ended it; without such a one `ended` is false. There is one token at least."""

    ids: list[int]
    ended: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn, and how many at a time."""

    answering: Answering
    pad_token_id: int
    batch_size: int


class KeyedNoise:
    """A logits processor, the last one: scores [B, V] -> scores with Gumbel noise. Row b draws from a generator seeded with keys[b]."""

    def __init__(self, keys: Sequence[tuple[int, ...]], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed_of(key)) for key in keys]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """One more draw from each row's generator; a score of -inf stays so."""
        draws = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(draws, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores - draws.log().to(scores.dtype)


def seed_of(key: tuple[int, ...]) -> int:
    """63 bits of BLAKE2b of the numbers in decimal."""
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, key)).encode(), digest_size=8).digest(), "little") >> 1


def roll_out(policy: nn.Module, requests: Sequence[Request], sampling: Sampling) -> list[Answered]:
    """An answer to each request, in their order; longest prompts first, so that rows of one batch are alike in length.

    The model answers in evaluation mode, without gradients; modes and random numbers of the run are left as they were.
    """
    found: dict[int, Answered] = {}
    order = sorted(range(len(requests)), key=lambda number: -len(requests[number].ids))
    with quiet_run(policy):
        for start in range(0, len(order), sampling.batch_size):
            some = order[start:start + sampling.batch_size]
            found |= zip(some, _answers(policy, [requests[number] for number in some], sampling), strict=True)
    return [found[number] for number in range(len(requests))]


def _answers(policy: Any, requests: Sequence[Request], sampling: Sampling) -> list[Answered]:
    from transformers import LogitsProcessorList

    how, padding = sampling.answering, sampling.pad_token_id
    rooms = [_room(how, request) for request in requests]
    longest = max(len(request.ids) for request in requests)
    device = next(policy.parameters()).device
    ids = torch.tensor([[padding] * (longest - len(request.ids)) + list(request.ids) for request in requests], device=device)
    mask = torch.tensor([[0] * (longest - len(request.ids)) + [1] * len(request.ids) for request in requests], device=device)
    # Greedy for transformers: what is drawn is the largest of the noisy scores. peft's generate() takes keywords only.
    greedy = replace(how, generation=replace(how.generation, do_sample=False, num_beams=1),
                     further={name: value for name, value in how.further.items() if name not in _WARPERS})
    processors = LogitsProcessorList([*warpers(how, device), KeyedNoise([request.key for request in requests], device)])
    output = policy.generate(input_ids=ids, attention_mask=mask, generation_config=decoding(greedy, padding, max(rooms)),
                             logits_processor=processors)
    return [_cut(row[:allowed], how.stop_ids) for row, allowed in zip(output[:, longest:].tolist(), rooms, strict=True)]


def warpers(how: Answering, device: torch.device) -> list[Any]:
    """What bounds the distribution that is drawn from, in transformers' order: temperature, top-k, top-p, then those of a file."""
    from transformers.generation import logits_process

    generation, found = how.generation, list[Any]()
    if generation.temperature != 1.0:
        found.append(logits_process.TemperatureLogitsWarper(generation.temperature))
    if generation.top_k:
        found.append(logits_process.TopKLogitsWarper(generation.top_k))
    if generation.top_p < 1.0:
        found.append(logits_process.TopPLogitsWarper(generation.top_p))
    for name, (kind, argument) in _WARPERS.items():
        if name not in how.further or how.further[name] == _IDLE.get(name):
            continue
        placed = {"device": device} if name == "eta_cutoff" else {}
        try:
            found.append(getattr(logits_process, kind)(**{argument: how.further[name]}, **placed))
        except (ValueError, TypeError) as error:
            refuse(f"generation_config: {name}: {' '.join(str(error).split())[:300]}", where=generation.generation_config,
                   mend="correct the file")
    return found


def _room(how: Answering, request: Request) -> int:
    size = room(how.generation, len(request.ids))
    if size < 1:
        refuse(f"max_length: a prompt of {len(request.ids)} tokens leaves no room for an answer within {how.generation.max_length}",
               mend="set a larger max_length, or a smaller cutoff_len")
    return size


def _cut(answer: Sequence[int], stop_ids: Sequence[int]) -> Answered:
    """Up to and with the first token that ends an answer."""
    end = next((place for place, token in enumerate(answer) if token in stop_ids), None)
    return Answered(list(answer), False) if end is None else Answered(list(answer[:end + 1]), True)
