"""From configuration groups to the values the loop works with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tunewright.config.derive import data_seed
from tunewright.data.collate import collate_flat, collate_flat_shared, collate_padded, positions_of_rows, positions_run_on
from tunewright.data.collate_feedback import WithPartners, collate_feedback_flat, collate_feedback_padded
from tunewright.data.collate_pairs import collate_pairs_flat, collate_pairs_padded, collate_pairs_shared
from tunewright.data.collate_prompts import collate_prompts_left
from tunewright.data.micro_batches import Budget
from tunewright.data.records import IGNORE_INDEX
from tunewright.data.streaming.stream import Stream
from tunewright.engine.batches import Collate, Examples, Loading, Order, Share, TrainBatches
from tunewright.engine.cadence import Cadence, total_steps
from tunewright.engine.loop import Best, Timetable
from tunewright.engine.streams import StreamBatches
from tunewright.errors import InputError, LostRankError
from tunewright.stages.stage import ExampleKind

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn

    from tunewright.config.checkpoints import LoggingConfig
    from tunewright.config.optimization import BatchingConfig
    from tunewright.config.run import RunConfig
    from tunewright.engine.hooks import StepHook
    from tunewright.engine.metrics import Metrics
    from tunewright.engine.neftune import EmbeddingNoise
    from tunewright.engine.progress import Position
    from tunewright.kernels.plan import KernelPlan
    from tunewright.runtime import Ranks


def accelerator_for(run: RunConfig, ranks: Ranks) -> Accelerator:
    """accelerate's Accelerator: device, mixed precision and DDP as the run asks for them.

    Without an accelerator it must be told to use the CPU: it would otherwise take each of several ranks for a lone process, and
    their gradients would never meet.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    precision = "bf16" if run.precision.bf16 else "fp16" if run.precision.fp16 else "no"
    choices = {"find_unused_parameters": run.parallel.ddp_find_unused_parameters, "bucket_cap_mb": run.parallel.ddp_bucket_cap_mb,
               "broadcast_buffers": run.parallel.ddp_broadcast_buffers}
    chosen: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    accelerator = Accelerator(
        cpu=run.run.use_cpu or not torch.accelerator.is_available(), mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(**chosen)])
    if accelerator.num_processes != ranks.world_size:
        raise LostRankError(f"accelerate sees {accelerator.num_processes} of {ranks.world_size} ranks")
    return accelerator


def collation(flat: bool, pad_token_id: int, *, shares: bool = False) -> Collate:
    """How examples become a batch: laid end to end, where rows may share what they begin with alike, or padded."""
    if shares:
        return collate_flat_shared
    return collate_flat if flat else partial(collate_padded, pad_token_id=pad_token_id)


def training_collation(run: RunConfig, flat: bool, pad_token_id: int, *, shares: bool = False) -> Collate:
    """The same for training, where padding may be trained too."""
    if flat:
        return collation(flat, pad_token_id, shares=shares)
    pad_label = IGNORE_INDEX if run.loss.ignore_pad_token_for_loss else pad_token_id
    positions = positions_run_on if run.model.flash_attn == "fa2" else positions_of_rows
    return partial(collate_padded, pad_token_id=pad_token_id, pad_label=pad_label, positions=positions)


def stage_collation(run: RunConfig, kind: ExampleKind, kernels: KernelPlan, pad_token_id: int) -> Collate:
    """How the training examples of a stage become a batch, on the layout that the kernels read."""
    if kind.guesses_tokens:
        return training_collation(run, kernels.flat, pad_token_id, shares=kernels.shares_prefixes)
    return answer_collation(run, kind, kernels, pad_token_id)


def evaluation_collation(run: RunConfig, kind: ExampleKind, kernels: KernelPlan, pad_token_id: int) -> Collate:
    """The same for evaluation, where no padding is trained."""
    if kind.guesses_tokens:
        return collation(kernels.flat, pad_token_id, shares=kernels.shares_prefixes)
    return answer_collation(run, kind, kernels, pad_token_id)


def answer_collation(run: RunConfig, kind: ExampleKind, kernels: KernelPlan, pad_token_id: int) -> Collate:
    """How pairs, marked answers or prompts become a batch. Prompts are padded on the left, as generation reads them."""
    if kind is ExampleKind.PREFERENCE:
        if kernels.shares_prefixes:
            return collate_pairs_shared
        return collate_pairs_flat if kernels.flat else partial(collate_pairs_padded, pad_token_id=pad_token_id)
    if kind is ExampleKind.FEEDBACK:
        cutoff_len = run.data.cutoff_len
        return WithPartners(partial(collate_feedback_flat, cutoff_len=cutoff_len) if kernels.flat else partial(
            collate_feedback_padded, cutoff_len=cutoff_len, pad_token_id=pad_token_id))
    return partial(collate_prompts_left, pad_token_id=pad_token_id)


