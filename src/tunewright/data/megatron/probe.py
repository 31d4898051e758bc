"""What can be known of Megatron's files before a model is opened: both files of each set, their index, and what `split` leaves."""

from __future__ import annotations

from tunewright.config.run import RunConfig
from tunewright.data.megatron.sets import open_sets, parts_of
from tunewright.errors import InputError, Problem, StorageError


def probe(run: RunConfig) -> list[Problem]:
    """The first problem of `dataset` and of `eval_dataset`: unreadable lists, damaged files, parts without documents."""
    problems: list[Problem] = []
    for key, specs in (("dataset", run.data.dataset), ("eval_dataset", run.data.eval_dataset)):
        try:
            for one in open_sets(run.data, specs, key):
                one.audit().check(run.data.max_dropped_fraction)
                if key == "dataset" and run.run.do_train and not len(parts_of(one, run.data.split).training):
                    raise InputError(f"split: {run.data.split} of {one.documents} documents leaves none of {one.name} to train on",
                                     mend="change it, or take the set out")
        except (InputError, StorageError) as error:
            problems.append(Problem(error.message, error.where, error.mend, rule="data"))
    return problems
