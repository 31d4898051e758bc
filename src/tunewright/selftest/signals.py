"""Signals that reach the ranks at different times: all ranks save the same step and end with 75, none waits for ever, and the run goes on
bit-identically."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.selftest import faults
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import Ended, missing
from tunewright.selftest.workspace import Workspace, differing

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
LONGEST_S: Final = 10.0
PREEMPTED: Final = 75
DRAWN: Final = {Size.SAMPLE: 4, Size.FULL: 104}
STEPS: Final = 140
"""So many that at a tenth of a second each the last signal still meets the run at work."""
LAUNCHER: Final = -1
TIMED: Final = {"manifest.json", "train_state.json", "trainer_state.json"}
"""Files of a checkpoint that hold times."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One case: the signal, which rank gets it first (-1: the launcher, which passes it on), seconds until the other has it, the step, full
    tuning or LoRA, and a second signal of another kind to the first rank that much later."""

    number: int
    first: int
    skew_s: float
    step: int
    is_full: bool
    again_s: float | None

    def at(self) -> list[tuple[int, int, float]]:
        """(signal, rank, seconds after the step)."""
        sent = [(self.number, self.first, 0.0)]
        if self.first != LAUNCHER:
            sent.append((self.number, 1 - self.first, self.skew_s))
        if self.again_s is not None:
            other = signal.SIGTERM if self.number != signal.SIGTERM else signal.SIGUSR1
            sent.append((other, self.first, self.again_s))
        return sent

    def name(self) -> str:
        """For people."""
        first = "the launcher" if self.first == LAUNCHER else f"rank {self.first}"
        again = "" if self.again_s is None else f", another after {self.again_s:.2f} s"
        tuning = "full" if self.is_full else "lora"
        return f"{signal.Signals(self.number).name} to {first} at step {self.step}, skew {self.skew_s:.2f} s, {tuning}{again}"


def draws(size: Size, seed: int) -> list[Draw]:
    """The cases: skews of 0 to 10 s, a third of them below half a second, where the ranks are in the same step or the next."""
    chance = random.Random(seed)
    found = []
    for number in range(DRAWN[size]):
        longest = 0.5 if number % 3 == 0 else LONGEST_S if size is Size.FULL else 2.0
        first = LAUNCHER if number % 5 == 4 else chance.randrange(2)
        found.append(Draw(chance.choice(NUMBERS), first, 0.0 if first == LAUNCHER else chance.uniform(0, longest), chance.randint(1, 9),
                          is_full=chance.random() < 0.5, again_s=chance.uniform(0, 0.5) if number % 10 == 9 else None))
    return found


def groups(size: Size) -> Sequence[str]:
    """They wait more than they work: many side by side."""
    return tuple(f"part {part}" for part in range(8)) if size is Size.FULL else ("part 0",)


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """The cases of a part. Each run is stopped, and the checkpoint that it left is compared with that step of a straight run; a tenth of
    them is run to the end besides."""
    workspace = Workspace.make(tools.folder / "workspace")
    parts = len(groups(size))
    mine = [(number, draw) for number, draw in enumerate(draws(size, tools.seed)) if number % parts == int(group.split()[1])]
    straight: dict[tuple[bool, int], Path] = {}
    for number, draw in mine:
        output_dir = tools.folder / str(number)
        settings = _settings(workspace, output_dir, draw)
        ended = faults.asked(tools.server(), faults.signals_to_ranks, settings, ranks=2, at=draw.at(), step=draw.step)
        wrong, step = _stopped(output_dir, ended)
        if not wrong:
            key = (draw.is_full, step)
            if key not in straight:
                straight[key] = tools.folder / f"straight-{len(straight)}"
                faults.asked(tools.server(), faults.plain_run, {
                    **_settings(workspace, straight[key], draw), "stop_after": str(step)}, ranks=2)
            wrong = _same(output_dir / f"checkpoint-{step}", straight[key] / f"checkpoint-{step}")
        if not wrong and number % 10 == 0:
            wrong = _to_the_end(tools, settings, straight[key], workspace, draw)
        yield Outcome(group, draw.name(), not wrong, wrong)


def _settings(workspace: Workspace, output_dir: Path, draw: Draw) -> dict[str, str]:
    tuning: Mapping[str, Any] = {"finetuning_type": "full", "learning_rate": 0.001} if draw.is_full else {"lora_dropout": 0.2}
    return workspace.settings(output_dir, **{
        **tuning, "num_processes": 2, "use_cpu": True, "per_device_train_batch_size": 2, "save_steps": 1000, "max_steps": STEPS,
        "ddp_timeout": 60, "logging_steps": 50})


def _stopped(output_dir: Path, ended: Ended) -> tuple[str, int]:
    """What is not as promised, in one line; and the step that was saved."""
    codes = re.search(r"^codes: (.+)$", ended.output, re.MULTILINE)
    if ended.code != PREEMPTED or codes is None or codes[1] != f"{PREEMPTED}, {PREEMPTED}":
        return f"exit code {ended.code}, of the ranks {codes[1] if codes else '?'}: {ended.last_lines()}", 0
    saved = sorted(path.name for path in output_dir.glob("checkpoint-*"))
    if len(saved) != 1:
        return f"checkpoints: {', '.join(saved) or 'none'}", 0
    step = int(saved[0].rpartition("-")[2])
    said = f"after step {step}; checkpoint saved"
    return ("" if said in ended.output else f"it is not said that it stopped {said}"), step


def _same(one: Path, other: Path) -> str:
    """What differs between two checkpoints of a step besides times and ids."""
    names = sorted({path.name for folder in (one, other) for path in folder.iterdir()} - TIMED)
    differs = [name for name in names if not ((one / name).is_file() and (other / name).is_file()
                                              and (one / name).read_bytes() == (other / name).read_bytes())]
    return f"checkpoint {one.name} differs from that of a straight run in {', '.join(differs)}" if differs else ""


def _to_the_end(tools: Tools, settings: Mapping[str, str], straight: Path, workspace: Workspace, draw: Draw) -> str:
    """The stopped run and the straight one, run on."""
    for one in (settings, _settings(workspace, straight, draw)):
        ended = faults.asked(tools.server(), faults.plain_run, one, ranks=2)
        if ended.code:
            return f"run again, it ends with {ended.code}"
    return differing(Path(settings["output_dir"]), straight)


CHECK: Final = Check(
    "signals", "SIGTERM, SIGINT or SIGUSR1 that reach the ranks up to 10 s apart: every rank ends with exit code 75, with one checkpoint "
    "of one step that is bit for bit that of a run which was not disturbed.", DRAWN[Size.FULL], groups, run, missing)
