"""Checkpoints that are damaged: the newest intact one is gone on from, and the damaged file is named."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tunewright.engine.checkpoint import CheckpointStore
from tunewright.runtime import Ranks
from tunewright.selftest import killing
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import Case
from tunewright.selftest.kills import SETUPS as RUNS
from tunewright.selftest.kills import here
from tunewright.selftest.settling import LOCK
from tunewright.selftest.workspace import Workspace, results, unlike

SETUPS: Final = ("LoRA with dropout", "ppo", "full", "reward model", "stream", "LoRA on two ranks")
FLIPS: Final = {Size.FULL: 100, Size.SAMPLE: 10}
Damage = Callable[[Path, random.Random], None]
RUN_ON: Final = {Size.FULL: 1, Size.SAMPLE: 4}
"""Of so many files one is damaged for a run that goes on to its end."""


def groups(size: Size) -> Sequence[str]:
    """A set-up each; a sample has the first two."""
    return SETUPS[: None if size is Size.FULL else 2]


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """Every file of the newest checkpoint times every damage: the one before it is chosen, and the file named."""
    yield from (Outcome(group, case, not said, said) for case, said in _cases(group, size, tools))


def _cases(name: str, size: Size, tools: Tools) -> Iterator[tuple[str, str]]:
    workspace, setup = Workspace.make(tools.folder / "workspace"), RUNS[name]
    root = tools.folder / "run"
    settings = workspace.settings(root, **here(setup.changes, workspace))
    tools.server().done(Case(setup.scenario, {"settings": settings}, settings["output_dir"]))
    expected = results(root)
    straight = Path(shutil.copytree(root, tools.folder / "straight"))
    older, newest = sorted(straight.glob("checkpoint-*"), key=_step)[-2:]
    files = sorted(path.relative_to(newest) for path in newest.rglob("*") if path.is_file())
    damages = {**DAMAGES, **{f"bit {number} of {FLIPS[size]} flipped": _flipped for number in range(FLIPS[size])}}
    for place, file in enumerate(files):
        for number, (damage, act) in enumerate(damages.items()):
            with _put_back(newest / file):
                act(newest / file, random.Random(tools.seed + len(damages) * place + number))
                yield f"{file}: {damage}", _wrong(straight, _step(older), f"{newest}: {file.as_posix()} ")
                if number == place % len(damages) and place % RUN_ON[size] == 0:
                    shutil.rmtree(root)
                    shutil.copytree(straight, root)
        if place % RUN_ON[size] == 0:
            yield f"{file}: run on to the end", _run_on(setup.scenario, settings, file, expected, tools)
    for at, (first, second) in enumerate(itertools.pairwise(files)):
        with _put_back(newest / first), _put_back(newest / second):
            tuple(DAMAGES.values())[at % len(DAMAGES)](newest / first, random.Random(at))
            _flipped(newest / second, random.Random(at))
            yield f"{first} and {second}", _wrong(straight, _step(older), f"{newest}: ")


def _wrong(root: Path, step: int, start: str) -> str:
    """What is wrong with the choice of a checkpoint and with what is said of it."""
    said: list[str] = []
    run_id = json.loads((root / "run.json").read_text(encoding="utf-8"))["run_id"]
    found = CheckpointStore(root, run_id, Ranks()).newest_intact(said.append)
    chosen = 0 if found is None else found.step
    if chosen != step:
        return f"chosen is checkpoint {chosen}, not {step}"
    told = len(said) == 1 and said[0].startswith(start) and said[0].endswith("falling back to the checkpoint before it")
    return "" if told else f"said is {' | '.join(said) or 'nothing'}"


def _run_on(scenario: str, settings: Mapping[str, str], file: Path, expected: Mapping[str, Any], tools: Tools) -> str:
    """What is wrong with a run that goes on in the damaged directory. The final weights are taken away, so that it has to write them."""
    root = Path(settings["output_dir"])
    for path in root.glob("*.safetensors"):
        path.unlink()
    (root / LOCK).unlink(missing_ok=True)
    ended = tools.server().run(Case(scenario, {"settings": settings}, settings["output_dir"]))
    if ended.code:
        return f"ended with {ended.code}: {ended.last_lines()}"
    named = f": {file.as_posix()} " in ended.output and "falling back to the checkpoint before it" in ended.output
    return unlike(results(root), expected) if named else f"the file is not named: {ended.last_lines()}"


@contextmanager
def _put_back(path: Path) -> Iterator[None]:
    """The file is there again after the block, as it was."""
    content = path.read_bytes()
    try:
        yield
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def missing(path: Path, chance: random.Random) -> None:
    """No file."""
    path.unlink()


def emptied(path: Path, chance: random.Random) -> None:
    """No bytes."""
    path.write_bytes(b"")


def halved(path: Path, chance: random.Random) -> None:
    """The first half of the bytes."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _longer(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _directory(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _flipped(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << (0 if content[place] in b"eE" else bit)  # 1E-05 is 1e-05
    path.write_bytes(content)


DAMAGES: Final[Mapping[str, Damage]] = {
    "missing": missing, "empty": emptied, "cut in half": halved, "a byte longer": _longer, "a directory": _directory}

CHECK: Final = Check(
    "damage", "Each file of a checkpoint missing, empty, cut in half, longer, a directory, or with any bit flipped: the checkpoint before "
    "it is gone on from, the file is named, and the end is bit-identical.", 8000, groups, run, killing.missing)
