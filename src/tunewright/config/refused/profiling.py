"""Profiling and debugging. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("debug", "Enables debug modes: underflow_overflow detection or TPU metrics printing.",
            llamafactory=(inert("debug", None), inert("tpu_metrics_debug", False, deprecated=True)),
            cli_reference=inert("tpu_metrics_debug", False)),
    refused("skip_memory_metrics", "Leaves memory statistics out of the metrics.",
            llamafactory=(inert("skip_memory_metrics", True), inert("no_skip_memory_metrics", False))),
    refused("profile", "Turns profiling on.", mindspeed_fsdp2=inert("profile", False)),
    refused("profile_step_start", "First step profiled, inclusive.", mindspeed_fsdp2=inert("profile_step_start", 0)),
    refused("profile_step_end", "Step at which profiling stops, exclusive; -1 profiles to the end.",
            mindspeed_fsdp2=inert("profile_step_end", -1)),
    refused("profile_ranks", "Ranks profiled; -1 means every rank.", mindspeed_fsdp2=inert("profile_ranks", [-1])),
    refused("profile_level", "Amount of information collected; higher levels collect more.",
            mindspeed_fsdp2=inert("profile_level", "level0")),
    refused("profile_export_type", "Format of profiling output: text or database.",
            mindspeed_fsdp2=inert("profile_export_type", "text")),
    refused("profile_data_simplification", "Uses the profiler's data-simplification mode.",
            mindspeed_fsdp2=inert("profile_data_simplification", False)),
    refused("profile_with_cpu", "Collects CPU data.", mindspeed_fsdp2=inert("profile_with_cpu", False)),
    refused("profile_with_stack", "Collects call stacks.", mindspeed_fsdp2=inert("profile_with_stack", False)),
    refused("profile_with_memory", "Collects memory allocation data.", mindspeed_fsdp2=inert("profile_with_memory", False)),
    refused("profile_record_shapes", "Collects tensor shapes.", mindspeed_fsdp2=inert("profile_record_shapes", False)),
    refused("profile_save_path", "Directory for profiling output.", mindspeed_fsdp2=inert("profile_save_path", "./profile")),
)
