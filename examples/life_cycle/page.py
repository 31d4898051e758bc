"""docs/life_cycle.md: the report of a life cycle, the commands that made it and their settings, each in full."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import life_cycle  # noqa: E402
import results  # noqa: E402

OUT = "runs/life_cycle"
SETTINGS = results.LOSSES

HEAD = """# A life cycle

One small model from documents to conversation, each stage beginning with what the one before left. The same again, on your machine:

```console
$ python examples/life_cycle/life_cycle.py
```

This page is made from the report of such a run with {model}: {minutes:.0f} CPU minutes. `--small` does two steps of
everything in less than one, which the tests do.

The model is to be the clerk of a shop who confirms orders. It first reads the shop's letters (pt), then answers of many clerks (sft),
who are courteous by chance and leave out facts of the order by chance. Of two answers the one with more courtesies is preferred:
from that learn a reward model (rm), and dpo, kto, orpo and simpo, each by itself. ppo draws answers and learns from the reward model.
grpo goes on from there with another reward, a rule: how many of the order's facts an answer states
([`rewards.py`](../examples/life_cycle/rewards.py)). The orders are those of `tunewright demo`; names, items, cities and phrasings
of held-out ones occur in no training row.

Answers and preferences are measured on {orders} held-out orders and without tunewright
([`measure.py`](../examples/life_cycle/measure.py)): log-probabilities and rewards with transformers and peft, courtesies and facts by
looking for them in the answers. Losses, and what the reward model got right before its first step, are from the runs' logs.

## Answers

Every policy answered the held-out orders once, by chance at temperature 1. Mean counts, with their standard errors:

"""
RANKING = """
ppo is to raise the courtesies, and grpo the facts.

## Preferences

Held-out pairs of answers told apart. Before training, the reward model has a random head, and the others are the model after sft.

"""
TRAINING = """
The rewards of the {orders} pairs that `tunewright predict` wrote differ by at most {difference:.0e} from those of transformers.

## Training

First and last figures. The reward of ppo is the reward model's, that of grpo the share of facts.

"""
CONVERSATION = """
## Conversation

`tunewright export` merged the last policy. `tunewright chat` and plain transformers, both at their likeliest, say the same:

> {question}
>
> {answer}

## Commands

"""


def page(report: results.Report) -> str:
    """The page of a report."""
    said, parts = report["export"], [HEAD.format(model=report["model"], minutes=sum(report["minutes"].values()), orders=report["orders"])]
    parts += ["\n".join(results.answer_rows(report)), "\n", RANKING, "\n".join(results.ranking_rows(report)), "\n"]
    parts += [TRAINING.format(orders=report["orders"], difference=report["reward_model"]["difference"])]
    parts += ["\n".join(results.stage_rows(report)), "\n\n", versions(report), "\n"]
    parts += [CONVERSATION.format(question=said["question"], answer=said["transformers"]), commands(), settings()]
    return "".join(parts)


def versions(report: results.Report) -> str:
    """What it was made with."""
    return "Made with " + ", ".join(f"{name} {number}" for name, number in report["versions"].items()) + "."


def commands() -> str:
    """What is typed, in its order."""
    lines = [f"$ tunewright {shlex.join(step.words)}" for step in life_cycle.steps(OUT)]
    return "\n".join(["```console", *lines, "```", ""])


def settings() -> str:
    """The files that the training commands read."""
    blocks = [f"\n### {name}\n\n```yaml\n{(HERE / f'{name}.yaml').read_text(encoding='utf-8')}```\n" for name in SETTINGS]
    return "".join(["\n## Settings\n", *blocks])


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
