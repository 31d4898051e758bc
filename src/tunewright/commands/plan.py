"""`tunewright plan`: what a run will need, before it is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tunewright.errors import UsageError

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.planning.batches import Rows
    from tunewright.planning.estimate import Plan
    from tunewright.planning.machine import Machine

USAGE: Final = """usage: tunewright plan CONFIG [key=value ...] [--key value ...] [--json] [--card NAME]

Print what training as the configuration says will need: memory by component at its peak, against what is available; tokens and seconds
per step, and of the run; and the largest micro-batch that is safe. No weights are read, and no rows are tokenised but a sample where
none of them are in the cache. --json prints the same for programs. --card plans for a graphics card that is not here, such as H100.
Exit code 0 also if the run does not fit: the table says so.
"""


def run(argv: Sequence[str]) -> int:
    """Plan and print. Returns the exit code."""
    if not argv or not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    from tunewright.commands.own_options import take_options
    from tunewright.commands.preflight import read_ready
    from tunewright.planning import report

    options, words = take_options(argv, "plan", ("--card",), ("--json",))
    config = read_ready(words, "train").config
    found = plan_of(config, options.get("--card"))
    sys.stdout.write(json.dumps(report.values(found), indent=1) + "\n" if "--json" in options else report.table(found))
    return 0


def plan_of(config: RunConfig, card: str | None = None) -> Plan:
    """The plan of a run on this machine, or on a `card`."""
    from tunewright.models.load import quiet_transformers
    from tunewright.planning.estimate import Planner
    from tunewright.runtime import wanted_processes

    quiet_transformers()
    rows = _rows(config)
    ranks = wanted_processes(config.run.num_processes, use_cpu=config.run.use_cpu)
    return Planner(config, _machine(config, card), ranks=ranks).plan(rows)


def _machine(config: RunConfig, card: str | None) -> Machine:
    from tunewright.planning.cards import CARDS, card_of
    from tunewright.planning.machine import machine_for, of_card

    if card is None:
        return machine_for(use_cpu=config.run.use_cpu)
    found = card_of(card)
    if not found.memory_gib:
        raise UsageError(f"--card: '{card}' is not known", mend=f"choose one of {', '.join(one.name for one in CARDS)}")
    return of_card(found)


def _rows(config: RunConfig) -> Rows:
    from tunewright.adapters.vocabulary import own_tokenizer
    from tunewright.data.templates import load_renderer
    from tunewright.models.tokenizer import load_tokenizer
    from tunewright.planning.rows import find_rows

    tokenizer = load_tokenizer(own_tokenizer(config.model, config.tokenizer), config.tokenizer)
    renderer = None if config.run.stage == "pt" else load_renderer(config.template, tokenizer)
    return find_rows(config, tokenizer, renderer)
