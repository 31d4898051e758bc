"""Optimizer, schedule and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.config.optimizer_names import OPTIMIZERS, REFUSED_OPTIMIZERS, REFUSED_SCHEDULES
from tunewright.config.param import Alias, param


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become updates."""

    optim: str = param(
        "adamw_torch_fused", "Optimizer; names with 8bit or 32bit, lion, ademamix and rmsprop_bnb need bitsandbytes.", choices=OPTIMIZERS,
        refused_values=REFUSED_OPTIMIZERS,
        llamafactory=(Alias("optim", default="adamw_torch", convert="optimizer_today"), Alias("adafactor", convert="adafactor_switch")),
        sft_json=Alias("optim", default="paged_adamw_32bit", convert="optimizer_today"),
        qlora_script=Alias("optim", default="paged_adamw_8bit", convert="optimizer_today"),
        mindspeed_fsdp2=Alias("optimizer", default="adamw_torch", convert="optimizer_name", choices=("adamw_torch",)))
    learning_rate: float = param(
        1e-4, "Peak learning rate.", above=0, maximum=100, llamafactory=Alias("learning_rate", default=5e-5),
        cli_reference=Alias("learning_rate", default=5e-05), sft_json=Alias("learning_rate", default=0.0002),
        qlora_script="learning_rate", mindspeed_fsdp2=Alias("lr", default=1e-05))
    weight_decay: float = param(
        0.0, "Weight decay, decoupled (Loshchilov & Hutter 2017) save in sgd, adagrad and rmsprop, which add it to the gradient; not "
        "applied to biases and norms.", minimum=0, maximum=10,
        llamafactory="weight_decay",
        cli_reference="weight_decay", sft_json="weight_decay", qlora_script="weight_decay",
        mindspeed_fsdp2=Alias("weight_decay", default=0.01))
    adam_beta1: float = param(0.9, "Decay of the first moment.", minimum=0, below=1, llamafactory="adam_beta1",
        cli_reference="adam_beta1", mindspeed_fsdp2="adam_beta1")
    adam_beta2: float = param(0.999, "Decay of the second moment.", minimum=0, below=1, llamafactory="adam_beta2",
        cli_reference="adam_beta2", mindspeed_fsdp2=Alias("adam_beta2", default=0.95))
    adam_epsilon: float = param(1e-8, "Added to the denominator of the update.", above=0, maximum=1,
        llamafactory="adam_epsilon",
        cli_reference="adam_epsilon", mindspeed_fsdp2="adam_epsilon")
    max_grad_norm: float = param(
        1.0, "Gradients are scaled down to this total norm; 0 leaves them alone.", minimum=0, maximum=1e6,
        llamafactory="max_grad_norm",
        cli_reference="max_grad_norm", sft_json=Alias("max_grad_norm", default=0.3),
        qlora_script=Alias("max_grad_norm", default=0.3), mindspeed_fsdp2="max_grad_norm")
    max_nonfinite_steps: int = param(
        3, "Steps in a row with a loss or gradient that is not finite at which the run stops; those before are not applied, and the "
        "schedule goes on. 1 stops at the first.", unit="steps", minimum=1, maximum=10000)
    optim_args: Mapping[str, Any] | None = param(
        None, "Further arguments of the optimizer.", llamafactory=Alias("optim_args", convert="mapping"),
        example="scale_parameter=False")
    use_galore: bool = param(
        False, "GaLore: AdamW on gradients projected to low rank, which shrinks its state (Zhao et al. 2024).",
        llamafactory="use_galore")
    galore_target: tuple[str, ...] = param(
        ("all",), "Linear layers that GaLore projects: names, regular expressions, or all (but the output head).",
        llamafactory=("galore_target", Alias("optim_target_modules", convert="null_is_absent")), example="q_proj,v_proj")
    galore_rank: int = param(16, "Rank that GaLore projects gradients to.", minimum=1, maximum=2**20, llamafactory="galore_rank")
    galore_update_interval: int = param(
        200, "Steps after which GaLore takes a new projection from the gradient.", unit="steps", minimum=1, maximum=2**31,
        llamafactory="galore_update_interval")
    galore_scale: float = param(
        0.25, "Factor of an update that GaLore projects back.", above=0, maximum=1e4, llamafactory="galore_scale")
    galore_proj_type: str = param(
        "std", "Side that GaLore projects: std the shorter one, reverse_std the longer one, left the rows, right the columns, full both.",
        choices=("std", "reverse_std", "right", "left", "full"), llamafactory="galore_proj_type")
    use_badam: bool = param(
        False, "BAdam: AdamW on one block of the model at a time, which shrinks its state (Luo et al. 2024).", llamafactory="use_badam")
    badam_mode: str = param(
        "layer", "Blocks of BAdam: one decoder layer, or a part of the numbers of every weight.", choices=("layer", "ratio"),
        llamafactory="badam_mode")
    badam_start_block: int | None = param(
        None, "Decoder layer that BAdam trains first; absent means the first in the order of visits.", minimum=0, maximum=2**20,
        llamafactory="badam_start_block")
    badam_switch_mode: str = param(
        "ascending", "Order in which BAdam visits the decoder layers.", choices=("ascending", "descending", "random", "fixed"),
        llamafactory="badam_switch_mode")
    badam_switch_interval: int = param(
        50, "Steps that BAdam spends on one block; -1 never leaves the first.", unit="steps", minimum=-1, maximum=2**31,
        llamafactory="badam_switch_interval")
    badam_update_ratio: float = param(
        0.05, "Part of the numbers of each weight that BAdam trains in mode ratio.", above=0, maximum=1, llamafactory="badam_update_ratio")
    badam_mask_mode: str = param(
        "adjacent", "Whether the numbers that BAdam trains in mode ratio lie side by side or scattered.", choices=("adjacent", "scatter"),
        llamafactory="badam_mask_mode")
    badam_verbose: int = param(
        0, "What BAdam tells at each switch of blocks: 0 nothing, 1 the block, 2 its weights too.", choices=(0, 1, 2), recorded=False,
        llamafactory="badam_verbose")
    use_adam_mini: bool = param(
        False, "Adam-mini: one second moment for each head or row of a weight (Zhang et al. 2024).", llamafactory="use_adam_mini")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run."""

    lr_scheduler_type: str = param(
        "cosine", "Shape of the learning rate over the run.",
        choices=("linear", "cosine", "cosine_with_restarts", "cosine_with_min_lr", "polynomial", "constant",
                 "constant_with_warmup", "inverse_sqrt", "warmup_stable_decay"),
        refused_values=REFUSED_SCHEDULES, llamafactory=Alias("lr_scheduler_type", default="linear"),
        cli_reference=Alias("lr_scheduler_type", choices=(
            "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")),
        sft_json=Alias("lr_scheduler_type", default="constant_with_warmup"), qlora_script="lr_scheduler_type",
        mindspeed_fsdp2=Alias("lr_scheduler_type", choices=("cosine", "linear", "constant")))
    lr_scheduler_kwargs: Mapping[str, Any] | None = param(
        None, "Further arguments of the schedule: num_cycles, min_lr, min_lr_rate, power, lr_end, timescale, num_stable_steps, "
        "num_decay_steps, min_lr_ratio, warmup_type, decay_type.",
        llamafactory=Alias("lr_scheduler_kwargs", convert="mapping"), example='{"num_cycles": 2}')
    min_lr: float | None = param(
        None, "Learning rate that the schedule cosine falls to; absent means zero.", minimum=0, maximum=100,
        mindspeed_fsdp2=Alias("min_lr", default=1e-6, convert="least_rate"))
    warmup_ratio: float = param(
        0.0, "Part of the run over which the learning rate rises from zero.", minimum=0, maximum=1, llamafactory="warmup_ratio",
        cli_reference=Alias("warmup_ratio", default=0.03), qlora_script=Alias("warmup_ratio", default=0.03),
        mindspeed_fsdp2=Alias("warmup_ratio", default=0.03))
    warmup_steps: int = param(
        0, "Steps over which the learning rate rises from zero; a positive number wins over warmup_ratio.", unit="steps",
        minimum=0, llamafactory="warmup_steps",
        cli_reference="warmup_steps", sft_json=Alias("warmup_steps", default=100))


@dataclass(frozen=True, kw_only=True)
class BatchingConfig:
    """Batch sizes and the length of the run."""

    per_device_train_batch_size: int = param(
        4, "Rows (or packed sequences) per device in one forward pass.", unit="rows", minimum=1, maximum=2**20,
        llamafactory=(Alias("per_device_train_batch_size", default=8), Alias("per_gpu_train_batch_size",
        convert="null_is_absent", deprecated=True)),
        cli_reference=Alias("per_device_train_batch_size", default=8),
        sft_json=Alias("per_device_train_batch_size", default=1), qlora_script="batch_size",
        mindspeed_fsdp2=Alias("per_device_train_batch_size", default=8))
    micro_batch_tokens: int | None = param(
        None, "Most tokens of one forward pass. The rows of an optimizer step (per_device_train_batch_size x gradient_accumulation_steps "
        "of them on each device) are divided by it, in their order, instead of by their number; a longer row is a forward pass of its own. "
        "Steps, their rows and their loss stay the same. Padding counts where there is any.", unit="tokens", minimum=1, maximum=2**31,
        example="16384")
    per_device_eval_batch_size: int = param(
        8, "The same in evaluation and prediction.", unit="rows", minimum=1, maximum=2**20,
        llamafactory=("per_device_eval_batch_size", Alias("per_gpu_eval_batch_size",
        convert="null_is_absent", deprecated=True)), recorded=False,
        cli_reference="per_device_eval_batch_size")
    gradient_accumulation_steps: int = param(
        1, "Forward passes per optimizer step.", minimum=1, maximum=2**20, llamafactory="gradient_accumulation_steps",
        cli_reference="gradient_accumulation_steps", sft_json=Alias("gradient_accumulation_steps", default=16),
        qlora_script="gradient_accumulation_steps", mindspeed_fsdp2="gradient_accumulation_steps")
    num_train_epochs: float = param(
        3.0, "Passes over the training set.", unit="epochs", above=0, maximum=1e6, llamafactory="num_train_epochs",
        cli_reference="num_train_epochs", sft_json=Alias("num_train_epochs", default=1.0),
        qlora_script=Alias("n_epochs", default=5.0), mindspeed_fsdp2="num_train_epochs")
    max_steps: int = param(
        -1, "Optimizer steps of the run; a positive number wins over num_train_epochs.", unit="steps", minimum=-1,
        llamafactory="max_steps",
        cli_reference="max_steps", mindspeed_fsdp2="max_steps")
    auto_find_batch_size: bool = param(
        False, "Where memory does not suffice, take smaller batches and as many more of them in a step: the planner chooses the first "
        "size, and running out of memory halves it. The optimizer step sees the same rows.", llamafactory="auto_find_batch_size",
        recorded=False)
    group_by_length: bool = param(
        False, "Put rows of like length into one batch; the batches come in random order.",
        llamafactory=("group_by_length", Alias("train_sampling_strategy", convert="sampling_strategy", today=True)),
        qlora_script=Alias("group_by_length", default=True))
    sortish_sampler: bool = param(
        False, "Sort rows by length within 50 batches of random rows at a time, so that batches grow shorter from step to step; "
        "group_by_length has them in random order.", llamafactory="sortish_sampler")
    padding_free: bool | None = param(
        None, "Concatenate the rows of a batch instead of padding them; attention stays inside each row, and the same is computed. Absent "
        "means wherever the model can and padding is not trained.", example="false")
    dataloader_num_workers: int = param(
        0, "Processes that prepare batches.", minimum=0, maximum=512, llamafactory="dataloader_num_workers", recorded=False,
        cli_reference="dataloader_num_workers", sft_json="dataloader_num_workers",
        mindspeed_fsdp2="dataloader_num_workers")
    dataloader_prefetch_factor: int | None = param(
        None, "Batches that each of these processes prepares ahead; absent means torch's own number, 2.", minimum=1, maximum=1024,
        llamafactory="dataloader_prefetch_factor", recorded=False,
        mindspeed_fsdp2="dataloader_prefetch_factor")
    dataloader_pin_memory: bool = param(
        True, "Prepare batches in memory that an accelerator can copy from at full speed; without one nothing is pinned.",
        llamafactory=("dataloader_pin_memory", Alias("no_dataloader_pin_memory", convert="negate")), recorded=False,
        only_on="an accelerator",
        cli_reference="dataloader_pin_memory", mindspeed_fsdp2="dataloader_pin_memory")
    dataloader_drop_last: bool = param(
        False, "Leave out the last rows of each epoch where they do not fill an optimizer step.", llamafactory="dataloader_drop_last",
        mindspeed_fsdp2="dataloader_drop_last")
    disable_shuffling: bool = param(
        False, "Train on the rows in the order of the files, in every epoch.", mindspeed_fsdp2="disable_shuffling",
        llamafactory=Alias("disable_shuffling", today=True))
    dataloader_timeout_s: int = param(
        600, "Longest wait for a batch before the run stops and names the row.", unit="seconds", minimum=1, maximum=86400,
        recorded=False)


@dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Number formats and activation memory."""

    bf16: bool = param(False, "Mixed precision with bfloat16.", llamafactory="bf16",
        cli_reference="bf16")
    fp16: bool = param(False, "Mixed precision with float16 and loss scaling.", only_on="an accelerator", llamafactory="fp16",
        cli_reference="fp16", sft_json=Alias("fp16", default=True), qlora_script="fp16")
    pure_bf16: bool = param(
        False, "Keep the weights themselves in bfloat16.", llamafactory="pure_bf16",
        refused_values={"fp16": "an update of a float16 weight is often too small to change it; fp16 keeps weights in float32"},
        mindspeed_fsdp2=Alias("param_dtype", default=True, convert="bf16_weights"))
    fp32: bool = param(
        False, "Demand float32 throughout: a half-precision format from anywhere else is then an error.", cli_reference="fp32")
    tf32: bool | None = param(
        None, "Let float32 matrix products round their inputs to TensorFloat-32 (10 bits of mantissa), or forbid it; absent leaves "
        "torch's default.", only_on="an NVIDIA GPU of the Ampere generation or later",
        llamafactory="tf32",
        cli_reference=Alias("tf32", default=False))
    upcast_layernorm: bool = param(
        False, "With pure_bf16, keep the weights of normalisation layers, and compute these layers, in float32.",
        llamafactory="upcast_layernorm",
        cli_reference="upcast_layernorm")
    bf16_full_eval: bool = param(
        False, "Evaluate and predict with the weights rounded to bfloat16; training goes on with the unrounded ones.",
        llamafactory="bf16_full_eval")
    fp16_full_eval: bool = param(False, "The same with float16.", llamafactory="fp16_full_eval")
    torch_empty_cache_steps: int | None = param(
        None, "Give memory that torch keeps in reserve back to the accelerator every so many steps; absent means never.", unit="steps",
        minimum=1, llamafactory="torch_empty_cache_steps", only_on="an accelerator", recorded=False)
    gradient_checkpointing: bool = param(
        False, "Recompute activations in the backward pass instead of keeping them.",
        llamafactory=(Alias("disable_gradient_checkpointing", default=True, convert="negate"), "gradient_checkpointing"),

        cli_reference=(Alias("disable_gradient_checkpointing", default=True, convert="negate"), "gradient_checkpointing"),
        sft_json=Alias("gradient_checkpointing", default=True),
        qlora_script=Alias("gradient_checkpointing", default=True), mindspeed_fsdp2="recompute")
    gradient_checkpointing_auto: bool = param(
        False, "Decide on gradient_checkpointing before the run: on only if memory would not suffice without, by the planner's estimate. "
        "May be written gradient_checkpointing: auto.", recorded=False)
    recompute_modules: tuple[str, ...] = param(
        ("model.layers.{*}",), "Modules whose activations gradient_checkpointing recomputes: names with {*} for any number, {0-11} for a "
        "range, {0,2} for some; model.layers.{*} is every decoder layer, whatever the model calls them.",
        example="model.layers.{0-11}", mindspeed_fsdp2="recompute_modules")
    use_reentrant_gc: bool = param(
        False, "Use the reentrant form of gradient checkpointing; the gradients are the same.",
        llamafactory=(Alias("gradient_checkpointing_kwargs", convert="reentrant_kwargs"),
                      Alias("use_reentrant_gc", today=True)),
        cli_reference=(Alias("use_reentrant_gc", default=True), Alias("no_use_reentrant_gc", convert="negate")))


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Several processes."""

    ddp_timeout: int = param(
        1800, "Longest wait for another rank before the job ends.", unit="seconds", minimum=10, maximum=7200,
        llamafactory="ddp_timeout", recorded=False,
        cli_reference="ddp_timeout")
    ddp_find_unused_parameters: bool | None = param(
        None, "Look for parameters without a gradient in every step; absent means no.",
        llamafactory="ddp_find_unused_parameters",
        cli_reference=Alias("ddp_find_unused_parameters", default=False))
    ddp_bucket_cap_mb: int | None = param(
        None, "Size of the portions in which ranks exchange gradients; absent means torch's own, 25.", unit="MiB", minimum=1,
        maximum=65536, llamafactory="ddp_bucket_cap_mb")
    ddp_broadcast_buffers: bool | None = param(
        None, "Send rank 0's buffers to the other ranks before each forward pass; absent means yes, as torch does.",
        llamafactory="ddp_broadcast_buffers")
    reduce_dtype: str | None = param(
        None, "Number format in which ranks add up their gradients; absent means that of the gradients.",
        choices=("fp32", "bf16", "fp16"),
        mindspeed_fsdp2=Alias("reduce_dtype", default="fp32"))
    ddp_backend: str | None = param(
        None, "Communication library; absent means nccl on GPUs and gloo on CPU.",
        choices=("nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"),
        llamafactory="ddp_backend", recorded=False)
