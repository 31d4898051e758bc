"""What the tests of ppo and grpo share: a tiny model, prompts, a reward counted from tokens, ranks as threads, and plain updates."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tunewright.config.inference import GenerationConfig
from tunewright.data.collate import Batch, Example, without_labels
from tunewright.data.collate_groups import CollateGroups
from tunewright.data.collate_prompts import collate_prompts_left
from tunewright.inference.generate import Answering
from tunewright.rl.episodes import Episode, Judge, Player
from tunewright.rl.rewards import Answers
from tunewright.rl.rollout import Sampling
from tunewright.stages.online import Rollouts
from tunewright.stages.stage import Role, StepContext

LONGEST = 7
STOPS = (2, 9)


def tiny_model(seed: int = 3, *, packed: bool = True) -> Any:
    """Two layers in float64, whose answers are of all lengths; laid out end to end."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunewright.config.run import RunConfig
    from tunewright.kernels import plan

    shape = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.25}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = LlamaForCausalLM(LlamaConfig(**shape)).double()
    for name, module in list(found.named_modules()):
        if type(module).__name__ == "LlamaRMSNorm":  # transformers' own rounds to float32 inside
            found.set_submodule(name, torch.nn.RMSNorm(16, eps=1e-6, dtype=torch.float64))
    if packed:
        plan.apply(RunConfig(), found)
    return found.train()


def prompt_batches(parts: Sequence[Sequence[int]]) -> list[Batch]:
    """Batches of the prompts with these numbers; a part without any stands in for rows that are not there."""
    return [_batch(part) if part else without_labels(_batch([0])) for part in parts]


def _batch(numbers: Sequence[int]) -> Batch:
    chance = np.random.default_rng(11)
    rows = [chance.integers(3, 24, size).astype(np.int32) for size in (4, 1, 6, 3, 5, 2, 7, 3)]
    return collate_prompts_left([Example(rows[number], np.full_like(rows[number], -100), np.array([0, len(rows[number])], np.int32), number)
                                 for number in numbers], 0)


def worth(answer: Sequence[int]) -> float:
    """The reward of an answer: how many of its tokens are odd, less a fifth of its length."""
    return sum(token % 2 for token in answer) - len(answer) / 5


@dataclass(frozen=True)
class Counting:
    """Gives `worth`."""

    name: str = "counting"

    def __call__(self, answers: Answers) -> list[float]:
        """One number for each answer."""
        return [worth(answer) for answer in answers.answer_ids]


@dataclass
class Witness:
    """Takes down the answers of all steps."""

    episodes: list[Episode] = field(default_factory=list)

    def __call__(self, _: StepContext, episodes: Sequence[Episode]) -> None:
        """Those of one step."""
        self.episodes += episodes


def rollouts(collate: CollateGroups, told: Witness, *, generations: int = 1, penalty: float = 0.0) -> Rollouts:
    """Short answers with temperature 1, two at a time, judged by `worth`."""
    generation = GenerationConfig(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=LONGEST)
    player = Player(Sampling(Answering(generation, STOPS, {}), 0, 2), Judge((Counting(),), (1.0,), penalty),
                    lambda ids, plain: " ".join(map(str, ids)), lambda samples: {}, generations)
    return Rollouts(player, collate, told)


@dataclass(frozen=True)
class LoneRank:
    """One process."""

    rank: int = 0
    world_size: int = 1
    is_main: bool = True

    def gather_objects(self, value: Any) -> list[Any]:
        """Its own."""
        return [json.loads(json.dumps(value))]

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Its own."""
        return [float(value) for value in values]


class Meeting:
    """Where threads that play ranks exchange values."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=60), [None] * size