def training_batches(
    run: RunConfig, examples: Examples | Stream, collate: Collate, ranks: Ranks, *, flat: bool = True,
) -> TrainBatches | StreamBatches:
    """The run's batches for this rank, laid end to end where they are `flat`. A step of ppo has those of all mini-batches that it
    collects."""
    collected = run.alignment.ppo_buffer_size if run.run.stage == "ppo" else 1
    accumulation = run.batching.gradient_accumulation_steps * collected
    if isinstance(examples, Stream):
        return StreamBatches(
            examples, share(run.batching.per_device_train_batch_size, accumulation, ranks),
            loading(run.batching, collate, pinned=is_pinned(run)), run.batching.dataloader_drop_last)
    seed = data_seed(run)
    batching = run.batching
    batches = TrainBatches(
        examples, Order(seed, batching.group_by_length, not batching.disable_shuffling, batching.sortish_sampler),
        share(batching.per_device_train_batch_size, accumulation, ranks),
        loading(batching, collate, pinned=is_pinned(run)), batching.dataloader_drop_last,
        Budget.of(batching.micro_batch_tokens, flat=flat))
    if batches.steps_per_epoch == 0:
        raise InputError(f"dataloader_drop_last: the {len(examples)} training samples do not fill one optimizer step of "
                         f"{batches.samples_per_step}", mend="set dataloader_drop_last: false, or a smaller batch")
    return batches


def share(per_device: int, accumulation: int, ranks: Ranks) -> Share:
    """This rank's part of every batch."""
    return Share(per_device, accumulation, ranks.rank, ranks.world_size)


def loading(batching: BatchingConfig, collate: Collate, *, pinned: bool = False) -> Loading:
    """How batches are made."""
    return Loading(collate, batching.dataloader_num_workers, batching.dataloader_timeout_s, batching.dataloader_prefetch_factor, pinned)


def is_pinned(run: RunConfig) -> bool:
    """Whether batches are made in page-locked memory: as the run says, where there is an accelerator to copy from it."""
    import torch

    return run.batching.dataloader_pin_memory and torch.accelerator.is_available() and not run.run.use_cpu


def hooks(run: RunConfig, model: nn.Module, device: torch.device, ranks: Ranks) -> tuple[StepHook, ...]:
    """What watches the run besides the session itself."""
    from tunewright.engine.memory import MemoryGrowth, ReserveReturned
    from tunewright.engine.overflow import OverflowWatch
    from tunewright.engine.profiling import profiler_for

    return tuple(hook for hook in (
        OverflowWatch(model, ranks) if "underflow_overflow" in run.profiling.debug else None,
        None if run.profiling.skip_memory_metrics else MemoryGrowth(device),
        ReserveReturned(run.precision.torch_empty_cache_steps) if run.precision.torch_empty_cache_steps else None,
        profiler_for(run.profiling, device, ranks)) if hook is not None)


def logged_too(logging: LoggingConfig) -> Callable[[Position], Metrics]:
    """What goes into every log entry besides what is measured there."""
    figures: dict[str, Callable[[Position], float]] = {}
    if logging.include_tokens_per_second:
        figures["tokens_per_second"] = lambda position: round(position.tokens_per_second, 3)
    if logging.include_num_input_tokens_seen:
        figures["num_input_tokens_seen"] = lambda position: position.total_tokens
    return lambda position: {name: figure(position) for name, figure in figures.items()}


def noise(run: RunConfig, model: nn.Module) -> EmbeddingNoise | None:
    """The noise on the model's embeddings, if the run wants it."""
    from tunewright.engine.neftune import EmbeddingNoise

    if run.loss.neftune_noise_alpha is None:
        return None
    embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    return EmbeddingNoise(embedding, run.loss.neftune_noise_alpha, run.run.seed)


def timetable(run: RunConfig, steps_per_epoch: int) -> Timetable:
    """When the run logs, evaluates, saves and ends. `run` is resolved: derived values are filled in."""
    total = total_steps(steps_per_epoch, run.batching.num_train_epochs, run.batching.max_steps)
    every_evaluation = run.evaluation.eval_steps if run.evaluation.eval_steps is not None else run.logging.logging_steps
    return Timetable(
        total_steps=total,
        logging=Cadence.of(run.logging.logging_strategy, run.logging.logging_steps, total),
        evaluation=Cadence.of(run.evaluation.eval_strategy, every_evaluation, total),
        saving=Cadence.of(run.checkpoints.save_strategy, run.checkpoints.save_steps, total),
        save_epochs=run.checkpoints.save_epochs if run.checkpoints.save_strategy == "steps" else None,
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

