"""The states in which a run can be found, and going on from each of them at the cost of those that differ.

What a run does next is a function of its output directory. So each state is first settled: the start of a run is let loose on it, up to
where it would open the model (`tunewright.selftest.scenarios.settle`). Of states that settle to the same tree one is gone on from to the
end, and of all of them every fortieth besides, which guards this shortcut.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.selftest.killing import Case, NotAsPromised, Server
from tunewright.selftest.workspace import results, unlike

GUARD_EVERY: Final = 40
LOCK: Final = ".tunewright.lock"
TIMED: Final = ("run.json", "manifest.json", "train_state.json", "trainer_state.json", "trainer_log.jsonl", "train_results.json",
                "all_results.json", "README.md")
"""Files in which two runs of the same settings differ: they tell times, the id of the run, or digests of those that do."""


def copied(
    server: Server, scenario: str, settings: Mapping[str, str], copies: Path, every: int = 1, steps: Sequence[int] = (),
) -> tuple[str, ...]:
    """A run that is not interrupted, and copies of its output directory as a kill would have left it: in `copies`/<number> at each
    `every`th of its file operations (0: at none), and in `copies`/step-<step> in the middle of the step that follows each of `steps`, if
    there is one. Returns the operations.
    """
    copies.mkdir(parents=True)
    after = {str(step): str(copies / f"step-{step}") for step in steps}
    arguments = {"settings": settings, **({"copy_after": after} if steps else {})}
    case = Case(scenario, arguments, settings["output_dir"], "copy" if every else "count", every, str(copies))
    return server.done(case).operations


def states(copies: Path) -> dict[str, Path]:
    """What `copied` has left, in the order of the operations, the steps last."""
    found = sorted((not path.name.isdigit(), len(path.name), path.name) for path in copies.iterdir())
    return {name: copies / name for *_, name in found}


def before_renames(operations: Sequence[str], copies: Path) -> dict[str, Path]:
    """States that `copied` cannot leave, made from those next to them: safetensors gives its finished file its name by a system call of its
    own, which no function of a library makes. So many as operations before and after such a call were copied."""
    made = {}
    for number, one in enumerate(operations, start=1):
        temporary = Path(one.split(" ")[1].lstrip("/")) if one.startswith("write ") else Path()
        before, after = copies / str(number), copies / str(number + 1)
        if temporary.name.startswith(".tmp") and before.is_dir() and after.is_dir() and not (after / temporary).exists():
            (named,) = _names(after / temporary.parent) - _names(before / temporary.parent)
            state = copies.parent / f"{copies.name}-unnamed-{number}"
            shutil.copytree(after, state)
            (state / temporary.parent / named).rename(state / temporary)
            made[f"before {named} of {temporary.parent} has its name"] = state
    return made


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@dataclass(frozen=True, slots=True)
class Settled:
    """The step that the run goes on from, and a digest of its directory; -1 and the error if it refuses to."""

    step: int
    digest: str


def settled(server: Server, settings: Mapping[str, str], states: Mapping[str, Path], *, timed: bool = True) -> dict[str, Settled]:
    """What the start of a run makes of each state. The output directory of `settings` is used for it and is gone afterwards.

    `timed`: states that differ in the times that they tell are different, as those of one run are.
    """
    told = Path(f"{settings['output_dir']}.settled.json")
    arguments = {"settings": settings, "states": {name: str(path) for name, path in states.items()}, "told": str(told), "timed": timed}
    server.done(Case("settle", arguments, settings["output_dir"]))
    return {name: Settled(*found) for name, found in json.loads(told.read_text()).items()}


def go_on(server: Server, scenario: str, settings: Mapping[str, str], state: Path) -> dict[str, Any]:
    """What a run leaves that begins in a state; the state is used up. Raises `NotAsPromised`."""
    output_dir = Path(settings["output_dir"])
    shutil.rmtree(output_dir, ignore_errors=True)
    state.rename(output_dir)
    server.done(Case(scenario, {"settings": settings}, settings["output_dir"]))
    return results(output_dir)


def tree_digest(root: Path, *, timed: bool) -> str:
    """SHA-256 of names and bytes. Left out are the lock's note of who holds it, and of a run without a checkpoint its id and date: the
    start of a run may have made those just now. Where times do not count, of files that tell them only the lines are counted."""
    digest = hashlib.sha256()
    bare = not any(root.glob("checkpoint-*"))
    for path in sorted(one for one in root.rglob("*") if one.name != LOCK):
        digest.update(f"\0{path.relative_to(root)}\0".encode())
        if path.name == "run.json" and bare:
            digest.update(json.dumps(json.loads(path.read_text())["config"]).encode())
        elif path.is_file():
            content, tells = path.read_bytes(), path.name.strip(".").removesuffix(".new") in TIMED
            digest.update(str(content.count(b"\n")).encode() if tells and not timed else content)
    return digest.hexdigest()


def misplaced(operations: Sequence[str], settles: Mapping[str, Settled]) -> dict[str, str]:
    """State -> what is wrong with where it is gone on from: that has to be the newest checkpoint that was published, or a later one that
    lay there whole and unpublished."""
    wrong = {}
    for name, found in settles.items():
        if name.isdigit():
            before = "\n".join(operations[: int(name) - 1])
            published = max([0, *map(int, re.findall(r"^rename /checkpoint-(\d+) < /\.staging-", before, re.MULTILINE))])
            whole = max([0, *map(int, re.findall(r"^rename /\.staging-(\d+)/manifest\.json <", before, re.MULTILINE))])
            if found.step < published or found.step not in (published, whole):
                wrong[name] = f"goes on from {found.step} where {published} was published: {found.digest if found.step < 0 else ''}"
    return wrong


def judged(
    server: Server, scenario: str, settings: Mapping[str, str], states: Mapping[str, Path], expected: Mapping[str, Any],
    settles: Mapping[str, Settled] | None = None,
) -> Iterator[tuple[str, str]]:
    """Each state, and what is wrong with the end to which it leads (nothing, or one line)."""
    known = settled(server, settings, states) if settles is None else settles
    ends: dict[str, str] = {}
    for number, (name, path) in enumerate(states.items()):
        found = known[name]
        if found.step < 0:
            yield name, f"refused: {found.digest}"
            continue
        if found.digest not in ends or number % GUARD_EVERY == GUARD_EVERY - 1:
            ends[found.digest] = end_of(server, scenario, settings, path, expected)
        yield name, ends[found.digest]


def end_of(server: Server, scenario: str, settings: Mapping[str, str], state: Path, expected: Mapping[str, Any]) -> str:
    """What is wrong with the end to which a state leads; the state is used up."""
    try:
        return unlike(go_on(server, scenario, settings, state), expected)
    except NotAsPromised as error:
        return str(error)
