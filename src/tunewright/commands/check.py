"""`tunewright check`: everything wrong with a configuration, before a model is opened."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from tunewright.config.literals import show
from tunewright.config.rules.rule import Purpose
from tunewright.config.run import RunConfig
from tunewright.dialects.read import Reading, examine
from tunewright.errors import InputError, UsageError

LOCK: Final = ".tunewright.lock"
"""The file in an output directory that a run locks while it is at work."""

USAGE = """usage: tunewright check CONFIG [key=value ...] [--key value ...]

Read the configuration, test every rule between its values, look at the files of its model and the rows of its data,
and report everything that is wrong, one line each, without opening a model; where nothing is, say how the rows are understood.
Exit code 0 means: ready to run.
A configuration with export_dir and without dataset is checked for `tunewright export`.
"""


def run(argv: list[str]) -> int:
    """Check, tell notes and a summary, and return 0; problems are raised as one ConfigError."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if not argv:
        raise UsageError("check needs a configuration", mend="give a YAML or JSON file, or key=value settings")
    from tunewright.commands.preflight import data_lines, read_ready

    purpose = purpose_of(examine(argv).reading.config)
    reading = read_ready(argv, purpose)
    if purpose == "train" and (holder := lock_holder(Path(str(reading.config.run.output_dir)).expanduser() / LOCK)):
        origin = reading.origins["output_dir"]
        raise InputError(f"{origin.key}: {reading.config.run.output_dir} is in use by {holder}", where=origin.where,
                         mend="wait for it to end, or choose another output_dir")
    lines = data_lines(reading.config) if purpose == "train" else []
    sys.stdout.write("".join([*(f"note: {note}\n" for note in reading.notes), *(f"{line}\n" for line in lines), summary(reading, purpose)]))
    return 0


def lock_holder(lock: Path) -> str | None:
    """The run that holds the lock, from the kernel's table of locks: to try the lock itself could keep a run out that starts now."""
    table = Path("/proc/locks")
    if not lock.is_file() or not table.is_file():
        return None
    inode = lock.stat().st_ino
    if not any(fields[1:2] == ["FLOCK"] and fields[-3].endswith(f":{inode}") for fields in map(str.split, table.read_text().splitlines())):
        return None
    try:
        said = json.loads(lock.read_text(encoding="utf-8"))
        return f"process {said['pid']} on {said['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def purpose_of(run: RunConfig) -> Purpose:
    """What the run is for, from what it names."""
    return "export" if run.export.export_dir and not run.data.dataset else "train"


def summary(reading: Reading, purpose: Purpose) -> str:
    """What would happen, in one line."""
    run = reading.config
    if purpose == "export":
        return f"ready to export {run.model.model_name_or_path} to {run.export.export_dir} ({reading.dialect} vocabulary)\n"
    if not run.run.do_train:
        work = [verb for verb, is_on in (("evaluate", run.run.do_eval), ("predict with", run.run.do_predict)) if is_on]
        return f"ready to {' and '.join(work)} {run.model.model_name_or_path}, into {run.run.output_dir} ({reading.dialect} vocabulary)\n"
    batch = run.batching.per_device_train_batch_size * run.batching.gradient_accumulation_steps
    length = f"{run.batching.max_steps} steps" if run.batching.max_steps > 0 else f"{show(run.batching.num_train_epochs)} epochs"
    return (f"ready: {run.run.stage}, {run.tuning.finetuning_type} tuning of {run.model.model_name_or_path} on "
            f"{len(run.data.dataset)} data set(s), {length} of {batch} rows a step and device, into {run.run.output_dir} "
            f"({reading.dialect} vocabulary)\n")
