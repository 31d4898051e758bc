"""Everything that can be known of a run from files, before a model is opened. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tunewright.config.rules.rule import Purpose
from tunewright.config.run import RunConfig
from tunewright.config.table import table
from tunewright.dialects.read import Reading
from tunewright.errors import ConfigError, InputError, Problem

Inspection = Callable[[RunConfig], Iterable[Problem]]


def require_ready(reading: Reading, purpose: Purpose) -> None:
    """Raise ConfigError with every problem that the files of the run have."""
    problems = preflight(reading, purpose)
    if problems:
        raise ConfigError(problems)


def preflight(reading: Reading, purpose: Purpose) -> list[Problem]:
    """Every problem of the files that the run names, each pointing at the setting that names them."""
    inspections = _INSPECTIONS_OF_TRAINING if purpose == "train" else _INSPECTIONS
    found = [problem for inspection in inspections for problem in inspection(reading.config)]
    return list(dict.fromkeys(_located(problem, reading) for problem in found))


def model_files(run: RunConfig) -> list[Problem]:
    """A local model directory: config.json, sizes, weights, paths that leave it."""
    from tunewright.models.directory import check_directory, check_path_fields

    name = run.model.model_name_or_path or ""
    directory = Path(name).expanduser()
    if name in ("", "demo") or not directory.is_dir() or (directory / "adapter_config.json").is_file() or run.model.gguf_file:
        return []
    checks = (check_directory, check_path_fields)
    return [problem for check in checks for problem in _caught("model_name_or_path", partial(check, directory))]


def adapter_files(run: RunConfig) -> list[Problem]:
    """Local adapter directories: what they say, and their weights."""
    from tunewright.adapters.directory import read_adapter

    places = [Path(name).expanduser() / (run.model.adapter_folder or "") for name in run.model.adapter_name_or_path]
    return [problem for place in places if place.is_dir() for problem in _caught("adapter_name_or_path", partial(read_adapter, place))]


def schedule_arguments(run: RunConfig) -> list[Problem]:
    """lr_scheduler_kwargs fits the schedule."""
    from tunewright.engine.schedules import check_schedule

    return _caught("lr_scheduler_kwargs", lambda: check_schedule(run.schedule, run.optimizer.learning_rate))


def optimizer_arguments(run: RunConfig) -> list[Problem]:
    """optim_args fits the optimizer."""
    from tunewright.engine.optimizers.arguments import check_arguments

    return _caught("optim_args", lambda: check_arguments(run.optimizer.optim, run.optimizer.optim_args))


def data_files(run: RunConfig) -> list[Problem]:
    """The data sets: registry, files, columns, rows."""
    from tunewright.data.probe import probe

    return probe(run)


_INSPECTIONS: tuple[Inspection, ...] = (model_files, adapter_files)
_INSPECTIONS_OF_TRAINING: tuple[Inspection, ...] = (
    schedule_arguments, optimizer_arguments, model_files, adapter_files, data_files)


def _caught(field: str, inspect: Callable[[], object]) -> list[Problem]:
    """What the inspection refuses; it is said of `field` unless it names a file or another parameter itself."""
    try:
        inspect()
    except InputError as error:
        is_placed = error.where is not None or error.message.partition(": ")[0] in table()
        return [Problem(error.message if is_placed else f"{field}: {error.message}", error.where, error.mend)]
    return []


def _located(problem: Problem, reading: Reading) -> Problem:
    """The problem with the place of the setting it begins with, and its name as the user wrote it."""
    field, _, rest = problem.message.partition(": ")
    if problem.where is not None or field not in table():
        return problem
    origin = reading.origins[field]
    return replace(problem, where=origin.where, message=f"{origin.key}: {rest}") if origin.is_given else problem
