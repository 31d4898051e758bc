"""Prediction with a reward model: the reward of every answer of a set, in the order of its rows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tunewright.engine.batches import every_batch
from tunewright.engine.metrics import Metrics, mean_of_rows, speed
from tunewright.engine.number_formats import weights_in
from tunewright.engine.predict import PREDICTIONS_NAME
from tunewright.errors import NumericError, StorageError
from tunewright.kernels.probe import quiet_run
from tunewright.losses.reward import bradley_terry_loss
from tunewright.stages.reward_model import sequence_rewards

if TYPE_CHECKING:
    from torch import nn

    from tunewright.engine.batches import Examples
    from tunewright.engine.evaluate import EvaluationPlan

Rewards = tuple[float, ...]
"""Of one row: of the better and the worse answer, or of its one answer."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The rewards of each row in their order, the seconds it took, and the batches."""

    rows: tuple[Rewards, ...]
    runtime_s: float
    steps: int

    @classmethod
    def together(cls, several: Sequence[Scored]) -> Scored:
        """Those of several sets, one after the other."""
        return cls(tuple(row for one in several for row in one.rows), math.fsum(one.runtime_s for one in several),
                   sum(one.steps for one in several))

    def metrics(self, prefix: str) -> Metrics:
        """Of pairs what evaluation tells of them, and LLaMA-Factory's `accuracy`; of single answers the mean reward; and run time."""
        means = mean_of_rows([_of_pair(*row) if len(row) == 2 else {"reward": row[0]} for row in self.rows])
        return {f"{prefix}_{name}": value for name, value in means.items()} | speed(prefix, self.runtime_s, len(self.rows), self.steps)


def score(policy: nn.Module, examples: Examples, plan: EvaluationPlan) -> Scored:
    """Run the set through a reward model, its rows dealt out over the ranks; every rank gets all rewards.

    Raises NumericError for a reward that is not finite, with the samples among which it is.
    """
    started = time.perf_counter()
    mine: dict[int, Rewards] = {}
    steps = 0
    with quiet_run(policy), weights_in([policy], plan.dtype):
        for batch in every_batch(examples, plan.share, plan.loading):
            with plan.autocast():
                rewards = sequence_rewards(policy, batch.to(plan.device)).tolist()
            mine |= _by_sample(rewards, batch.sample_ids)
            steps += 1
    everyone = {number: row for part in plan.ranks.gather_objects(list(mine.items())) for number, row in part}
    return Scored(tuple(tuple(everyone[number]) for number in sorted(everyone)), time.perf_counter() - started, steps)


def write_scores(output_dir: Path, rows: Sequence[Rewards]) -> Path:
    """Write generated_predictions.jsonl: `{"chosen": ..., "rejected": ...}` for each pair, as LLaMA-Factory does but not rounded, and
    `{"score": ...}` for each single answer. Raises StorageError."""
    path = output_dir / PREDICTIONS_NAME
    names = {1: ("score",), 2: ("chosen", "rejected")}
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(dict(zip(names[len(row)], row, strict=True))) + "\n")
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=str(path), mend="free some space") from error
    return path


def _by_sample(rewards: Sequence[float], samples: tuple[int, ...]) -> dict[int, Rewards]:
    """The rewards of a batch by the number of the row; a stand-in batch has neither."""
    if not all(map(math.isfinite, rewards)):
        raise NumericError(f"a reward in samples {', '.join(map(str, samples[:8]))} is not finite", mend="the reward model is damaged: "
                           "use an earlier checkpoint")
    each = len(rewards) // len(samples) if samples else 1
    return {sample: tuple(rewards[each * place:each * (place + 1)]) for place, sample in enumerate(samples)}


def _of_pair(chosen: float, rejected: float) -> Metrics:
    one, other = torch.tensor(chosen, dtype=torch.float64), torch.tensor(rejected, dtype=torch.float64)
    wins = float(chosen > rejected)
    return {"loss": float(bradley_terry_loss(one, other)), "accuracy": wins, "rewards/accuracies": wins, "rewards/chosen": chosen,
            "rewards/rejected": rejected, "rewards/margins": chosen - rejected}
