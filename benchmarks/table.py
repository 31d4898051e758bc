"""docs/benchmarks.md from the files in benchmarks/results: the same files give the same page.

    python benchmarks/table.py [--results FOLDER] [--page FILE]

Every figure is a median with the least and the most behind it. Ratios are taken between two runs of the same round, which ran one
after the other. Of each side of a case the newest run of the benchmark that has it is shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
from dpo_measured import CACHED, DpoMeasured, read_dpo
from dpo_measured import NAMES as DPO_NAMES
from dpo_measured import OWN as LIVE
from gpu_measured import section as gpu_section
from measured import Measured, read_cases
from parts import Case
from sides import OWN
from targets import NAMES, spread, summary

HERE: Final = Path(__file__).parent
Line = dict[str, Any]


def main() -> int:
    """Write the page. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    wish = parser.parse_args()
    wish.page.write_text(page(wish.results), encoding="utf-8")
    return 0


def page(results: Path) -> str:
    """The whole page."""
    cases, dpo = read_cases(results / "training.jsonl"), read_dpo(results / "dpo_step.jsonl")
    preprocessing, startup, generation = (_read(results / f"{name}.json") for name in ("preprocessing", "startup", "generation"))
    parts = [HEAD, summary(cases, dpo, preprocessing, startup), *(_case(case) for case in cases), _ablation(cases),
             _dpo(dpo) if dpo else "", _generation(generation) if generation else "", _startup(startup) if startup else "",
             _preprocessing(preprocessing) if preprocessing else "", gpu_section(results / "gpu.jsonl")]
    return "\n".join(part for part in parts if part)


def _read(path: Path) -> Line | None:
    if not path.is_file():
        return None
    found: Line = json.loads(path.read_text(encoding="utf-8"))
    return found


HEAD: Final = """# Benchmarks

This page is made by `python benchmarks/table.py` from the files in `benchmarks/results`. Anyone can make those
anew with `make benchmarks`, or part by part:

```console
$ tunewright demo                      # once: fetches the model
$ python benchmarks/training.py        # about 45 minutes on two quiet cores; --cases and --sides take parts of it
$ python benchmarks/dpo_step.py        # about an hour
$ python benchmarks/generation.py
$ python benchmarks/startup.py
$ python benchmarks/preprocessing.py
$ python benchmarks/gpu_training.py    # where there is an NVIDIA GPU
$ python benchmarks/table.py
```

Peers run in environments of their own, which the benchmarks make with pip, with the same version of torch. All sides train on the same
token ids and labels in the same batches, with the same optimizer, rate and first adapter, and must log the same loss at each step to
1e-4 (LitGPT, which makes an adapter of its own, at the first). They run in turns, each time in a new process. A figure is the median,
behind it the least and the most of all rounds. CPU seconds are those of all threads; they depend less than seconds of the clock on what
else the machine does. The ceiling is the machine's own matrix product in float32, measured in each round; a share of more than 100 %
says that the machine was disturbed just then. Peak memory is the most that the whole process held, Python and the model included.

Rows of training begin with the same system prompt, 32 tokens of template in all, as public instruction data does. tunewright computes what
rows of a batch have in common once, and what follows a row's last prediction not at all; every token counts, on all sides alike. The side
`tunewright-without-prefix` is the same run without that.

Packed rows are those sequences that tunewright's `packing` makes of them. The others get the same sequences in the form that their own
packing has: LLaMA-Factory's `neat_packing`, TRL's best-fit packing, transformers' `DataCollatorWithFlattening`. Equal losses show that no
row sees another on any side.
"""


NOTES: Final = {
    "litgpt": "LitGPT does not do quite the same: it has layers and an adapter of its own, warms up, lowers the rate along a cosine and "
              "does not clip gradients. Its loss is compared at the first step only."}
"""Where a peer computes another thing by design."""


def _title(case: Case) -> str:
    trained = {"lora": "LoRA of rank 8 on all linear layers", "full": "all weights"}[case.tuning]
    return f"{case.kind} rows, {trained}, {case.threads} thread{'s' if case.threads > 1 else ''}"


