"""Looking into a run: profiler, memory figures, the first number that is not finite."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import Alias, param


@dataclass(frozen=True, kw_only=True)
class ProfilingConfig:
    """What torch's profiler records, and other means of finding out where time, memory or a NaN comes from."""

    profile: bool = param(
        False, "Record steps with torch's profiler: one trace and one table of operations per rank.", recorded=False,
        mindspeed_fsdp2="profile")
    profile_step_start: int = param(
        0, "First step recorded, counted from 0.", unit="steps", minimum=0, recorded=False, mindspeed_fsdp2="profile_step_start")
    profile_step_end: int = param(
        -1, "Step before which the record ends; -1 records to the end of the run.", unit="steps", minimum=-1, recorded=False,
        mindspeed_fsdp2="profile_step_end")
    profile_ranks: tuple[str, ...] = param(
        (), "Ranks that record; without any, every rank does.", recorded=False, example="0",
        mindspeed_fsdp2=Alias("profile_ranks", convert="rank_numbers"))
    profile_with_cpu: bool = param(
        True, "Record operations on the CPU as well as on the accelerator.", recorded=False,
        mindspeed_fsdp2=Alias("profile_with_cpu", default=False))
    profile_with_stack: bool = param(
        False, "Record the line of code that each operation was called from.", recorded=False, mindspeed_fsdp2="profile_with_stack")
    profile_with_memory: bool = param(
        False, "Record what each operation allocates and frees.", recorded=False, mindspeed_fsdp2="profile_with_memory")
    profile_record_shapes: bool = param(
        False, "Record the shapes of each operation's tensors.", recorded=False, mindspeed_fsdp2="profile_record_shapes")
    profile_save_path: str = param(
        "./profile", "Directory for the traces and tables.", recorded=False, mindspeed_fsdp2="profile_save_path")
    debug: tuple[str, ...] = param(
        (), "underflow_overflow: stop at the first step in which a module gives a number that is not finite, and name the module.",
        choices=("underflow_overflow",), refused_values={"tpu_metrics_debug": "there is no support for TPUs"}, recorded=False,
        example="underflow_overflow", llamafactory=Alias("debug", convert="comma_list"))
    skip_memory_metrics: bool = param(
        True, "Leave out of the training results how far memory grew during training.", recorded=False,
        llamafactory=("skip_memory_metrics", Alias("no_skip_memory_metrics", convert="negate")))
