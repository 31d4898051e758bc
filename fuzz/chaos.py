"""ckpt-chaos, a tool of others, against tunewright and against transformers' Trainer: `python -m fuzz.chaos [--points 40]
[--record FILE] [--environment FOLDER] [--only tunewright,trainer,bench]`.

It kills a training command at file operations of its checkpoints, where it writes a file also with that file cut in half, runs the
same command again, and compares the weights at the end with those of an undisturbed run. Its verdicts are recorded as it gives them. The
tool is installed in an environment of its own; the trainings run in this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.environments import environment
from fuzz.target import ROOT

TOOL: Final = "ckpt-chaos==0.1.8"
STEP: Final = r"resuming from \S+ \(step (\d+)\)"
"""The line by which both trainings say where they go on."""
VERDICTS: Final = ("PASS", "HARD_FAIL", "SILENT_DIVERGENCE", "LOST_WORK", "CONTROL_FAIL")
_SUMMARY: Final = ("import json, sys; from pathlib import Path; from ckpt_chaos.scoreboard import summarize; "
                   "print(json.dumps(summarize(Path(sys.argv[1]))))")


@dataclass(frozen=True, slots=True)
class Training:
    """A command with `{out}` for its output directory, and what of it must come out the same."""

    command: tuple[str, ...]
    result: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool on every training; 1 if ours did not pass everywhere."""
    options = _options(argv)
    packages = next(environment(options.environment, [TOOL]).parents[1].glob("lib/python*/site-packages"))
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ours_passed = True
    with tempfile.TemporaryDirectory(prefix="tunewright-chaos-") as text:
        for name, command in _commands(Path(text), options).items():
            work = Path(text) / name
            began = time.monotonic()
            said = subprocess.run(command, cwd=ROOT, env=_environment(packages), capture_output=True, text=True,
                                  check=False)
            line = {"run": started, "what": name, "tool": TOOL, "clock_s": round(time.monotonic() - began, 1),
                    "python": platform.python_version(), "transformers": version("transformers"), **_figures(work, packages, said)}
            ours_passed &= name != "tunewright" or (line["points"] > 0 and line["PASS"] == line["points"])
            print(json.dumps(line), flush=True)
            if options.record:
                options.record.parent.mkdir(parents=True, exist_ok=True)
                with options.record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    return int(not ours_passed)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=40, help="places to kill at, for each training, spread over all its file operations")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--modes", default="before,torn", help="the tool's: before, torn, term, unsynced")
    parser.add_argument("--record", type=Path, help="file of JSON lines to which the figures are added")
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "ckpt-chaos", help="folder for the environment with the tool")
    parser.add_argument("--only", default="tunewright,trainer,bench")
    return parser.parse_args(argv)


def _commands(folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """What to run, by name: the tool on both trainings, and its own benchmark of Trainer."""
    tool = [sys.executable, "-m", "ckpt_chaos"]
    limits = ["--max-points", str(options.points), "--modes", options.modes, "--jobs", str(options.jobs)]
    contract = ["--step-regex", STEP, "--checkpoint-glob", "{out}/checkpoint-*", "--ckpt-ignore-size"]
    found = {}
    for name in options.only.split(","):
        work = ["--work", str(folder / name)]
        if name == "bench":
            found[name] = [*tool, "bench", "hf_trainer", "--jobs", str(options.jobs), *work]
        else:
            one = _training(name, folder)
            found[name] = [*tool, "run", *limits, *contract, "--result-file", one.result, *work, "--", *one.command]
    return found


def _training(name: str, folder: Path) -> Training:
    """Six steps with a checkpoint at every second, of the same tiny model on the same rows. None is deleted, as the tool wants."""
    from tunewright.selftest.tiny import write_model, write_rows

    model, rows = folder / "model", folder / "rows.jsonl"
    if not model.exists():
        write_model(model)
        write_rows(rows, 22)
    if name == "trainer":
        program = str(ROOT / "fuzz" / "plain_trainer.py")
        return Training((sys.executable, program, str(model), str(rows), "{out}"), "{out}/model.safetensors")
    settings = {"model_name_or_path": model, "dataset": rows, "output_dir": "{out}", "finetuning_type": "full", "max_steps": 6,
                "save_steps": 2, "save_total_limit": "null", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
                "cutoff_len": 24, "logging_steps": 1, "learning_rate": 0.001, "data_cache_dir": "none", "plot_loss": "false",
                "disable_tqdm": "true"}
    return Training((sys.executable, "-m", "tunewright", "train", *(f"{key}={value}" for key, value in settings.items())),
                    "{out}/model.safetensors")


def _figures(work: Path, packages: Path, said: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The tool's own count of its verdicts, and what it says of each point that did not pass."""
    done = subprocess.run([sys.executable, "-c", _SUMMARY, str(work)], env=_environment(packages), capture_output=True, text=True,
                          check=True)
    summary = json.loads(done.stdout)
    if not summary["points"]:
        return {"points": 0, "said": (said.stdout + said.stderr)[-1000:]}
    failed = [" ".join(line.split()) for line in said.stdout.splitlines() if line.rstrip().endswith(VERDICTS[1:])]
    return {"points": summary["points"], **{verdict: summary["counts"].get(verdict, 0) for verdict in VERDICTS}, "failed": failed[:20]}


def _environment(packages: Path) -> Mapping[str, str]:
    """The tool beside what is installed here. It puts itself in front of the path of the trainings."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(packages)]), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false"}


if __name__ == "__main__":
    sys.exit(main())
