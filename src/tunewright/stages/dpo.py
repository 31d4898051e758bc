"""Preferences between two answers to a prompt: DPO (Rafailov et al. 2023, arXiv 2305.18290) and its relatives, chosen by `pref_loss`.

Axes: N sequences of a batch, chosen and rejected by turns; P = N / 2 pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import torch

from tunewright.config.alignment import WITHOUT_REFERENCE, AlignmentConfig
from tunewright.losses import preference
from tunewright.losses.kto import kl_estimate
from tunewright.losses.logps import count_by_owner
from tunewright.stages.reference import quiet_logps, reference_logps
from tunewright.stages.sequence_logps import sequence_logps, sequences_of
from tunewright.stages.stage import ExampleKind, Loss, Models, Role, StepContext

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch

_AVERAGED = ("ipo", "orpo", "simpo")
"""Formulas over the mean of an answer's token log-probabilities; the others read their sum."""

_MEASURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")
_OF_ORPO = ("sft_loss", "odds_ratio_loss")


@dataclass(frozen=True, slots=True)
class PreferenceOptimization:
    """`stage: dpo`. The unit is the pair."""

    settings: AlignmentConfig
    name: str = "dpo"
    examples: ExampleKind = ExampleKind.PREFERENCE

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """The stage as the run wants it."""
        return cls(run.alignment)

    @property
    def roles(self) -> frozenset[Role]:
        """The policy, and the reference unless the formula has none."""
        return frozenset({Role.POLICY} if self.settings.pref_loss in WITHOUT_REFERENCE else {Role.POLICY, Role.REFERENCE})

    @property
    def measures(self) -> tuple[str, ...]:
        """Means over pairs."""
        return (*_MEASURES, *(_OF_ORPO if self.settings.pref_loss == "orpo" else ()))

    @property
    def rows_interact(self) -> bool:
        """Only KTO on pairs takes a divergence over the whole step."""
        return self.settings.pref_loss == "kto_pair"

    def units(self, batch: Batch) -> int:
        """Pairs."""
        return sequences_of(batch).count // 2

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """One update, of the batches with what the reference says of their answers."""
        if Role.REFERENCE in self.roles:
            batches = [replace(batch, reference=reference_logps(models, batch)) for batch in batches]
        if self.rows_interact:
            kl = _divergences(models, batches, context)
            batches = [replace(batch, kl=kl.to(batch.input_ids.device)) for batch in batches]
        yield batches

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sum of the formula over pairs; with `pref_ftx`, of that and the weighted mean cross-entropy of the chosen answer."""
        sequences = sequences_of(batch)
        sums = sequence_logps(models[Role.POLICY], batch)
        lengths = count_by_owner(sequences.owners, sequences.count).clamp(min=1)
        means = sums / lengths
        read = means if self.settings.pref_loss in _AVERAGED else sums
        reference = None if batch.reference is None else batch.reference / lengths if read is means else batch.reference
        pairs = Pairs.of(read if reference is None else read - reference)
        losses = self._losses(pairs, batch.kl)
        if self.settings.pref_ftx:
            losses = losses - self.settings.pref_ftx * means[0::2]
        return Loss(losses.sum(), sequences.count // 2, self._metrics(pairs.detach(), Pairs.of(read.detach())))

    def _losses(self, pairs: Pairs, kl: Tensor | None) -> Tensor:
        """[P] of log-ratios to the reference, or of the policy's own log-probabilities."""
        chosen, rejected = pairs
        settings, beta = self.settings, self.settings.pref_beta
        match settings.pref_loss:
            case "sigmoid":
                return preference.sigmoid_loss(chosen, rejected, beta, settings.dpo_label_smoothing)
            case "robust":
                return preference.robust_loss(chosen, rejected, beta, settings.dpo_label_smoothing)
            case "hinge":
                return preference.hinge_loss(chosen, rejected, beta)
            case "ipo":
                return preference.ipo_loss(chosen, rejected, beta)
            case "orpo":
                return preference.orpo_loss(chosen, rejected, beta)
            case "simpo":
                return preference.simpo_loss(chosen, rejected, beta, settings.simpo_gamma)
            case "kto_pair":
                assert kl is not None, "the step's divergences come with its batches"
                return preference.kto_pair_loss(chosen, rejected, beta, kl[0], kl[1])
            case other:
                raise ValueError(f"pref_loss {other}")

    def _metrics(self, pairs: Pairs, logps: Pairs) -> Mapping[str, tuple[float, float]]:
        """Sums over pairs, with their number."""
        chosen, rejected = (preference.implicit_rewards(one, self.settings.pref_beta) for one in pairs)
        found = [chosen, rejected, (chosen > rejected).to(chosen.dtype), chosen - rejected, *logps]
        if self.settings.pref_loss == "orpo":
            found += [-logps.chosen, preference.odds_ratio_loss(*logps)]
        sums = torch.stack([one.sum() for one in found]).tolist()
        return {name: (total, len(chosen)) for name, total in zip(self.measures, sums, strict=True)}


class Pairs(NamedTuple):
    """A number for each chosen and each rejected answer: [P], [P]."""

    chosen: Tensor
    rejected: Tensor

    @classmethod
    def of(cls, sequences: Tensor) -> Pairs:
        """[N] -> [P], [P]."""
        return cls(sequences[0::2], sequences[1::2])

    def detach(self) -> Pairs:
        """The same without a gradient."""
        return Pairs(self.chosen.detach(), self.rejected.detach())


def _divergences(models: Models, batches: Sequence[Batch], context: StepContext) -> Tensor:
    """[2]: the estimate for chosen and for rejected answers, over all batches of the step and all ranks; without dropout."""
    sums = [0.0, 0.0, 0.0]
    for batch in batches:
        assert batch.reference is not None, "KTO compares with a reference"
        ratios = Pairs.of((quiet_logps(models[Role.POLICY], batch) - batch.reference).double())
        sums = [sums[0] + float(ratios.chosen.sum()), sums[1] + float(ratios.rejected.sum()), sums[2] + len(ratios.chosen)]
    chosen, rejected, count = context.ranks.all_reduce_sum(sums)
    return kl_estimate(torch.tensor([chosen, rejected], dtype=torch.float64), torch.tensor(count))
