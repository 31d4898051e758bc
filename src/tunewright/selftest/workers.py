"""Data-loader workers that die, hang or fail: the run says which, how, and at which rows, leaves no process behind, and goes on where its
last checkpoint is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tunewright.selftest import faults
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import Ended, missing
from tunewright.selftest.workspace import Workspace, differing

TIMEOUT_S: Final = 3
SAID: Final = {
    "killed": "was killed by SIGKILL", "crashed": "was killed by SIGSEGV", "exits": "ended with exit code 3",
    "stopped": f"has not answered for {TIMEOUT_S} s; it stopped", "hangs": f"has not answered for {TIMEOUT_S} s; it stopped"}
LOST, DEFECT = 6, 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows are read that a fault lies in wait at: settings, ranks, and the file of the row, which is its `line`."""

    settings: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1
    rank: int = 0
    file: str = "rows.jsonl"
    line: int = 7
    is_among_others: bool = False


PLACES: Final = {
    "two workers": Place({"dataloader_num_workers": 2}),
    "one worker": Place({"dataloader_num_workers": 1}, line=20),
    "no worker": Place(),
    "packed": Place({"dataloader_num_workers": 2, "packing": True, "cutoff_len": 64}),
    "groups of one length": Place({"dataloader_num_workers": 2, "group_by_length": True}, line=1),
    "a stream": Place({"dataloader_num_workers": 2, "streaming": True, "max_steps": 12, "buffer_size": 8}, is_among_others=True),
    "a packed stream": Place({"dataloader_num_workers": 2, "streaming": True, "max_steps": 6, "buffer_size": 8, "packing": True,
                              "cutoff_len": 64}, is_among_others=True),
    "evaluation": Place({"dataloader_num_workers": 2, "eval_strategy": "steps", "eval_steps": 4}, file="held_out.jsonl", line=2),
    "rank 0 of two": Place({"dataloader_num_workers": 2, "per_device_train_batch_size": 2}, ranks=2, line=4),
    "rank 1 of two": Place({"dataloader_num_workers": 2, "per_device_train_batch_size": 2}, ranks=2, rank=1, line=9),
}
SAMPLE: Final = {"two workers": ("killed", "hangs", "raises"), "a stream": ("killed",), "rank 1 of two": ("hangs",)}
EVERY: Final = ("killed", "crashed", "exits", "stopped", "hangs", "raises")


def groups(size: Size) -> Sequence[str]:
    """One: the cases are short, and a process to run them in is not."""
    return ("workers",)


def chosen(size: Size) -> list[tuple[str, str]]:
    """Place and fault of each case."""
    if size is Size.SAMPLE:
        return [(place, fault) for place, several in SAMPLE.items() for fault in several]
    return [(place, fault) for place in PLACES for fault in (EVERY if place != "no worker" else ("raises",))]


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """A run of each place that nothing disturbs, and one with each fault, which is then run to its end."""
    workspace = Workspace.make(tools.folder / "workspace")
    straight: dict[str, Path] = {}
    for number, (name, fault) in enumerate(chosen(size)):
        place = PLACES[name]
        settings = {"ddp_timeout": 30, "lora_dropout": 0.2, "num_processes": place.ranks, "use_cpu": True, **place.settings}
        if "dataloader_num_workers" in settings:
            settings["dataloader_timeout_s"] = TIMEOUT_S
        if "eval_strategy" in settings:
            settings["eval_dataset"] = workspace.path / "held_out.jsonl"
        if name not in straight:
            straight[name] = tools.folder / f"straight-{len(straight)}"
            faults.asked(tools.server(), faults.plain_run, workspace.settings(straight[name], **settings), ranks=place.ranks)
        output_dir = tools.folder / f"faulty-{number}"
        chosen_settings = workspace.settings(output_dir, **settings)
        row = f"{workspace.path / place.file}:{place.line}"
        ended = faults.asked(tools.server(), faults.worker_fault, chosen_settings, fault=fault, row=row, ranks=place.ranks, rank=place.rank)
        wrong = _wrong(place, fault, row, ended)
        if not wrong:
            again = faults.asked(tools.server(), faults.plain_run, chosen_settings, ranks=place.ranks)
            wrong = f"run again, it ends with {again.code}" if again.code else differing(output_dir, straight[name])
        yield Outcome(group, f"{fault}: {name}", not wrong, wrong)


def _wrong(place: Place, fault: str, row: str, ended: Ended) -> str:
    """What is not as promised, in one line."""
    wanted = DEFECT if fault == "raises" else LOST
    if ended.code != wanted:
        return f"exit code {ended.code} instead of {wanted}: {ended.last_lines()}"
    if place.ranks == 1 and "left: 0" not in ended.output.splitlines():
        return "processes are left"
    # The worker's own word on a crash, which torch prints, ends with a zero byte.
    lines = [line.strip("\0") for line in ended.output.splitlines() if "error: " in line and "lost contact" not in line]
    who = f"[rank {place.rank}] " if place.rank else ""
    told = lines[0] if len(lines) == 1 else ""
    if not told.startswith(f"{who}error: "):
        return f"{len(lines)} errors are told: {ended.last_lines()}"
    what = SAID.get(fault, f"ValueError: {faults.FAULTY}")
    if what not in told:
        return f"it is not said that a worker {what}: {told}"
    return "" if _names(told, place, row, ended.output) else f"the row is not named: {told}"


def _names(told: str, place: Place, row: str, output: str) -> bool:
    """Whether the row is named: alone, as the first of a packed sequence, or among those that are worked on together."""
    if place.is_among_others:
        return f"{row.rpartition(':')[0]}:" in told and " while it made a batch of " in told
    at = re.search(r"^at: (.+)$", output, re.MULTILINE)
    return at is not None and f" while it read {at[1]};" in f"{told};" and (bool(place.settings.get("packing")) or at[1] == row)



CHECK: Final = Check(
    "workers", "A data-loader worker that dies, hangs or fails ends the run with its number, how, and the row that it was at; no process "
    "is left, and the run goes on bit-identically.", len(chosen(Size.FULL)), groups, run, missing)
