"""What must not change a step: how its rows are split over micro-batches and ranks, how they are laid out, what is recomputed, which fast
paths are taken. Each case is one change to a run; its first step is compared with that of the run as it is, in float64."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.equivalence_cases import (
    FIRST,
    IN_FLOAT32,
    RANKS,
    SUBJECTS,
    TUNINGS,
    Change,
    changes,
    group_of,
    settings,
    write_inputs,
)
from tunewright.selftest.killing import Case, NotAsPromised, missing

if TYPE_CHECKING:
    from tunewright.selftest.first_step import Step

Chosen = Mapping[tuple[str, str], Mapping[str, Change]]
"""By subject and tuning: the changes, by name."""
_IN_SAMPLE: Final = {
    "LoRA": ("4 x 2", "packed", "3 x 2 on two ranks", "without the fast path loss", "reference asked in the step"),
    "full": ("3 x 3", "padded", "3 x 2 on two ranks", "without any fast path")}
"""Of the runs that have all changes; of the others, one split over ranks."""


def groups(size: Size) -> Sequence[str]:
    """The stages; in a sample all of them together."""
    return tuple(dict.fromkeys(map(group_of, SUBJECTS))) if size is Size.FULL else ("every stage",)


def chosen(group: str, size: Size) -> Chosen:
    """What is compared in a group."""
    every = {(name, tuning): changes(name, tuning) for name in SUBJECTS for tuning in TUNINGS}
    if size is Size.FULL:
        return {key: found for key, found in every.items() if group_of(key[0]) == group}
    picked = {(name, tuning): {change: what for change, what in found.items() if change in _IN_SAMPLE[tuning] and (
        name in FIRST or (tuning == "LoRA" and change == "3 x 2 on two ranks"))} for (name, tuning), found in every.items()}
    return {key: found for key, found in picked.items() if found}


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """All steps in one child of the server, those on two ranks in two children of that."""
    case = Case(f"{__name__}:compare", {"group": group, "size": size.value, "folder": str(tools.folder)}, str(tools.folder))
    ended = tools.server().run(case)
    told = tools.folder / "outcomes.jsonl"
    for line in told.read_text(encoding="utf-8").splitlines() if told.exists() else ():
        yield Outcome(**json.loads(line))
    if ended.code:
        yield Outcome(group, "the comparison comes to its end", False, ended.last_lines())


def compare(group: str, size: str, folder: str) -> int:
    """In a child of the server: make every step of a group, and write down what came of it."""
    import torch

    from tunewright.selftest.first_step import first_step

    place, wanted = Path(folder), chosen(group, Size(size))
    os.environ["TUNEWRIGHT_CACHE"] = str(place / "cache")  # what fast paths compute is to be found out here
    write_inputs(place)
    _fork_ranks(_ranked(wanted), place)
    with (place / "outcomes.jsonl").open("w", encoding="utf-8") as told:
        for (subject, tuning), found in wanted.items():
            dtype = torch.float32 if group_of(subject) == IN_FLOAT32 else torch.float64
            base = first_step(settings(place, subject, tuning), place / f"{subject}, {tuning}", dtype=dtype)
            for name, change in found.items():
                case = f"{subject}, {tuning}: {name}"
                try:
                    if change.ranks == 1:
                        steps = [first_step(settings(place, subject, tuning, change), place / case, dtype=dtype)]
                    else:
                        steps = [_read(place, _ranked(wanted).index((subject, tuning, name)), rank) for rank in range(change.ranks)]
                    wrong = next(filter(None, (difference(step, base, SUBJECTS[subject].tolerance) for step in steps)), "")
                    if not wrong and not change.shows(steps[0], base):
                        wrong = "the step was not made as the change asks"
                except Exception as error:
                    wrong = _in_one_line(error)
                told.write(json.dumps(asdict(Outcome(group, case, not wrong, wrong))) + "\n")
    return 0


def difference(found: Step, base: Step, tolerance: float) -> str:
    """In one line, what of a step is not that of the other; a number that is none differs from every other. Metrics within ±1 may differ
    by the tolerance itself: some are sums of white numbers."""
    if found.gradients.keys() != base.gradients.keys():
        return f"other tensors have gradients: {', '.join(sorted(found.gradients.keys() ^ base.gradients.keys())[:3])}"
    apart = [("the loss", abs(found.loss - base.loss) / abs(base.loss))]
    apart += [(name, abs(found.metrics.get(name, math.nan) - value) / max(abs(value), 1)) for name, value in base.metrics.items()]
    apart += [(name, float((found.gradients[name] - other).abs().max() / other.abs().max())) for name, other in base.gradients.items()]
    wrong = [(name, far) for name, far in apart if not far <= tolerance]
    worst = max(wrong, key=lambda one: one[1], default=("", 0.0))
    return f"{len(wrong)} of {len(apart)} numbers and tensors differ, {worst[0]} by {worst[1]:.1e}" if wrong else ""


def _ranked(wanted: Chosen) -> list[tuple[str, str, str]]:
    """Subject, tuning and change of the cases on several ranks."""
    return [(*key, name) for key, found in wanted.items() for name, change in found.items() if change.ranks > 1]


def _fork_ranks(cases: Sequence[tuple[str, str, str]], folder: Path) -> None:
    """Make these steps in children of this process, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    children = []
    for rank in range(RANKS if cases else 0):
        child = os.fork()
        if child == 0:
            os.environ.update(WORLD_SIZE=str(RANKS), LOCAL_WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                              RANK=str(rank), LOCAL_RANK=str(rank))
            try:
                _be_rank(cases, folder)
            except Exception as error:
                (folder / f"failed-{rank}").write_text(_in_one_line(error), encoding="utf-8")
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _be_rank(cases: Sequence[tuple[str, str, str]], folder: Path) -> None:
    """Make every step, and write down what this rank has of it."""
    from safetensors.torch import save_file

    from tunewright.runtime import Ranks, process_group
    from tunewright.selftest.first_step import first_step

    ranks = Ranks.from_environment()
    with process_group(ranks, timeout_s=60):
        for number, (subject, tuning, name) in enumerate(cases):
            change = changes(subject, tuning)[name]
            step = first_step(settings(folder, subject, tuning, change), folder / f"ranked-{number}", ranks)
            said = {"loss": step.loss, "metrics": dict(step.metrics), "micro_batches": step.micro_batches}
            save_file(dict(step.gradients), folder / f"{number}-{ranks.rank}.safetensors", {"said": json.dumps(said)})


def _read(folder: Path, number: int, rank: int) -> Step:
    """What a rank has written. Raises `NotAsPromised` if it did not come so far."""
    from safetensors import safe_open

    from tunewright.selftest.first_step import Step

    path, failed = folder / f"{number}-{rank}.safetensors", folder / f"failed-{rank}"
    if not path.exists():
        raise NotAsPromised(f"rank {rank} failed: {failed.read_text(encoding='utf-8') if failed.exists() else 'it was killed'}")
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()["said"])
        gradients = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return Step(gradients=gradients, **said)


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


CHECK: Final = Check(
    "equivalence", "Batch 8 = 4 x 2 = 2 x 4 = packed = two ranks = recomputed or not = each fast path taken or not: the loss, the metrics "
    "and every gradient of a step are the same to 1e-10 in float64, in every stage.",
    sum(len(found) for group in groups(Size.FULL) for found in chosen(group, Size.FULL).values()), groups, run, missing)
