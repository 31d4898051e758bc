"""From configuration groups to the values the loop works with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tunewright.data.collate import collate_flat, collate_padded
from tunewright.engine.batches import Collate, Examples, Loading, Order, Share, TrainBatches
from tunewright.engine.cadence import Cadence, total_steps
from tunewright.engine.loop import Best, Timetable
from tunewright.errors import LostRankError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from tunewright.config.optimization import BatchingConfig
    from tunewright.config.run import RunConfig
    from tunewright.runtime import Ranks


def accelerator_for(run: RunConfig, ranks: Ranks) -> Accelerator:
    """accelerate's Accelerator: device, mixed precision and DDP as the run asks for them.

    Without an accelerator it must be told to use the CPU: it would otherwise take each of several ranks for a lone process, and
    their gradients would never meet.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    precision = "bf16" if run.precision.bf16 else "fp16" if run.precision.fp16 else "no"
    unused = bool(run.parallel.ddp_find_unused_parameters)
    accelerator = Accelerator(
        cpu=run.run.use_cpu or not torch.accelerator.is_available(), mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)])
    if accelerator.num_processes != ranks.world_size:
        raise LostRankError(f"accelerate sees {accelerator.num_processes} of {ranks.world_size} ranks")
    return accelerator


def collation(flat: bool, pad_token_id: int) -> Collate:
    """How examples become a batch: laid end to end, or padded."""
    return collate_flat if flat else partial(collate_padded, pad_token_id=pad_token_id)


def training_batches(run: RunConfig, examples: Examples, collate: Collate, ranks: Ranks) -> TrainBatches:
    """The run's batches for this rank."""
    seed = run.run.seed if run.run.data_seed is None else run.run.data_seed
    return TrainBatches(
        examples, Order(seed, run.batching.group_by_length),
        share(run.batching.per_device_train_batch_size, run.batching.gradient_accumulation_steps, ranks),
        loading(run.batching, collate))


def share(per_device: int, accumulation: int, ranks: Ranks) -> Share:
    """This rank's part of every batch."""
    return Share(per_device, accumulation, ranks.rank, ranks.world_size)


def loading(batching: BatchingConfig, collate: Collate) -> Loading:
    """How batches are made."""
    return Loading(collate, batching.dataloader_num_workers, batching.dataloader_timeout_s)


def timetable(run: RunConfig, steps_per_epoch: int) -> Timetable:
    """When the run logs, evaluates, saves and ends. `run` is resolved: derived values are filled in."""
    total = total_steps(steps_per_epoch, run.batching.num_train_epochs, run.batching.max_steps)
    every_evaluation = run.evaluation.eval_steps if run.evaluation.eval_steps is not None else run.logging.logging_steps
    return Timetable(
        total_steps=total,
        logging=Cadence.of(run.logging.logging_strategy, run.logging.logging_steps, total),
        evaluation=Cadence.of(run.evaluation.eval_strategy, every_evaluation, total),
        saving=Cadence.of(run.checkpoints.save_strategy, run.checkpoints.save_steps, total),
        first_evaluation=run.evaluation.eval_delay,
        log_first_step=run.logging.logging_first_step,
        evaluate_first=run.evaluation.eval_on_start,
        best=best_metric(run))


def best_metric(run: RunConfig) -> Best:
    """The metric that decides the best evaluation; `eval_` in front of its name may be left out."""
    name = run.checkpoints.metric_for_best_model or "loss"
    metric = name if name.startswith("eval_") else f"eval_{name}"
    greater = run.checkpoints.greater_is_better
    return Best(
        metric=metric,
        greater_is_better=not metric.endswith("loss") if greater is None else greater,
        keep=run.checkpoints.load_best_model_at_end,
        patience=run.checkpoints.early_stopping_patience,
        threshold=run.checkpoints.early_stopping_threshold)

