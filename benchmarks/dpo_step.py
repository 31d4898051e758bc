"""Pairs per CPU second and memory of DPO steps, against TRL's DPOTrainer, on the same pairs in the same batches.

    python benchmarks/dpo_step.py               # about an hour on two quiet cores
    python benchmarks/dpo_step.py --sides tunewright,trl --rounds 2 --peer-python PATH

SmolLM2-135M in float32 with LoRA of rank 8 on all linear layers; prompts of 150 tokens, answers of 80, 4 pairs to a step, so that nothing
is padded. A reference is live (asked in each step, with the adapter switched off) or cached (asked before the first). TRL has gradient
checkpointing on unless it is told otherwise, and a live reference; both are switched off in turn. Each run is a process of its own, in an
environment of its own; the sides run in turns, in the other order every second round. What is timed are the optimizer steps behind the
first. All sides must log the same losses to 1e-4, or the exit code is 1.

Results are added to `--output` line by line as JSON; `python benchmarks/table.py` puts them into docs/benchmarks.md. TRL is installed with
pip below `--folder` first unless `--peer-python` is given. A side takes up to 9 GB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from dpo_measured import CACHED, OWN
from environments import python_of
from lines import Line, Log, machine
from pair_rows import ANSWER, PROMPT, write_pairs
from processes import ran, untrained_adapter
from sides import Side

HERE: Final = Path(__file__).parent
DEMO_MODEL: Final = Path.home() / ".cache" / "tunewright" / "models" / "smollm2-135m-instruct"
TOLERANCE: Final = 1e-4
BETA: Final = 0.1
_LIVE: Final = {"precompute_ref_log_probs": "false"}

SIDES: Final[dict[str, Side]] = {
    OWN: Side("own_dpo_step", None, _LIVE),
    CACHED: Side("own_dpo_step", None, {}),
    f"{OWN}-unshared": Side("own_dpo_step", None, {**_LIVE, "slow_paths": "prefix"}),
    "trl": Side("trl_dpo", "trl", {}),
    "trl-no-checkpointing": Side("trl_dpo", "trl", {"gradient_checkpointing": False}),
    "trl-cached": Side("trl_dpo", "trl", {"precompute_ref_log_probs": True}),
    "trl-cached-no-checkpointing": Side("trl_dpo", "trl", {"precompute_ref_log_probs": True, "gradient_checkpointing": False}),
}
"""A cached reference is our default, as a live one is TRL's."""


def main() -> int:
    """Measure, write the lines, print a summary. Returns the exit code: 1 where losses differ or a side failed."""
    wish = _arguments()
    wish.folder.mkdir(parents=True, exist_ok=True)
    rows = wish.folder / "pairs.jsonl"
    write_pairs(rows, wish.model, wish.steps * wish.batch)
    timed = (wish.steps - 1) * wish.batch
    job = {"rows": str(rows), "model": str(wish.model), "batch": wish.batch, "steps": wish.steps, "warm": 1, "learning_rate": 1e-4,
           "beta": BETA, "adapter": str(untrained_adapter(wish.model, wish.folder))}
    needs_peer = any(SIDES[name].peer for name in wish.sides)
    peer = wish.peer_python or (python_of("trl", wish.folder / "environments") if needs_peer else Path(sys.executable))
    log, runs = Log(wish.output), []
    log.add(machine(wish.model))
    log.add({"what": "workload", "prompt": PROMPT, "answer": ANSWER, "batch": wish.batch, "steps": wish.steps, "pairs": timed})
    for number in range(wish.rounds):
        for name in wish.sides if number % 2 == 0 else reversed(wish.sides):
            side = SIDES[name]
            found = ran(side.driver, peer if side.peer else Path(sys.executable), {**job, "options": side.options}, 1, wish.folder)
            log.add({"what": "side", "side": name, "round": number, "pairs": timed, **found})
            _show(name, number, timed, found)
            runs.append((name, found))
    faults = [f"{name}: {found['failure']}" for name, found in runs if "failure" in found] + _apart(runs)
    print("\n".join(["", *(f"fault: {fault}" for fault in dict.fromkeys(faults)), *_ratios(runs)]))
    return bool(faults)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=_sides, default=list(SIDES), help=f"of {', '.join(SIDES)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of a run; the first of them is not timed")
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step")
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, help="directory; `tunewright demo` fetches the default")
    parser.add_argument("--peer-python", type=Path, default=None, help="python of an environment with TRL")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tunewright-benchmark"))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "dpo_step.jsonl")
    return parser.parse_args()


def _sides(words: str) -> list[str]:
    names = words.split(",")
    if unknown := [name for name in names if name not in SIDES]:
        raise argparse.ArgumentTypeError(f"no side is called {', '.join(unknown)}; there are {', '.join(SIDES)}")
    return names


def _show(name: str, number: int, pairs: int, found: Line) -> None:
    if "failure" in found:
        print(f"round {number}  {name:30}{found['failure']}", flush=True)
        return
    print(f"round {number}  {name:30}{pairs / found['cpu']:8.3f} pairs per CPU s{pairs / found['wall']:8.3f} per s{found['peak_mb']:7} MB"
          f"   first loss {found['losses'][0]:.5f}", flush=True)


def _apart(runs: list[tuple[str, Any]]) -> list[str]:
    """Sides whose losses are not those of the first side that came to its end."""
    known = [(name, found["losses"]) for name, found in runs if "losses" in found]
    found = []
    for name, losses in known:
        distance = max(abs(one - other) for one, other in zip(losses, known[0][1], strict=True))
        if not distance <= TOLERANCE:
            found.append(f"{name}: losses {losses} are up to {distance:.1e} from those of {known[0][0]}, {known[0][1]}")
    return found


def _ratios(runs: list[tuple[str, Any]]) -> list[str]:
    """How many times the speed of each peer ours is, and in which part of its memory."""
    by_side: dict[str, list[Line]] = {}
    for name, found in runs:
        by_side.setdefault(name, []).append(found)
    lines = []
    for own in (name for name in by_side if not SIDES[name].peer):
        for name in (name for name in by_side if SIDES[name].peer):
            rounds = [(ours, theirs) for ours, theirs in zip(by_side[own], by_side[name], strict=True) if "cpu" in ours and "cpu" in theirs]
            if rounds:
                faster = statistics.median(theirs["cpu"] / ours["cpu"] for ours, theirs in rounds)
                memory = statistics.median(ours["peak_mb"] / theirs["peak_mb"] for ours, theirs in rounds)
                lines.append(f"{own} against {name}: {faster:.2f} times the pairs per CPU s in {memory:.2f} of the memory")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
