"""What a run does, where it writes and what it starts from."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import Alias, Implied, param


@dataclass(frozen=True, kw_only=True)
class RunControl:
    """Stage, output directory, seeds and device."""

    stage: str = param("sft", "Training algorithm: pre-training (pt), supervised fine-tuning (sft), reward model (rm), preferences between "
        "two answers (dpo), marked answers (kto), or rewards (ppo, grpo).", choices=("pt", "sft", "rm", "dpo", "kto", "ppo", "grpo"),
        llamafactory=Alias("stage", choices=("pt", "sft", "rm", "ppo", "dpo", "kto")),
        mindspeed_fsdp2=Alias("stage", choices=("pt", "sft")))
    do_train: bool = param(
        True, "Train.", llamafactory=Alias("do_train", default=False), recorded=False,
        qlora_script="do_train")
    do_eval: bool = param(
        False, "Evaluate the loss on the evaluation set after training.", llamafactory="do_eval", recorded=False,
        qlora_script=Alias("do_eval", default=True))
    do_predict: bool = param(
        False, "Generate answers for the evaluation set after training.", llamafactory="do_predict", recorded=False)
    output_dir: str | None = param(
        None, "Directory for checkpoints, logs and results.", llamafactory="output_dir", recorded=False,
        cli_reference="output_dir", sft_json=Alias("output_dir", default="output/qwen1.5-7b-sft-lora"),
        qlora_script=Alias("output_dir", default="./trained_model"), mindspeed_fsdp2="output_dir")
    overwrite_output_dir: bool = param(
        False, "Start afresh in an output directory that holds another run; nothing is deleted, its checkpoints are set aside.",
        llamafactory="overwrite_output_dir", recorded=False,
        cli_reference="overwrite_output_dir")
    resume_from_checkpoint: str | None = param(
        "auto", "Checkpoint to continue from: a directory, `auto` (the newest intact one of this run, if any) or `none`.",
        llamafactory=Alias("resume_from_checkpoint", convert="resume_path"), recorded=False,
        mindspeed_fsdp2=Alias("resume_from_checkpoint", default="none", convert="resume_or_none"))
    stop_after: int | None = param(
        None, "Save a checkpoint and end, as after a signal, once this process took so many steps; the schedule stays that of the whole "
        "run, which the same command goes on with.", unit="steps", minimum=1, recorded=False, example="500")
    allow_change: tuple[str, ...] = param(
        (), "Parameters that may differ from the interrupted run on resume.", recorded=False, example="learning_rate")
    seed: int = param(
        42, "Seed of initialisation, dropout and, without data_seed, the order of samples.",
        minimum=0, maximum=2**32 - 1, llamafactory="seed",
        sft_json="seed", mindspeed_fsdp2="seed")
    data_seed: int | None = param(
        None, "Seed of the order of samples; absent means `seed`.", minimum=0, maximum=2**32 - 1, llamafactory="data_seed")
    full_determinism: bool = param(
        False, "Allow deterministic operations only; an operation without one stops the run.", llamafactory="full_determinism",
        sft_json=Implied(True))
    use_cpu: bool = param(
        False, "Run on the CPU even where an accelerator is present.", llamafactory=("use_cpu", Alias("no_cuda", deprecated=True)),
        cli_reference="no_cuda")
    num_processes: int | None = param(
        None, "Processes on this machine, one per device; absent means all accelerators, or one process on CPU.",
        minimum=1, maximum=1024, recorded=False)
