"""The states in which a run can be found, and going on from each of them at the cost of those that differ.

What a run does next is a function of its output directory. So each state is first settled: the start of a run is let loose on it, up to
where it would open the model (`tests.harness.scenarios.settle`). Of states that settle to the same tree one is gone on from to the end,
and of all of them every fortieth besides, which guards this shortcut.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.resuming import results
from tests.harness.killing import Case, Server

GUARD_EVERY = 40
LOCK = ".tunewright.lock"
TIMED = ("run.json", "manifest.json", "train_state.json", "trainer_state.json", "trainer_log.jsonl", "train_results.json",
         "all_results.json", "README.md")
"""Files in which two runs of the same settings differ: they tell times, the id of the run, or digests of those that do."""


@dataclass(frozen=True)
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
    outcome = server.run(Case("settle", arguments, settings["output_dir"]))
    assert outcome.code == 0, outcome.output
    return {name: Settled(*found) for name, found in json.loads(told.read_text()).items()}


def go_on(server: Server, scenario: str, settings: dict[str, str], state: Path) -> dict[str, Any]:
    """What a run leaves that begins in a state; the state is used up."""
    output_dir = Path(settings["output_dir"])
    shutil.rmtree(output_dir, ignore_errors=True)
    state.rename(output_dir)
    outcome = server.run(Case(scenario, {"settings": settings}, settings["output_dir"]))
    assert outcome.code == 0, (state.name, outcome.output)
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


def check_all(
    server: Server, scenario: str, settings: dict[str, str], states: Mapping[str, Path], expected: Mapping[str, Any],
    settles: Mapping[str, Settled] | None = None,
) -> int:
    """Go on to the same end from every state; returns how many runs that took. `settles`: of the states, where known."""
    known = settled(server, settings, states) if settles is None else settles
    assert set(known) >= set(states)
    done: set[str] = set()
    runs = 0
    for number, (name, path) in enumerate(states.items()):
        assert known[name].step >= 0, (name, known[name].digest)
        if known[name].digest not in done or number % GUARD_EVERY == GUARD_EVERY - 1:
            assert go_on(server, scenario, settings, path) == expected, name
            done.add(known[name].digest)
            runs += 1
    return runs
