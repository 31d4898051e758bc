"""Rows per second of preprocessing, against LLaMA-Factory's, on the same rows with the same tokenizer and the same template.

    python benchmarks/preprocessing.py [--rows 50000] [--repeats 3] [--workers 1,2] [--model DIR] [--peer-python PATH]

The rows are made anew (see prose.py), the tokenizer is that of the demo model, the template ChatML, both sides begin with nothing
cached, and the two run in turns, so that a machine that becomes slower does so for both. What is timed is the work from rows in a
file to tokens that a trainer can read; starting Python and loading the tokenizer are not. Without `--peer-python` an environment with
llamafactory 0.9.5 is made in `--folder` first. The result is `benchmarks/results/preprocessing.json` and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from prose import write_rows

HERE: Final = Path(__file__).parent
PEER: Final = "llamafactory==0.9.5"
DEMO_MODEL: Final = Path.home() / ".cache" / "tunewright" / "models" / "smollm2-135m-instruct"
SIDES: Final = ("tunewright", "llamafactory")
Run = dict[str, Any]


def main() -> int:
    """Measure, write the result, print the table. Returns the exit code."""
    wish = _arguments()
    wish.folder.mkdir(parents=True, exist_ok=True)
    rows = wish.folder / f"rows-{wish.rows}.jsonl"
    write_rows(rows, wish.rows)
    peer = wish.peer_python or _peer_environment(wish.folder / "peer")
    runs: dict[str, list[Run]] = {}
    for repeat in range(wish.repeats):
        for workers in wish.workers:
            for side in SIDES if repeat % 2 == 0 else reversed(SIDES):
                found = _timed(side, peer, rows, wish.model, workers, wish.folder)
                runs.setdefault(f"{side} {workers}", []).append(found)
                print(f"{side}, {workers} workers: {found['rows'] / found['seconds']:.0f} rows/s, {found['cpu']:.1f} CPU s", flush=True)
    result = _result(runs, wish, rows)
    (HERE / "results").mkdir(exist_ok=True)
    wish.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(_table(result))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=lambda text: [int(one) for one in text.split(",")], default=[1, 2])
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, help="directory with a tokenizer; `tunewright demo` fetches the default")
    parser.add_argument("--peer-python", type=Path, help="python of an environment with llamafactory 0.9.5")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tunewright-benchmark"))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "preprocessing.json")
    return parser.parse_args()


def _peer_environment(folder: Path) -> Path:
    """The python of a virtual environment with the peer in it, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


def _timed(side: str, peer: Path, rows: Path, model: Path, workers: int, folder: Path) -> Run:
    """One run in a process and a folder of its own."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    own = side == "tunewright"
    script = HERE / ("own_preprocessing.py" if own else "peer_llamafactory.py")
    surroundings = {
        **os.environ, "HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(HERE.parent / "src") if own else "", "DISABLE_VERSION_CHECK": "1"}
    command = [sys.executable if own else str(peer), str(script), str(rows), str(model), str(workers), str(work)]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: Run = json.loads(lines[-1].removeprefix("RESULT "))
    (work / "tokens.npz").replace(folder / f"{side}.npz")
    shutil.rmtree(work, ignore_errors=True)
    return found


def _result(runs: dict[str, list[Run]], wish: argparse.Namespace, rows: Path) -> Run:
    """Medians of each side, ratios of the pairs that ran one after the other, and whether the tokens are the same."""
    cases = {}
    for workers in wish.workers:
        own, other = (runs[f"{side} {workers}"] for side in SIDES)
        wall = [b["seconds"] / b["rows"] / (a["seconds"] / a["rows"]) for a, b in zip(own, other, strict=True)]
        cpu = [b["cpu"] / b["rows"] / (a["cpu"] / a["rows"]) for a, b in zip(own, other, strict=True)]
        cases[str(workers)] = {
            **{side: _median(runs[f"{side} {workers}"]) for side in SIDES},
            "times_the_rows_per_second": _spread(wall), "times_the_rows_per_cpu_second": _spread(cpu)}
    return {
        "rows": wish.rows, "bytes": rows.stat().st_size, "repeats": wish.repeats, "cores": os.cpu_count(),
        "python": platform.python_version(), "peer": PEER, "workers": cases,
        "tokens": _compared(*(wish.folder / f"{side}.npz" for side in SIDES)),
        "runs": runs}


def _compared(own: Path, other: Path) -> Run:
    """Row by row: on how many rows both agree, and in what the others differ."""
    ours, theirs = _by_row(own), _by_row(other)
    counts = dict.fromkeys(("rows_of_tunewright", "rows_of_llamafactory", "rows_with_the_same_ids", "of_these_the_same_labels",
                            "of_these_labels_that_differ_by_line_breaks_behind_answers", "of_these_other_labels"), 0)
    counts |= {"rows_of_tunewright": len(ours), "rows_of_llamafactory": len(theirs)}
    for row, (ids, labels) in ours.items():
        their_ids, their_labels = theirs[row]
        if not np.array_equal(ids, their_ids):
            continue
        counts["rows_with_the_same_ids"] += 1
        more = np.flatnonzero(labels != their_labels)
        if not len(more):
            counts["of_these_the_same_labels"] += 1
        elif (labels[more] == -100).all() and (their_labels[more] == ids[more]).all() and (labels[more - 1] == ids[more - 1]).all():
            counts["of_these_labels_that_differ_by_line_breaks_behind_answers"] += 1
        else:
            counts["of_these_other_labels"] += 1
    return counts


def _by_row(path: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Row of the file -> its ids and labels."""
    held = np.load(path)
    ends = np.cumsum(held["lengths"])
    ids, labels = held["ids"], held["labels"]
    return {int(row): (ids[end - size : end], labels[end - size : end])
            for row, end, size in zip(held["rows"], ends, held["lengths"], strict=True)}


def _median(runs: list[Run]) -> Run:
    def of(key: str) -> float:
        return round(statistics.median(run[key] for run in runs), 2)

    return {"rows_per_second": round(statistics.median(run["rows"] / run["seconds"] for run in runs)),
            "rows_per_cpu_second": round(statistics.median(run["rows"] / run["cpu"] for run in runs)),
            "seconds": of("seconds"), "cpu": of("cpu"), "peak_mb_parent": of("rss_parent"), "peak_mb_worker": of("rss_worker")}


def _spread(values: list[float]) -> Run:
    return {"min": round(min(values), 2), "median": round(statistics.median(values), 2), "max": round(max(values), 2)}


def _table(result: Run) -> str:
    lines = [f"{result['rows']} rows, {result['repeats']} runs of each, in turns; medians",
             "| workers | | rows/s | rows per CPU s | peak MB, parent | peak MB, a worker |", "|---|---|---|---|---|---|"]
    for workers, case in result["workers"].items():
        for side in SIDES:
            one = case[side]
            lines.append(f"| {workers} | {side} | {one['rows_per_second']} | {one['rows_per_cpu_second']} | {one['peak_mb_parent']:.0f} | "
                         f"{one['peak_mb_worker']:.0f} |")
        wall, cpu = case["times_the_rows_per_second"], case["times_the_rows_per_cpu_second"]
        lines.append(f"| {workers} | ratio, pair by pair | {wall['median']} ({wall['min']} to {wall['max']}) | "
                     f"{cpu['median']} ({cpu['min']} to {cpu['max']}) | | |")
    return "\n".join([*lines, *(f"{name.replace('_', ' ')}: {count}" for name, count in result["tokens"].items())])


if __name__ == "__main__":
    raise SystemExit(main())
