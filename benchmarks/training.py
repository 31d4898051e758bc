"""Training speed and memory against plain Trainer + peft, TRL and LLaMA-Factory, on the same tokens in the same batches.

    python benchmarks/training.py               # all parts: about 45 minutes on two quiet cores
    python benchmarks/training.py --cases long-tailed/lora/1 --sides tunewright,trainer,trl --rounds 3
    python benchmarks/training.py --quick       # a smoke test: a tiny random model, tunewright and plain Trainer, under a minute

A case is kind of rows / what trains / threads; parts.py says which there are and who takes part. The rows are made anew (see
sft_rows.py), and so is the adapter that every side begins with; optimizer, rate, order and number of steps are the same. Each run is a
process of its own, in an environment of its own; the sides run in turns, in the other order every second round, so that a machine that
becomes slower does so for all. What is timed are the optimizer steps behind the first: starting Python, reading data, opening the model
and the first step are told apart. In each round the machine's matrix product is measured too. Steps of two sides must log the same loss
to 1e-4; where they do not, the run says so and ends with exit code 1.

Results are added to `--output` line by line as JSON, so that a run that is stopped keeps what it has, and parts can be measured on
different days; `python benchmarks/table.py` makes docs/benchmarks.md of them. Peers that are not given by `--peer-python trl=PATH` are
installed with pip below `--folder` first. On the demo model (135 million weights) a side takes up to 9 GB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from environments import python_of
from lines import Log, machine, weights
from parts import PARTS, Case, Part, cases_of, parts_of
from processes import ran, untrained_adapter
from sft_rows import Workload, capacity, packs_of, write_sft
from sides import GROUPS, SIDES, YARDSTICK, sides_of

HERE: Final = Path(__file__).parent
DEMO_MODEL: Final = Path.home() / ".cache" / "tunewright" / "models" / "smollm2-135m-instruct"
RATE: Final = {"lora": 1e-4, "full": 1e-5}
STEPS: Final = 5
"""Of one run. Few, because starting a side takes as long as two steps, and rounds tell more than steps."""
TOLERANCE: Final = 1e-4
"""How far the losses of one step may lie apart. They are float32 sums in another order; Adam makes much of little gradients."""
Line = dict[str, Any]


def main() -> int:
    """Measure, write the lines, print a summary. Returns the exit code: 1 where losses differ or a side failed."""
    wish = _arguments()
    wish.folder.mkdir(parents=True, exist_ok=True)
    if wish.quick:
        from tunewright.selftest.tiny import write_model

        wish.model = write_model(wish.folder / "tiny")
    log = Log(wish.output)
    log.add(machine(wish.model))
    pythons = _pythons(wish)
    _tell_duration(wish)
    faults = []
    for place, part in enumerate(wish.parts):
        first = sum(earlier.rounds for earlier in wish.parts[:place])
        faults += _measure(part, range(first, first + part.rounds), wish, pythons, log)
    print("\n".join(["", *(f"fault: {fault}" for fault in faults)]))
    return bool(faults)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ",".join(dict.fromkeys("/".join(map(str, part.case)) for part in PARTS))
    parser.add_argument("--cases", type=cases_of, default=None, help=f"default: {known}")
    parser.add_argument("--sides", type=sides_of, default=None, help=f"{', '.join(GROUPS)}, or names separated by commas")
    parser.add_argument("--rounds", type=int, default=None, help="runs of each side")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of a run; the first of them is not timed")
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, help="directory; `tunewright demo` fetches the default")
    parser.add_argument("--peer-python", action="append", default=[], metavar="PEER=PATH", help="python of an environment with the peer")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tunewright-benchmark"))
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/training.jsonl, or in --folder if --quick")
    parser.add_argument("--quick", action="store_true", help="two rounds of tunewright and plain Trainer with a tiny model")
    wish = parser.parse_args()
    if wish.quick:
        wish.parts = parts_of(wish.cases or cases_of("long-tailed/lora/1"), wish.sides or sides_of("own"), wish.rounds or 2)
    else:
        wish.parts = parts_of(wish.cases, wish.sides, wish.rounds)
    wish.output = wish.output or (wish.folder / "quick.jsonl" if wish.quick else HERE / "results" / "training.jsonl")
    return wish


def _pythons(wish: argparse.Namespace) -> dict[str, Path]:
    """The python of every peer that takes part."""
    given = {peer: Path(path) for peer, _, path in (word.partition("=") for word in wish.peer_python)}
    wanted = {peer for part in wish.parts for side in part.sides if (peer := SIDES[side].peer)}
    return {peer: given.get(peer) or python_of(peer, wish.folder / "environments") for peer in sorted(wanted)}


def _tell_duration(wish: argparse.Namespace) -> None:
    speed = ran("ceiling", Path(sys.executable), {}, 1, wish.folder).get("gflop_per_s")
    if speed is None:
        raise SystemExit(f"error: the machine's matrix product cannot be measured: see {wish.folder / 'last-ceiling.log'}")
    for part in wish.parts:
        minutes = part.minutes(wish.steps * wish.batch, weights(wish.model), speed)
        print(f"about {minutes:3.0f} minutes: {part.case}, rounds: {part.rounds}, {', '.join(part.sides)}", flush=True)


def _measure(part: Part, rounds: range, wish: argparse.Namespace, pythons: dict[str, Path], log: Log) -> list[str]:
    """All rounds of a part, under numbers that no other part has; what went wrong."""
    case = part.case
    rows = wish.folder / f"{case.kind}.jsonl"
    work = write_sft(rows, case.kind, wish.model, (wish.steps, 1, wish.batch))
    log.add({"what": "workload", **case._asdict(), **work._asdict(), "efficiency": round(work.efficiency, 3), "steps": wish.steps})
    print(f"{case}: {work.counted_tokens} tokens are timed, {work.counted_trained} with labels; "
          f"{100 * (1 - work.efficiency):.0f} % of all places are padding", flush=True)
    job = {"rows": str(rows), "model": str(wish.model), "batch": wish.batch, "steps": wish.steps, "warm": 1,
           "learning_rate": RATE[case.tuning],
           "adapter": None if case.tuning == "full" else str(untrained_adapter(wish.model, wish.folder))}
    if case.kind == "packed":
        job |= {"packs": packs_of(rows, wish.batch), "capacity": capacity(wish.batch), "batch": 1}
    runs, faults = [], []
    for number in rounds:
        ceiling = ran("ceiling", Path(sys.executable), {}, case.threads, wish.folder)
        log.add({"what": "ceiling", **case._asdict(), "round": number, **ceiling})
        for side in part.sides if number % 2 == 0 else reversed(part.sides):
            found = _side(side, job, case.threads, pythons, wish.folder)
            log.add({"what": "side", **case._asdict(), "side": side, "round": number, "tokens": work.counted_tokens, **found})
            _show(side, number, work, found)
            runs.append((side, found))
            if "failure" in found:
                faults.append(f"{side}, {case}: {found['failure']}")
    return [*dict.fromkeys(faults), *_apart([(side, found["losses"]) for side, found in runs if "losses" in found], case)]


def _side(side: str, job: Line, threads: int, pythons: dict[str, Path], folder: Path) -> Line:
    chosen = SIDES[side]
    python = pythons[chosen.peer] if chosen.peer else Path(sys.executable)
    return ran(chosen.driver, python, {**job, "options": chosen.options}, threads, folder)


def _apart(runs: list[tuple[str, list[float]]], case: Case) -> list[str]:
    """Sides whose losses are not those of plain Trainer, or of the first side without it."""
    named = dict(runs)
    if not named:
        return []
    judge = YARDSTICK if YARDSTICK in named else next(iter(named))
    found = []
    for side, losses in runs:
        compared = SIDES[side].compared
        distance = max(abs(one - other) for one, other in zip(losses[:compared], named[judge][:compared], strict=True))
        if not distance <= TOLERANCE:
            found.append(f"{side}, {case}: losses {losses} are up to {distance:.1e} from those of {judge}, "
                         f"{named[judge]}")
    return list(dict.fromkeys(found))


def _show(side: str, number: int, work: Workload, found: Line) -> None:
    if "failure" in found:
        print(f"  round {number}  {side:32}{found['failure']}", flush=True)
        return
    tokens = work.counted_tokens
    print(f"  round {number}  {side:32}{tokens / found['cpu']:8.1f} tokens per CPU s{tokens / found['wall']:8.1f} per s"
          f"{found['peak_mb']:7} MB   first loss {found['losses'][0]:.5f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
