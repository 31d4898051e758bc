"""Single answers marked desirable or undesirable: KTO (Ethayarajh et al. 2024, arXiv 2402.01306).

A batch holds R rows and behind them, as sequences R to 2R - 1, their prompts with the answers of other rows. From those the divergence
from the reference is estimated, once for the whole optimizer step over all ranks; the loss is over the rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch

from tunewright.config.alignment import AlignmentConfig
from tunewright.losses.kto import kl_estimate, kto_loss
from tunewright.stages.reference import quiet_logps, reference_logps
from tunewright.stages.sequence_logps import sequence_logps, sequences_of
from tunewright.stages.stage import ExampleKind, Loss, Models, Role, StepContext

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch


@dataclass(frozen=True, slots=True)
class FeedbackOptimization:
    """`stage: kto`. The unit is the row."""

    settings: AlignmentConfig
    name: str = "kto"
    roles: frozenset[Role] = frozenset({Role.POLICY, Role.REFERENCE})
    examples: ExampleKind = ExampleKind.FEEDBACK
    measures: tuple[str, ...] = ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "kl")
    rows_interact: bool = True

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """The stage as the run wants it."""
        return cls(run.alignment)

    def units(self, batch: Batch) -> int:
        """Rows."""
        return len(_marks(batch))

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """One update, of the rows alone, with what the reference says of them and the divergence over the whole step and all ranks."""
        total, count, ready = 0.0, 0.0, []
        for batch in batches:
            reference, rows = reference_logps(models, batch), self.units(batch)
            others = sequences_from(batch, rows, 2 * rows)
            total += float((quiet_logps(models[Role.POLICY], others) - reference[rows:]).double().sum())
            count += rows
            ready.append(replace(sequences_from(batch, 0, rows), reference=reference[:rows]))
        total, count = context.ranks.all_reduce_sum([total, count])
        kl = kl_estimate(torch.tensor([total], dtype=torch.float64), torch.tensor(count))
        yield [replace(batch, kl=kl.to(batch.input_ids.device)) for batch in ready]

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sum over rows."""
        assert batch.reference is not None and batch.kl is not None, "the step's reference and divergence come with its batches"
        settings, desirable = self.settings, _marks(batch) > 0
        logps = sequence_logps(models[Role.POLICY], batch)
        ratios = logps - batch.reference
        losses = kto_loss(ratios, desirable, batch.kl[0].to(ratios.dtype), settings.pref_beta, settings.kto_chosen_weight,
                          settings.kto_rejected_weight)
        return Loss(losses.sum(), len(desirable), self._metrics(settings.pref_beta * ratios.detach(), logps.detach(), batch))

    def _metrics(self, rewards: Tensor, logps: Tensor, batch: Batch) -> Mapping[str, tuple[float, float]]:
        """Sums over desirable or undesirable rows, with their number; the divergence is the same for all rows of a step."""
        desirable = (_marks(batch) > 0).to(rewards.dtype)
        parts = [rewards * desirable, rewards * (1 - desirable), logps * desirable, logps * (1 - desirable), desirable]
        *sums, chosen = torch.stack([one.sum() for one in parts]).tolist()
        rejected = len(rewards) - chosen
        assert batch.kl is not None
        kl = (float(batch.kl[0]) * len(rewards), float(len(rewards)))
        counts = (chosen, rejected, chosen, rejected)
        return dict(zip(self.measures, [*zip(sums, counts, strict=True), kl], strict=True))


def sequences_from(batch: Batch, first: int, end: int) -> Batch:
    """The rows of sequences [first, end) as a batch; sequence n is row n. A batch without sequences, which a rank runs when it has no
    rows left, stays as it is."""
    aims = sequences_of(batch)
    if aims.count == 0:
        return batch
    if batch.bounds is None:
        begin, rows = first * batch.input_ids.shape[1], slice(first, end)
        cut = replace(batch, input_ids=batch.input_ids[rows], targets=batch.targets[rows], position_ids=batch.position_ids[rows],
                      attention_mask=None if batch.attention_mask is None else batch.attention_mask[rows])
    else:
        begin, places = int(batch.bounds[first]), slice(int(batch.bounds[first]), int(batch.bounds[end]))
        cut = replace(batch, input_ids=batch.input_ids[:, places], targets=batch.targets[:, places],
                      position_ids=batch.position_ids[:, places], bounds=batch.bounds[first:end + 1] - begin)
    kept = (aims.owners >= first) & (aims.owners < end)
    return replace(cut, sequences=replace(aims, positions=aims.positions[kept] - begin, targets=aims.targets[kept],
                                          owners=aims.owners[kept] - first, count=end - first))


def _marks(batch: Batch) -> Tensor:
    assert batch.marks is not None, "feedback marks each row"
    return batch.marks
