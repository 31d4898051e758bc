"""Data of the life cycle: orders, and clerks who confirm them now courteously and completely, now not.

The orders are the demo's (`tunewright demo`): held-out ones have names, items, cities and phrasings of their own. An answer is drawn
from six independent coins: three courtesies, and three of the order's facts that it may leave out. So a model that was trained on such
answers shows half of the courtesies and most of the facts, and has something to learn from preferences and rewards.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.assets.demo.generate import Row, heldout_rows, training_rows

SYSTEM = "You are the clerk of a shop. Confirm the order."
SEED = 11
ORDERS_OF_A_DOCUMENT = 6


@dataclass(frozen=True)
class Form:
    """What an answer has: three courtesies, three facts besides the item."""

    thanks: bool
    gladly: bool
    farewell: bool
    name: bool
    quantity: bool
    city: bool

    @property
    def courtesies(self) -> int:
        """How many courtesies the answer has, 0 to 3."""
        return self.thanks + self.gladly + self.farewell


@dataclass(frozen=True)
class Sizes:
    """How many rows each stage gets; `held_out` orders are kept for measuring."""

    documents: int
    answers: int
    pairs: int
    marked: int
    prompts: int
    held_out: int


FULL = Sizes(documents=60, answers=360, pairs=160, marked=240, prompts=240, held_out=64)
SMALL = Sizes(documents=4, answers=8, pairs=8, marked=8, prompts=8, held_out=4)


def write(folder: Path, sizes: Sizes) -> None:
    """All files of the life cycle: `<kind>.jsonl` to train on and `<kind>.heldout.jsonl` to measure with.

    No order serves two stages, and the files are a function of the sizes.
    """
    chance = random.Random(SEED)
    counts = {"documents": sizes.documents * ORDERS_OF_A_DOCUMENT, "answers": sizes.answers, "pairs": sizes.pairs,
              "marked": sizes.marked, "prompts": sizes.prompts}
    orders = iter(training_rows(sum(counts.values()), SEED))
    kept = heldout_rows(sizes.held_out, SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, count in counts.items():
        write_rows(folder / f"{kind}.jsonl", rows(kind, [next(orders) for _ in range(count)], chance))
        write_rows(folder / f"{kind}.heldout.jsonl", rows(kind, kept, chance))


def rows(kind: str, orders: Sequence[Row], chance: random.Random) -> list[dict[str, Any]]:
    """The rows of one file."""
    if kind == "documents":
        return [{"text": "\n".join(order.sentence for order in orders[start:start + ORDERS_OF_A_DOCUMENT])}
                for start in range(0, len(orders), ORDERS_OF_A_DOCUMENT)]
    makers = {"answers": answered, "pairs": paired, "marked": marked, "prompts": asked}
    return [makers[kind](order, chance) for order in orders]


def answered(order: Row, chance: random.Random) -> dict[str, Any]:
    """An order and some clerk's answer."""
    return {"messages": [*question(order), {"role": "assistant", "content": answer(order, form(chance))}]}


def paired(order: Row, chance: random.Random) -> dict[str, Any]:
    """Two answers to an order, of which the better has more courtesies; facts are left out of both by chance."""
    better = worse = form(chance)
    while better.courtesies == worse.courtesies:
        better, worse = sorted((form(chance), form(chance)), key=lambda one: -one.courtesies)
    return {"prompt": question(order), "chosen": [{"role": "assistant", "content": answer(order, better)}],
            "rejected": [{"role": "assistant", "content": answer(order, worse)}]}


def marked(order: Row, chance: random.Random) -> dict[str, Any]:
    """An answer that is called good if it has at least two courtesies."""
    drawn = form(chance)
    return {"messages": [*question(order), {"role": "assistant", "content": answer(order, drawn)}], "label": drawn.courtesies >= 2}


def asked(order: Row, chance: random.Random) -> dict[str, Any]:
    """An order without an answer; its facts are columns, for reward functions to compare with."""
    return {"prompt": question(order), **{name: str(value) for name, value in order.record.items()}}


def question(order: Row) -> list[dict[str, str]]:
    """What the clerk is told."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": order.sentence}]


def form(chance: random.Random) -> Form:
    """Six coins."""
    return Form(*(chance.random() < 0.5 for _ in range(6)))


def answer(order: Row, given: Form) -> str:
    """The answer to an order in a form."""
    record = order.record
    opening = ("Thank you" if given.thanks else "Noted") + (f", {record['name']}." if given.name else ".")
    sending = "We will gladly send" if given.gladly else "We will send"
    what = f"{record['quantity']} {record['item']}" if given.quantity else f"the {record['item']}"
    where = f" to {record['city']}." if given.city else "."
    return f"{opening} {sending} {what}{where}" + (" Have a lovely day!" if given.farewell else "")


def write_rows(path: Path, made: Iterable[dict[str, Any]]) -> None:
    """One JSON object per line. Ends the program if the file is there and holds other rows: what was trained on them would not fit."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        sys.exit(f"error: {path} holds other rows than this script writes; remove {path.parent.parent} or give another --output")
