"""A rank that is killed, stopped, or ends by itself ends the whole job in time; the rank and the last step are named, and the job goes on
where its last checkpoint is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tunewright.selftest import faults
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import Ended, missing
from tunewright.selftest.workspace import Workspace, differing

RANKS: Final = 3
TIMEOUT_S, MORE_S = 10, 15.0
STEP: Final = 6
CODES: Final = {"killed": 6, "stopped": 6, "raises": 1, "exits": 3}
PLACES: Final = ("a step", "a save", "an evaluation")
SAMPLE: Final = ((1, "killed", "a step"), (0, "stopped", "a save"), (2, "raises", "an evaluation"))


def groups(size: Size) -> Sequence[str]:
    """One for each rank: a rank that waits for another takes time, and next to no work."""
    return tuple(f"rank {rank} of {RANKS}" for rank in range(RANKS)) if size is Size.FULL else ("ranks",)


def chosen(group: str, size: Size) -> list[tuple[int, str, str]]:
    """Rank, fault and place of each case."""
    if size is Size.SAMPLE:
        return list(SAMPLE)
    rank = int(group.split()[1])
    return [(rank, fault, place) for fault in CODES for place in PLACES]


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """One run of three ranks that nothing disturbs, and one with each fault, which is then run to its end."""
    workspace = Workspace.make(tools.folder / "workspace")

    def settings(name: str) -> dict[str, str]:
        return workspace.settings(
            tools.folder / name, num_processes=RANKS, use_cpu=True, per_device_train_batch_size=1, num_train_epochs=1.5, lora_dropout=0.2,
            ddp_timeout=TIMEOUT_S, eval_strategy="steps", eval_steps=3, eval_dataset=workspace.path / "held_out.jsonl")

    straight = faults.asked(tools.server(), faults.plain_run, settings("straight"), ranks=RANKS)
    if straight.code:
        yield Outcome(group, "a straight run", False, straight.last_lines())
        return
    for number, (rank, fault, place) in enumerate(chosen(group, size)):
        mine = settings(str(number))
        ended = faults.asked(tools.server(), faults.rank_fault, mine, fault=fault, rank=rank, ranks=RANKS, place=place, step=STEP)
        wrong = _wrong(rank, fault, place, ended)
        if not wrong:
            again = faults.asked(tools.server(), faults.plain_run, mine, ranks=RANKS)
            wrong = f"run again, it ends with {again.code}: {again.last_lines()}" if again.code else differing(
                Path(mine["output_dir"]), tools.folder / "straight")
        yield Outcome(group, f"rank {rank} {fault} in {place}", not wrong, wrong)


def _wrong(rank: int, fault: str, place: str, ended: Ended) -> str:
    """What is not as promised, in one line."""
    if ended.code != CODES[fault]:
        return f"exit code {ended.code} instead of {CODES[fault]}: {ended.last_lines()}"
    took = re.search(r"^took: ([0-9.]+)$", ended.output, re.MULTILINE)
    if took is None or float(took[1]) > TIMEOUT_S + MORE_S:
        return f"it took {took[1] if took else '?'} s"
    step = STEP - 1 if place == "a step" else STEP
    named = {"killed": f"rank {rank} was ended by SIGKILL after step {step}", "stopped": f"rank {rank} does not answer after step {step}",
             "exits": f"rank {rank} ended with exit code 3 after step {step}",
             "raises": f"rank {rank} ended with exit code 1 after step {step}"}[fault]
    return "" if named in ended.output else f"it is not said that {named}: {ended.last_lines()}"



CHECK: Final = Check(
    "ranks", "A rank that is killed, stopped, raises or exits, in a step, a save or an evaluation, ends the job within `ddp_timeout` and "
    "a few seconds; the rank and its last step are named, and the job goes on bit-identically.",
    RANKS * len(CODES) * len(PLACES), groups, run, missing)
