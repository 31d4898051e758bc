"""Profiling and debugging. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

_ASCEND = "it is a setting of the profiler of Ascend NPUs; torch's has nothing like it"

REFUSED = (
    refused("tpu_metrics_debug", "Prints metrics of TPUs.", because="there is no support for TPUs",
            llamafactory=inert("tpu_metrics_debug", False, deprecated=True), cli_reference=inert("tpu_metrics_debug", False)),
    refused("profile_level", "Amount of information collected; higher levels collect more.", because=_ASCEND,
            mend="say what to record: profile_with_cpu, profile_with_stack, profile_with_memory, profile_record_shapes",
            mindspeed_fsdp2=inert("profile_level", "level0")),
    refused("profile_export_type", "Format of profiling output: text or database.",
            because="traces and tables are written as text; the database is a format of Ascend's profiler",
            mindspeed_fsdp2=inert("profile_export_type", "text")),
    refused("profile_data_simplification", "Uses the profiler's data-simplification mode.", because=_ASCEND,
            mindspeed_fsdp2=inert("profile_data_simplification", False)),
)
