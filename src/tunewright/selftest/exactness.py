"""Runs that end after each step and are started again, in many configurations: the same numbers as in one go, in every file of every
checkpoint and at the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tunewright.selftest import faults, killing
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.compare import checkpoints, first_difference
from tunewright.selftest.killing import Case, NotAsPromised
from tunewright.selftest.setups import OF_SAMPLE, SAMPLE, STEPS, Changes, every, prepare, settings_of

PARTS: Final = 4
PREEMPTED: Final = 75
AT_A_TIME: Final = {Size.SAMPLE: 3, Size.FULL: 1}
"""Steps between two ends of a process."""


def groups(size: Size) -> Sequence[str]:
    """They may run side by side."""
    return tuple(f"part {part}" for part in range(PARTS)) if size is Size.FULL else ("some set-ups",)


def chosen(group: str, size: Size) -> dict[str, Changes]:
    """The set-ups of a group by name."""
    if size is Size.SAMPLE:
        from tunewright.selftest.setups import ALONE

        return {name: {**ALONE, **OF_SAMPLE}[name] for name in SAMPLE}
    part = int(group.split()[1])
    return {name: changes for number, (name, changes) in enumerate(every().items()) if number % PARTS == part}


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """For each set-up a straight run, and one that is cut after every step, or every third in a sample."""
    place = prepare(tools.folder / "place")
    for number, (name, changes) in enumerate(chosen(group, size).items()):
        folder = tools.folder / str(number)
        folder.mkdir()
        try:
            straight(tools, settings_of(changes, place, folder / "straight"))
            in_links(tools, settings_of(changes, place, folder / "links"), AT_A_TIME[size])
            wrong = first_difference(folder / "straight", folder / "links")
        except NotAsPromised as error:
            wrong = str(error)
        yield Outcome(group, name, not wrong, wrong)
        shutil.rmtree(folder)


def straight(tools: Tools, settings: Mapping[str, str]) -> None:
    """A run in one go. Raises `NotAsPromised` if it does not take all its steps over the end of an epoch."""
    tools.server().done(_case(settings))
    found = checkpoints(Path(settings["output_dir"]))
    if list(found) != [*range(1, STEPS + 1)]:
        raise NotAsPromised(f"the straight run has checkpoints of the steps {', '.join(map(str, found)) or 'none'}")


def in_links(tools: Tools, settings: Mapping[str, str], steps: int) -> None:
    """The same run in processes that end after so many steps. Raises `NotAsPromised` if one ends in another way."""
    for step in range(steps, STEPS, steps):
        tools.server().done(_case({**settings, "stop_after": str(steps)}), PREEMPTED)
        if max(checkpoints(Path(settings["output_dir"])), default=0) != step:
            raise NotAsPromised(f"a process that was to end after step {step} has not")
    tools.server().done(_case(settings))


def _case(settings: Mapping[str, str]) -> Case:
    ranks = int(settings["num_processes"])
    return Case(f"{faults.__name__}:{faults.plain_run.__name__}", {"settings": dict(settings), "ranks": ranks}, settings["output_dir"])


CHECK: Final = Check(
    "exactness", "A run that ends after any step and is started again goes on bit for bit as it would have: weights, optimizer, schedule, "
    f"random numbers, position, log and figures, compared after each of {STEPS} steps in every configuration.", 100, groups, run,
    killing.missing)