def _case(measured: Measured) -> str:
    work, machine = measured.workload, measured.machine
    timed = work["steps"] - 1
    if measured.case.kind == "packed":
        shape, lost = f"rows packed into one sequence of up to {work['counted_padded'] // timed} tokens a step;", "of their room is left"
    else:
        shape, lost = f"batches of {work['batch']} rows,", "of a padded batch is padding"
    ceilings = spread([line["gflop_per_cpu_s"] for line in measured.ceilings.values()], ".0f")
    lines = [
        f"## Training: {_title(measured.case)}", "",
        f"{machine['model']}, {machine['parameters'] / 1e6:.1f} million weights, float32; {shape} "
        f"{work['mean_tokens']:.0f} tokens on average, {work['longest']} at the most; {timed} steps are timed, "
        f"{work['counted_tokens']} tokens, {100 * work['counted_trained'] / work['counted_tokens']:.0f} % of them with a label; "
        f"{100 * (1 - work['efficiency']):.0f} % {lost}. {machine['processor']}, {machine['cores']} cores; "
        f"{machine['run'][:10]}; ceiling {ceilings} GFLOP per CPU second.", "",
        "| | tokens per CPU s | tokens per s | tunewright is faster by (CPU) | (clock) | share of the ceiling | peak memory, MB | "
        "CPU s until the steps that are timed | first loss |", "|---|---|---|---|---|---|---|---|---|"]
    lines += [_row(measured, side) for side in measured.runs if side == OWN or not side.startswith(OWN)]
    lines += [f"| {NAMES.get(side, side)} | failed: {reason} | | | | | | | |" for side, reason in measured.failures.items()]
    notes = [f"{note}\n" for side, note in NOTES.items() if side in measured.runs]
    return "\n".join([*lines, "", *notes, _versions(measured.runs, NAMES), ""])


def _row(measured: Measured, side: str) -> str:
    def column(figure: str, layout: str) -> str:
        return spread([line[figure] for line in measured.runs[side].values()], layout)

    faster = ["", ""] if side == OWN else [spread(measured.ratios(side, figure), ".2f") for figure in ("cpu", "wall")]
    losses = statistics.median(line["losses"][0] for line in measured.runs[side].values())
    cells = [NAMES.get(side, side), spread(measured.speeds(side, "cpu"), ".1f"), spread(measured.speeds(side, "wall"), ".1f"), *faster,
             f"{spread(measured.shares(side), '.0f')} %", column("peak_mb", ".0f"), column("cpu_before", ".0f"), f"{losses:.5f}"]
    return f"| {' | '.join(cells)} |"


def _versions(runs: Mapping[str, Mapping[Any, Line]], names: Mapping[str, str]) -> str:
    """Versions of the packages, the sides together that have the same."""
    found: dict[str, list[str]] = {}
    for side, turns in runs.items():
        told = ", ".join(f"{name} {number}" for name, number in next(iter(turns.values()))["versions"].items())
        found.setdefault(told, []).append(names.get(side, side))
    return "\n".join(["Versions:", "", *(f"* {'; '.join(sides)}: {told}" for told, sides in found.items())])


def _ablation(cases: Sequence[Measured]) -> str:
    """tunewright without one part after the other."""
    parts = []
    for measured in cases:
        without = [side for side in measured.runs if side.startswith(f"{OWN}-") and measured.ratios(side, "cpu")]
        if without:
            parts += [f"## What each part pays: {_title(measured.case)}", "",
                      "| tunewright | CPU seconds over those of all parts | peak memory, MB |", "|---|---|---|"]
            parts += [f"| {side.removeprefix(OWN + '-').replace('-', ' ')} | {spread(measured.ratios(side, 'cpu'), '.2f')} | "
                      f"{spread([line['peak_mb'] for line in measured.runs[side].values()], '.0f')} |" for side in without]
            parts.append("")
    return "\n".join(parts)


