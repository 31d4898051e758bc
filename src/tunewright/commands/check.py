"""`tunewright check`: everything wrong with a configuration, before a model is opened."""

from __future__ import annotations

import sys

from tunewright.config.literals import show
from tunewright.config.rules.rule import Purpose
from tunewright.config.run import RunConfig
from tunewright.dialects.read import Reading, read_config
from tunewright.errors import UsageError

USAGE = """usage: tunewright check CONFIG [key=value ...] [--key value ...]

Read the configuration, test every rule between its values, look at the files of its model and the rows of its data,
and report everything that is wrong, one line each, without opening a model. Exit code 0 means: ready to run.
A configuration with export_dir and without dataset is checked for `tunewright export`.
"""


def run(argv: list[str]) -> int:
    """Check, tell notes and a summary, and return 0; problems are raised as one ConfigError."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if not argv:
        raise UsageError("check needs a configuration", mend="give a YAML or JSON file, or key=value settings")
    from tunewright.commands.preflight import require_ready

    purpose = purpose_of(read_config(argv).config)
    reading = read_config(argv, purpose=purpose).resolve()
    require_ready(reading, purpose)
    sys.stdout.write("".join(f"note: {note}\n" for note in reading.notes) + summary(reading, purpose))
    return 0


def purpose_of(run: RunConfig) -> Purpose:
    """What the run is for, from what it names."""
    return "export" if run.export.export_dir and not run.data.dataset else "train"


def summary(reading: Reading, purpose: Purpose) -> str:
    """What would happen, in one line."""
    run = reading.config
    if purpose == "export":
        return f"ready to export {run.model.model_name_or_path} to {run.export.export_dir} ({reading.dialect} vocabulary)\n"
    batch = run.batching.per_device_train_batch_size * run.batching.gradient_accumulation_steps
    length = f"{run.batching.max_steps} steps" if run.batching.max_steps > 0 else f"{show(run.batching.num_train_epochs)} epochs"
    return (f"ready: {run.run.stage}, {run.tuning.finetuning_type} tuning of {run.model.model_name_or_path} on "
            f"{len(run.data.dataset)} data set(s), {length} of {batch} rows a step and device, into {run.run.output_dir} "
            f"({reading.dialect} vocabulary)\n")
