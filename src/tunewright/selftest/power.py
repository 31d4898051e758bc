"""Losses of power: what was not forced to the disk is gone, cut or torn, and the run goes on to the same end.

What may be lost is told by POSIX alone: the bytes of a file that no fsync followed, and a name whose directory none followed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunewright.selftest import killing
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.damage import Damage, emptied, halved, missing
from tunewright.selftest.kills import TWO, TWO_RANKS
from tunewright.selftest.settling import copied, judged, states
from tunewright.selftest.workspace import Workspace, results

SETUPS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "LoRA with dropout": ("train", {"lora_dropout": 0.2}),
    "full": ("train", {"finetuning_type": "full"}),
    "LoRA on two ranks": (TWO, {**TWO_RANKS, "lora_dropout": 0.2})}
EVERY: Final = {Size.FULL: 3, Size.SAMPLE: 9}


def groups(size: Size) -> Sequence[str]:
    """A set-up each; a sample has the first."""
    return tuple(SETUPS)[: None if size is Size.FULL else 1]


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """Copies of the directory at operations of a run, each with one kind of loss, by turns; after a publication its rename is undone as
    well."""
    workspace = Workspace.make(tools.folder / "workspace")
    scenario, changes = SETUPS[group]
    settings = workspace.settings(tools.folder / "run", **changes)
    copies = tools.folder / "copies"
    operations = copied(tools.server(), scenario, settings, copies)
    expected = results(tools.folder / "run")
    found: dict[str, Path] = {}
    for number, (point, root) in enumerate(states(copies).items()):
        done = operations[: int(point) - 1]
        undone = bool(done) and done[-1].startswith("rename /checkpoint-")
        if undone or number % EVERY[size] == 0:
            kind = tuple(LOSSES)[number // EVERY[size] % len(LOSSES)]
            chance = random.Random(tools.seed + number)
            for path in unsafe(done, root):
                LOSSES[kind](path, chance)
            found[f"operation {point}, {operations[int(point) - 1]}; {kind}"] = root
        if undone:
            target, _, source = done[-1].removeprefix("rename ").partition(" < ")
            back = Path(shutil.copytree(root, copies / f"{point}-undone"))
            (back / target[1:]).rename(back / source[1:])
            found[f"operation {point}, {done[-1]} is undone"] = back
    yield from (Outcome(group, case, not said, said) for case, said in judged(tools.server(), scenario, settings, found, expected))


def unsafe(operations: Sequence[str], root: Path) -> list[Path]:
    """The files below `root` whose bytes a loss of power after `operations` may take, sorted."""
    safe: dict[str, bool] = {}
    for operation in operations:
        what, path = operation.split(" ")[0], path_of(operation)
        if what in ("open", "write", "truncate"):
            safe[path] = False
        elif what == "fsync":
            safe[path] = True
        elif what == "rename":
            source = operation.partition(" < ")[2]
            for name in [one for one in safe if one == source or one.startswith(f"{source}/")]:
                safe[path + name[len(source):]] = safe.pop(name)
    return sorted(path for path in root.rglob("*") if path.is_file() and not safe.get(f"/{path.relative_to(root)}", False))


def path_of(operation: str) -> str:
    """The path that an operation of the journal changes."""
    what, _, rest = operation.partition(" ")
    return rest.rpartition(" ")[0] if what == "write" else rest.partition(" < ")[0]


def _zeroed(path: Path, chance: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _any_of_these(path: Path, chance: random.Random) -> None:
    chance.choice((emptied, halved, _zeroed, missing, lambda path, chance: None))(path, chance)


LOSSES: Final[Mapping[str, Damage]] = {
    "files emptied": emptied, "files cut in half": halved, "files full of zeros": _zeroed, "files gone": missing,
    "each file otherwise": _any_of_these}

CHECK: Final = Check(
    "power", "A loss of power at any operation takes what was not forced to the disk (files emptied, cut, zeroed or gone, a publication "
    "undone): the run goes on to bit-identical weights.", 340, groups, run, killing.missing)