def _dpo(measured: DpoMeasured) -> str:
    """Steps on pairs of answers, against TRL."""
    work, machine = measured.workload, measured.machine
    runs = {side: measured.shown(side) for side in DPO_NAMES if measured.shown(side)}
    return "\n".join([
        "## DPO", "", f"{machine['model']}, float32, LoRA of rank 8 on all linear layers; {work['batch']} pairs to a step, prompts of "
        f"{work['prompt']} tokens, answers of {work['answer']}; {work['steps'] - 1} steps are timed, {work['pairs']} pairs, one thread. A "
        "live reference is asked in each step, a cached one before the first; the time for that is not counted on either side. "
        f"{machine['processor']}, {machine['cores']} cores; {machine['run'][:10]}.", "",
        "| | pairs per CPU s | pairs per s | tunewright is faster by (CPU): live reference | cached | peak memory, MB | CPU s until the "
        "steps that are timed | first loss |", "|---|---|---|---|---|---|---|---|",
        *(_dpo_row(measured, side) for side in runs),
        *(f"| {DPO_NAMES.get(side, side)} | failed: {reason} | | | | | | |" for side, reason in measured.failures.items()), "",
        _versions(runs, DPO_NAMES), ""])


def _dpo_row(measured: DpoMeasured, side: str) -> str:
    lines = list(measured.shown(side).values())
    faster = [spread(measured.ratios(side, own, "cpu"), ".2f") if side != own else "" for own in (LIVE, CACHED)]
    cells = [DPO_NAMES[side], spread(measured.speeds(side, "cpu"), ".3f"), spread(measured.speeds(side, "wall"), ".3f"), *faster,
             *(spread([line[figure] for line in lines], ".0f") for figure in ("peak_mb", "cpu_before")),
             f"{statistics.median(line['losses'][0] for line in lines):.5f}"]
    return f"| {' | '.join(cells)} |"


def _generation(result: Line) -> str:
    """Tokens that answers are made of, per second."""
    lines = [f"| {name} | {spread(one['tokens_per_cpu_s'], '.1f')} | {spread(one['faster'], '.2f') if one['faster'] else ''} |"
             for name, one in result["sides"].items()]
    return "\n".join([
        "## Generation for evaluation", "", f"{result['model']}: greedy answers of {result['new_tokens']} tokens to {result['prompts']} "
        f"prompts of long-tailed lengths, batches of {result['batch']}, one thread; {result['same']} of the answers are the same on both "
        "sides. Opening the model is not counted.", "", "| | tokens per CPU s | tunewright is faster by |", "|---|---|---|", *lines, ""])


def _startup(result: Line) -> str:
    """CPU seconds of commands that answer at once."""
    lines = [f"| `{one['command']}` | {spread(one['cpu'], '.2f')} | {one['target'] or ''} |" for one in result["commands"]]
    return "\n".join(["## Start-up", "", "CPU seconds of a whole process, files in memory.", "",
                      "| command | CPU s | target |", "|---|---|---|", *lines, ""])


def _preprocessing(result: Line) -> str:
    """Rows per second from text to tokens."""
    lines = []
    for workers, case in result["workers"].items():
        for side in (OWN, "llamafactory"):
            one = case[side]
            lines.append(f"| {workers} | {NAMES[side].partition(',')[0]} | {one['rows_per_second']} | {one['rows_per_cpu_second']} | "
                         f"{one['peak_mb_parent']:.0f} |")
        wall, cpu = case["times_the_rows_per_second"], case["times_the_rows_per_cpu_second"]
        lines.append(f"| {workers} | tunewright is faster by | {_told(wall)} | {_told(cpu)} | |")
    return "\n".join([
        "## Preprocessing", "", f"{result['rows']} rows of text to tokens, {result['repeats']} runs of each side in turns; LLaMA-Factory "
        f"{result['peer'].partition('==')[2]}. {_same_tokens(result['tokens'])}", "",
        "| processes | | rows/s | rows per CPU s | peak memory, MB |", "|---|---|---|---|---|",
        *lines, ""])


def _same_tokens(tokens: Line) -> str:
    """How far both made the same of the rows."""
    same = tokens["of_these_the_same_labels"] + tokens["of_these_labels_that_differ_by_line_breaks_behind_answers"]
    return (f"{tokens['rows_of_tunewright']} of them were used by tunewright, {tokens['rows_of_llamafactory']} by LLaMA-Factory; "
            f"{tokens['rows_with_the_same_ids']} have the same ids on both sides, {same} of these the same labels but for those of the "
            "line breaks behind answers.")


def _told(figures: Line) -> str:
    return f"{figures['median']} ({figures['min']} to {figures['max']})"


if __name__ == "__main__":
    raise SystemExit(main())