@dataclass(frozen=True)
class ThreadRank:
    """One of several."""

    rank: int
    world_size: int
    meeting: Meeting

    @property
    def is_main(self) -> bool:
        """Whether it is the first."""
        return self.rank == 0

    def gather_objects(self, value: Any) -> list[Any]:
        """Those of all, in their order."""
        self.meeting.values[self.rank] = json.dumps(value)
        self.meeting.barrier.wait()
        found = [json.loads(one) for one in self.meeting.values]
        self.meeting.barrier.wait()
        return found

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all."""
        return [sum(parts) for parts in zip(*self.gather_objects(list(values)), strict=True)]


class Updated(NamedTuple):
    """One update: the gradient of each weight, the mean loss, (sum, count) of each metric."""

    gradients: dict[str, Tensor]
    loss: float
    metrics: dict[str, tuple[float, float]]


def step(stage: Any, models: dict[Role, Any], batches: Sequence[Batch], ranks: Any, number: int = 0, rate: float = 0.3) -> list[Updated]:
    """The updates of a step as the engine takes them, with plain gradient descent."""
    policy, found = models[Role.POLICY], []
    updates: Iterator[Sequence[Batch]] = stage.updates(models, batches, StepContext(ranks, number, 5, training=True))
    while True:
        with torch.no_grad():
            update = next(updates, None)
        if update is None:
            return found
        found.append(_updated(stage, models, update, ranks))
        with torch.no_grad():
            for name, weight in policy.named_parameters():
                weight -= rate * found[-1].gradients[name]


def _updated(stage: Any, models: dict[Role, Any], update: Sequence[Batch], ranks: Any) -> Updated:
    policy = models[Role.POLICY]
    policy.zero_grad()
    units, total = sum(stage.units(batch) for batch in update), 0.0
    metrics = {name: [0.0, 0.0] for name in stage.measures}
    for batch in update:
        loss = stage.loss(models, batch)
        loss.sum.backward()
        total += float(loss.sum.detach())
        for name, (value, count) in loss.metrics.items():
            metrics[name] = [metrics[name][0] + value, metrics[name][1] + count]
    names = [name for name, _ in policy.named_parameters()]
    flat = torch.cat([torch.zeros(weight.numel()).double() if weight.grad is None else weight.grad.flatten()
                      for weight in policy.parameters()])
    count, total, *rest = ranks.all_reduce_sum([units, total, *flat.tolist(), *(part for name in metrics for part in metrics[name])])
    sizes = [weight.numel() for weight in policy.parameters()]
    parts = (torch.tensor(rest[:len(flat)], dtype=torch.float64) / count).split(sizes)
    gradients = {name: part.view(weight.shape) for name, part, weight in zip(names, parts, policy.parameters(), strict=True)}
    figures = iter(rest[len(flat):])
    return Updated(gradients, total / count, {name: (next(figures), next(figures)) for name in metrics})


def on_ranks(play: Callable[[Any], list[Updated]], size: int) -> list[list[Updated]]:
    """`play` on several ranks at a time."""
    meeting, found = Meeting(size), [list[Updated]() for _ in range(size)]
    failures: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = play(ThreadRank(rank, size, meeting))
        except BaseException as error:
            failures.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if failures:
        raise failures[0]
    return found


def copies(models: dict[Role, Any]) -> dict[Role, Any]:
    """The same models with weights of their own."""
    return {role: deepcopy(model) for role, model in models.items()}


class Said(NamedTuple):
    """What a model says of one answer, row by row with transformers alone: log-probabilities and last hidden states [a], [a, D]."""

    logps: Tensor
    hidden: Tensor


def said(plain: Any, episode: Episode) -> Said:
    """Of the tokens of an answer."""
    row = torch.tensor([[*episode.prompt, *episode.answer]])
    output = plain(input_ids=row, output_hidden_states=True, use_cache=False)
    kept = slice(len(episode.prompt) - 1, -1)
    logps = torch.log_softmax(output.logits[0], -1)[kept].gather(-1, torch.tensor(episode.answer)[:, None])[:, 0]
    return Said(logps, output.hidden_states[-1][0, kept])
