"""A model's whole life, command by command: pt -> sft -> rm -> dpo, kto, orpo, simpo -> ppo -> grpo -> predict -> export -> chat.

    python examples/life_cycle/life_cycle.py [--output DIRECTORY] [--model MODEL] [--small]

Every step is a `tunewright` command that begins with what the steps before it left; the settings are the files beside this one. What is
finished is not done again, so the script may be stopped and started anew. At the end it measures on held-out orders, without tunewright
(measure.py), writes report.json, and exits with 1 if a stage did not improve what it is for.

  --output   where everything goes (default: runs/life_cycle)
  --model    what pre-training begins with (default: demo, which is SmolLM2-135M-Instruct)
  --small    a few rows and two steps of each stage, all in this process: shows that everything runs, and learns nothing
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import orders  # noqa: E402
import results  # noqa: E402

PREFERENCES = ("dpo", "kto", "orpo", "simpo")
POLICIES = ("merged", *PREFERENCES, "ppo", "grpo")
DRAWN = ("temperature=1.0", "top_p=1.0", "top_k=0", "max_new_tokens=40", "per_device_eval_batch_size=32")
NAMES = {"demo": "SmolLM2-135M-Instruct"}
QUESTION = "Hello, this is Maria. Please send 4 green lamps to Lisbon."


@dataclass(frozen=True)
class Step:
    """One command, the file that it leaves when it is finished, and what is typed into it."""

    name: str
    words: tuple[str, ...]
    leaves: str
    typed: str = ""


def steps(out: str) -> list[Step]:
    """The life cycle, with its files in `out`."""
    return [
        train("pt", out), train("sft", out),
        Step("merge", ("export", f"{out}/sft", "--out", f"{out}/merged"), "merged/config.json"),
        train("rm", out),
        Step("score", ("predict", f"{out}/rm", "stage=rm", f"eval_dataset={out}/data/pairs.heldout.jsonl", f"output_dir={out}/scores"),
             "scores/generated_predictions.jsonl"),
        *(train(stage, out) for stage in (*PREFERENCES, "ppo", "grpo")),
        *(predict(policy, out) for policy in POLICIES),
        Step("export", ("export", f"{out}/grpo", "--out", f"{out}/final"), "final/config.json"),
        Step("chat", ("chat", f"{out}/final", "do_sample=false", "max_new_tokens=40", "--default_system", orders.SYSTEM), "chat.txt",
             typed=f"{QUESTION}\nexit\n")]


def train(stage: str, out: str) -> Step:
    """Train as `<stage>.yaml` says."""
    return Step(stage, ("train", f"{out}/{stage}.yaml"), f"{stage}/train_results.json")


def predict(policy: str, out: str) -> Step:
    """Answer the held-out orders, by chance as in training."""
    words = ("predict", f"{out}/{policy}", f"eval_dataset={out}/data/answers.heldout.jsonl", f"output_dir={out}/answers/{policy}", *DRAWN)
    return Step(f"predict {policy}", words, f"answers/{policy}/generated_predictions.jsonl")


def main(argv: Sequence[str]) -> int:
    """Do what is not done yet, measure, report. Returns 1 if a stage did not improve what it is for, or the code of a failed command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/life_cycle"))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args(argv)
    out: Path = given.output
    orders.write(out / "data", orders.SMALL if given.small else orders.FULL)
    write_settings(out, given.model, FEW if given.small else {})
    for step in steps(str(out)):
        if code := do(step, out, in_this_process if given.small else as_a_command):
            print(f"{step.name} ended with exit code {code}", file=sys.stderr)
            return code
    report = reported(out, given.model)
    sys.stdout.write(results.table(report))
    missed = [] if given.small else results.missed(report)
    for line in missed:
        print(f"not reached: {line}", file=sys.stderr)
    return int(bool(missed))


def reported(out: Path, model: str) -> results.Report:
    """The report in `out`, measured unless it is there."""
    file = out / "report.json"
    if not file.exists():
        print("== measure", flush=True)
        found = results.measure(out, NAMES.get(model, model), POLICIES, (orders.SYSTEM, QUESTION))
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


FEW = {"max_steps": "2", "max_new_tokens": "8", "per_device_train_batch_size": "2", "num_generations": "2"}
"""What the small form changes in the settings, where they name it; and `max_steps` everywhere."""


def write_settings(out: Path, model: str, changes: dict[str, str]) -> None:
    """The settings of every stage, for this folder and model."""
    for source in sorted(HERE.glob("*.yaml")):
        lines = source.read_text(encoding="utf-8").replace("runs/life_cycle", str(out)).replace("examples/life_cycle", str(HERE))
        kept = [f"model_name_or_path: {model}" if line.startswith("model_name_or_path: demo") else line for line in lines.splitlines()]
        for name, value in changes.items():
            kept = [f"{name}: {value}" if line.startswith(f"{name}:") else line for line in kept]
        if "max_steps" in changes and f"max_steps: {changes['max_steps']}" not in kept:
            kept.append(f"max_steps: {changes['max_steps']}")
        (out / source.name).write_text("\n".join(kept) + "\n", encoding="utf-8")


def do(step: Step, out: Path, way: Any) -> int:
    """Run a step unless it is finished; its processor time is kept in `minutes.json`. Returns its exit code."""
    if (out / step.leaves).exists():
        print(f"== {step.name}: done before", flush=True)
        return 0
    print(f"== {step.name}\n$ tunewright {' '.join(step.words)}", flush=True)
    started = cpu_seconds()
    code, said = way(step)
    if code:
        return int(code)
    if step.typed:
        (out / step.leaves).write_text(said, encoding="utf-8")
    took = out / "minutes.json"
    known = json.loads(took.read_text(encoding="utf-8")) if took.exists() else {}
    took.write_text(json.dumps(known | {step.name: round((cpu_seconds() - started) / 60, 2)}, indent=1) + "\n", encoding="utf-8")
    return 0


def cpu_seconds() -> float:
    """Processor time of this process and of those that it started and that are done, which other programs do not lengthen."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def as_a_command(step: Step) -> tuple[int, str]:
    """The step as a user types it: a process of its own. Its exit code and, where something is typed into it, what it said."""
    talks = bool(step.typed)
    done = subprocess.run([sys.executable, "-m", "tunewright", *step.words], input=step.typed or None, text=True, check=False,
                          stdout=subprocess.PIPE if talks else None)
    return done.returncode, done.stdout or ""


def in_this_process(step: Step) -> tuple[int, str]:
    """The same without starting an interpreter for each step."""
    from tunewright.cli import main as tunewright

    typed, sys.stdin = sys.stdin, io.StringIO(step.typed)
    try:
        with redirect_stdout(io.StringIO()) as said:
            code = tunewright(list(step.words))
    finally:
        sys.stdin = typed
    return code, said.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
