"""Rules on the options of the training engine: number formats, data loader, what is kept, profiler."""

from __future__ import annotations

from tunewright.config.rules.rule import ONLINE, Broken, Case, Rule
from tunewright.config.table import table


def fp32_and_half(case: Case) -> str | None:
    precision = case.run.precision
    half = {"bf16": precision.bf16, "fp16": precision.fp16, "pure_bf16": precision.pure_bf16}
    found = [name for name, is_on in half.items() if is_on]
    return f"float32 is demanded, but {found[0]} is on" if precision.fp32 and found else None


def two_evaluation_formats(case: Case) -> str | None:
    precision = case.run.precision
    pairs = {"fp16_full_eval": (precision.fp16_full_eval, precision.bf16), "bf16_full_eval": (precision.bf16_full_eval, precision.fp16)}
    if precision.bf16_full_eval and precision.fp16_full_eval:
        return "bf16_full_eval and fp16_full_eval are both on"
    mixed = [name for name, both in pairs.items() if all(both)]
    return f"{mixed[0]} is on, but mixed precision computes in the other format" if mixed else None


def accelerator_only(case: Case) -> list[Broken]:
    if not case.run.run.use_cpu:
        return []
    precision = case.run.precision
    wanted = {"tf32": precision.tf32, "torch_empty_cache_steps": precision.torch_empty_cache_steps}
    return [Broken(field, "is for accelerators, but use_cpu is on") for field, value in wanted.items() if value]


def prefetch_without_workers(case: Case) -> str | None:
    batching = case.run.batching
    wanted = batching.dataloader_prefetch_factor is not None and batching.dataloader_num_workers == 0
    return "batches are prefetched by worker processes, but dataloader_num_workers is 0" if wanted else None


def grouping_in_file_order(case: Case) -> str | None:
    batching = case.run.batching
    sorts = batching.group_by_length or batching.sortish_sampler
    return "rows cannot both keep their order and be grouped by length" if batching.disable_shuffling and sorts else None


def two_orders_by_length(case: Case) -> str | None:
    batching = case.run.batching
    return "group_by_length is on too" if batching.sortish_sampler and batching.group_by_length else None


def tokens_of_new_answers(case: Case) -> str | None:
    run = case.run
    wanted = run.batching.micro_batch_tokens is not None and run.run.stage in ONLINE
    return f"stage is {run.run.stage}, whose answers are of no known length before they are given" if wanted else None


def tokens_and_found_size(case: Case) -> str | None:
    batching = case.run.batching
    both = batching.micro_batch_tokens is not None and batching.auto_find_batch_size
    return "says how large batches are, but auto_find_batch_size is to find out how many rows they have" if both else None


def nothing_kept(case: Case) -> str | None:
    checkpoints = case.run.checkpoints
    wanted = not checkpoints.save_hf_weights and checkpoints.save_strategy == "no"
    return "neither checkpoints nor final weights would be written" if wanted and case.run.run.do_train else None


def nothing_to_merge(case: Case) -> str | None:
    run = case.run
    merges = run.export.merge_lora_and_save and run.tuning.finetuning_type == "lora" and run.run.do_train
    return "merges the final adapter, but save_hf_weights is off" if merges and not run.checkpoints.save_hf_weights else None


def recomputing_nothing(case: Case) -> str | None:
    precision = case.run.precision
    is_on = precision.gradient_checkpointing or precision.gradient_checkpointing_auto
    wanted = precision.recompute_modules != table()["recompute_modules"].param.default
    return "names what is recomputed, but gradient_checkpointing is off" if wanted and not is_on else None


def no_profiled_step(case: Case) -> str | None:
    profiling = case.run.profiling
    wanted = profiling.profile and 0 <= profiling.profile_step_end <= profiling.profile_step_start
    return f"no step is from {profiling.profile_step_start} and before {profiling.profile_step_end}" if wanted else None


def profiled_ranks(case: Case) -> str | None:
    strange = [one for one in case.run.profiling.profile_ranks if not one.isdecimal()]
    return f"'{strange[0]}' is not the number of a rank" if strange else None


RULES = (
    Rule("fp32-and-half", ("fp32", "bf16", "fp16", "pure_bf16"), fp32_and_half, "keep one of them"),
    Rule("two-evaluation-formats", ("bf16_full_eval", "fp16_full_eval", "bf16", "fp16"), two_evaluation_formats, "keep one of them"),
    Rule("accelerator-only", ("tf32", "torch_empty_cache_steps", "use_cpu"), accelerator_only, "remove it"),
    Rule("prefetch-without-workers", ("dataloader_prefetch_factor", "dataloader_num_workers"), prefetch_without_workers,
         "set dataloader_num_workers: 1 or more, or remove it"),
    Rule("grouping-in-file-order", ("disable_shuffling", "group_by_length", "sortish_sampler"), grouping_in_file_order, "keep one of them"),
    Rule("two-orders-by-length", ("sortish_sampler", "group_by_length"), two_orders_by_length, "keep one of them"),
    Rule("tokens-of-new-answers", ("micro_batch_tokens", "stage"), tokens_of_new_answers, "remove it, or set a smaller "
         "per_device_train_batch_size", purposes=("train",)),
    Rule("tokens-and-found-size", ("micro_batch_tokens", "auto_find_batch_size"), tokens_and_found_size, "keep one of them",
         purposes=("train",)),
    Rule("nothing-kept", ("save_hf_weights", "save_strategy"), nothing_kept, "set save_hf_weights: true", purposes=("train",)),
    Rule("nothing-to-merge", ("merge_lora_and_save", "save_hf_weights", "finetuning_type"), nothing_to_merge,
         "set save_hf_weights: true", purposes=("train",)),
    Rule("recomputing-nothing", ("recompute_modules", "gradient_checkpointing"), recomputing_nothing,
         "set gradient_checkpointing: true (recompute in MindSpeed's vocabulary), or remove it", purposes=("train",)),
    Rule("no-profiled-step", ("profile_step_end", "profile_step_start"), no_profiled_step,
         "write -1 to record to the end, or a later step"),
    Rule("profiled-ranks", ("profile_ranks",), profiled_ranks, "write numbers from 0, such as 0,1; leave it out for every rank"),
)
