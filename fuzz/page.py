"""What docs/reliability.md says of fuzzing, of ckpt-chaos, and of what was not shown. Standard library only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

FUZZING: Final = """## fuzzing

Hostile bytes for every reader: edits of good files and texts, guided by which lines they reach (atheris) or drawn (hypothesis). A reader
may return, or refuse with an error of our own; another exception, more than a second, half a gigabyte of memory, or a message of
several lines is a finding. Each finding was mended; its input is in `fuzz/corpus`, and every test run reads all of them again.

| what is read | engine | executions | CPU seconds | findings, all mended |
|---|---|---|---|---|
"""
AGAIN: Final = """
`python -m fuzz.run --engine atheris --seconds 3600 --record fuzz/record.jsonl` goes on, an hour for each. The tests give every reader
seconds only; `FUZZ_SECONDS=60` makes it a minute.

"""
SHORT: Final = "\nThe hour that each reader is meant to have was not reached by {readers} of {all}: the seconds are those of the table.\n"
HOUR_S: Final = 3600
CHAOS: Final = """## ckpt-chaos

ckpt-chaos, a tool of others (package of that name), kills a training command at file operations of its checkpoints, also with the file cut
in half, runs it again, and compares the weights. The verdicts are its own; plain Trainer trains the same model on the same rows.

| training | points | passed | failed to resume | other weights, unsaid | work lost |
|---|---|---|---|---|---|
"""
CHAOS_AGAIN: Final = "\n`python -m fuzz.chaos --points 40 --record fuzz/chaos.jsonl` shows more points.\n\n"
NAMES: Final = {"tunewright": "tunewright", "trainer": "transformers' Trainer", "bench": "transformers' Trainer, the tool's own benchmark"}
NOT_SHOWN: Final = """## What is not shown

- GPUs, NCCL and kernels that are not deterministic: all of the above ran on two cores, with gloo between ranks.
- A real loss of power: what was not forced to the disk is taken away by hand, as POSIX allows a system to lose it. A disk that says it has
  written what it has not is not covered.
- Network file systems, whose renames and locks may promise less.
- Equality of float32 sums that are made in another order: the equivalence matrix is in float64, where 1e-10 can be told from a mistake.
"""


def section(folder: Path) -> str:
    """The end of the page, from record.jsonl and chaos.jsonl in `folder`."""
    lines = list(_lines(folder / "record.jsonl"))
    fuzzed = "".join(f"| {' | '.join(row)} |\n" for row in _fuzzed(lines))
    spent = Counter[str]()
    for line in lines:
        spent[line["target"]] += line["cpu_s"]
    short = sum(seconds < HOUR_S for seconds in spent.values())
    newest = {line["what"]: line for line in _lines(folder / "chaos.jsonl") if line["points"]}
    chaos = "".join(f"| {' | '.join(_verdicts(name, newest[name]))} |\n" for name in NAMES if name in newest)
    return f"{FUZZING}{fuzzed}{SHORT.format(readers=short, all=len(spent)) if short else ''}{AGAIN}{CHAOS}{chaos}{CHAOS_AGAIN}{NOT_SHOWN}"


def _fuzzed(lines: list[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A row for each target and engine, over all of its runs."""
    for target, engine in dict.fromkeys((line["target"], line["engine"]) for line in lines):
        mine = [line for line in lines if (line["target"], line["engine"]) == (target, engine)]
        findings = len({one["input"] for line in mine for one in line["findings"]})
        yield (mine[-1]["reads"], engine, f"{sum(line['executions'] for line in mine):,}", f"{sum(line['cpu_s'] for line in mine):,.0f}",
               str(findings))


def _verdicts(name: str, line: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (line[verdict] for verdict in ("points", "PASS", "HARD_FAIL", "SILENT_DIVERGENCE", "LOST_WORK"))
    return (NAMES[name], *map(str, counts))


def _lines(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.is_file():
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())
