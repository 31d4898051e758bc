"""The report of a life cycle: what it holds, what must have improved, and how it is shown."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Report = dict[str, Any]
LOSSES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "ppo", "grpo")
READS = {"dpo": "sum", "kto": "sum", "orpo": "mean", "simpo": "mean"}
"""How each loss compares answers: by the sum or the mean of their log-probabilities."""
PACKAGES = ("torch", "transformers", "peft")


def measure(out: Path, model: str, policies: Sequence[str], question: tuple[str, str]) -> Report:
    """Everything that is known of a finished life cycle, which began with `model`; `question`: what was asked in the chat, with its
    system prompt before it."""
    from measure import Judge, ranked_right, read_rows, rewarded_right

    from tunewright import __version__

    pairs = read_rows(out / "data" / "pairs.heldout.jsonl")
    judge = Judge(out / "merged")
    before = ranked_right(judge, pairs)
    ranking = {}
    for name in READS:
        judge.wear(out / name)
        ranking[name] = ranked_right(judge, pairs)
    judge.wear(out / "rm")
    rewards = rewarded_right(judge, out / "rm", pairs, read_rows(out / "scores" / "generated_predictions.jsonl"))
    return {
        "model": model, "orders": len(pairs),
        "stages": {name: training(out / name) for name in LOSSES},
        "ranking": {"before": before, **ranking}, "reward_model": {"before": untrained(out / "rm"), **rewards},
        "answers": {name: answers(out, name) for name in policies}, "export": exported(out, *question),
        "minutes": json.loads((out / "minutes.json").read_text(encoding="utf-8")),
        "versions": {"tunewright": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}}


def training(folder: Path) -> Report:
    """First and last figures of a stage: the training loss, the evaluation's, or the mean reward of the answers it drew. One figure if
    there was but one."""
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    ends = {}
    for name in ("loss", "eval_loss", "reward"):
        values = [entry[name] for entry in history if name in entry]
        if values:
            ends[name] = [values[0], *values[1:][-1:]]
    return {"steps": max(entry.get("step", 0) for entry in history), **ends}


def untrained(folder: Path) -> float:
    """How many pairs a reward model got right before its first step."""
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return float(next(entry["eval_rewards/accuracies"] for entry in history if "eval_rewards/accuracies" in entry))


def answers(out: Path, policy: str) -> Report:
    """The mean counts in the answers of a policy to held-out orders with their standard errors, what `tunewright predict` said of them,
    and one of them."""
    from measure import courtesies, facts, read_rows

    orders = read_rows(out / "data" / "prompts.heldout.jsonl")
    said = [row["predict"] for row in read_rows(out / "answers" / policy / "generated_predictions.jsonl")]
    figures = json.loads((out / "answers" / policy / "predict_results.json").read_text(encoding="utf-8"))
    counts = {"courtesies": [courtesies(text) for text in said],
              "facts": [facts(text, order) for text, order in zip(said, orders, strict=True)]}
    return {**{name: fmean(values) for name, values in counts.items()},
            "errors": {name: stdev(values) / len(values) ** 0.5 for name, values in counts.items()},
            "predict": {name: figures[name] for name in ("predict_rouge-l", "predict_bleu-4") if name in figures},
            "order": orders[0]["prompt"][-1]["content"], "answer": said[0]}


def exported(out: Path, system: str, question: str) -> Report:
    """What plain transformers answers with the exported model, and what `tunewright chat` did."""
    from measure import Judge

    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return {"question": question, "transformers": Judge(out / "final").answer(turns, 40).strip(),
            "chat": (out / "chat.txt").read_text(encoding="utf-8").strip()}


def missed(report: Report) -> list[str]:
    """What did not improve although it should have, one line each."""
    ranking, said, stages = report["ranking"], report["answers"], report["stages"]
    promises = {f"{name}: the held-out loss falls": stages[name]["eval_loss"][1] < stages[name]["eval_loss"][0] for name in ("pt", "sft")}
    promises["rm: held-out pairs are told apart"] = report["reward_model"]["accuracy"] > max(report["reward_model"]["before"], 0.8)
    promises |= {f"{name}: more held-out pairs are ranked right": ranking[name][kind] > ranking["before"][kind]
                 for name, kind in READS.items()}
    promises["ppo: more courtesies"] = said["ppo"]["courtesies"] > said["merged"]["courtesies"] + 0.3
    promises["grpo: more facts"] = said["grpo"]["facts"] > said["ppo"]["facts"] + 0.3
    promises["predict scores as transformers and peft do"] = report["reward_model"]["difference"] < 1e-3
    promises["export: transformers answers as chat does"] = report["export"]["transformers"] == report["export"]["chat"] != ""
    return [promise for promise, kept in promises.items() if not kept]


def table(report: Report) -> str:
    """The report as Markdown tables."""
    return "\n".join([*stage_rows(report), "", *ranking_rows(report), "", *answer_rows(report), ""])


def stage_rows(report: Report) -> list[str]:
    """Losses and rewards of training, first and last."""
    rows = ["| stage | steps | CPU minutes | training loss | held-out loss | reward in training |", "|---|---|---|---|---|---|"]
    for name, stage in report["stages"].items():
        cells = [" to ".join(f"{value:.3f}" for value in stage.get(figure, ())) for figure in ("loss", "eval_loss", "reward")]
        rows.append(f"| {name} | {stage['steps']} | {report['minutes'].get(name, 0):.1f} | " + " | ".join(cells) + " |")
    return rows


def ranking_rows(report: Report) -> list[str]:
    """Held-out pairs told apart, before and after."""
    scorer, ranking = report["reward_model"], report["ranking"]
    rows = ["| stage | what is compared | held-out pairs right before | after |", "|---|---|---|---|",
            f"| rm | reward | {scorer['before']:.0%} | {scorer['accuracy']:.0%} |"]
    return rows + [f"| {name} | {kind} of log-probabilities | {ranking['before'][kind]:.0%} | {ranking[name][kind]:.0%} |"
                   for name, kind in READS.items()]


def answer_rows(report: Report) -> list[str]:
    """Counts in the answers to held-out orders."""
    rows = ["| policy | courtesies, of 3 | facts, of 4 | ROUGE-L |", "|---|---|---|---|"]
    for name, one in report["answers"].items():
        counts = [f"{one[what]:.2f} ± {one['errors'][what]:.2f}" for what in ("courtesies", "facts")]
        rouge = one["predict"].get("predict_rouge-l")
        cells = ["sft" if name == "merged" else name, *counts, "" if rouge is None else f"{rouge:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows
