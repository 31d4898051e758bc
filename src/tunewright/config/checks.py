"""Runs the rules between parameters and reports every broken one, where its user wrote it. Standard library only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from tunewright.config.origin import Origin
from tunewright.config.rules import (
    alignment,
    data,
    engine,
    hub,
    inference,
    kernels,
    mixing,
    optimizer,
    paths,
    quantization,
    training,
    tuning,
    unread,
    vocabulary,
)
from tunewright.config.rules.rule import Broken, Case, Purpose, Rule
from tunewright.config.run import RunConfig
from tunewright.errors import Problem

RULES: Final[tuple[Rule, ...]] = (
    *data.RULES, *mixing.RULES, *tuning.RULES, *training.RULES, *engine.RULES, *kernels.RULES, *optimizer.RULES, *alignment.RULES,
    *quantization.RULES, *vocabulary.RULES, *paths.RULES, *inference.RULES, *hub.RULES, *unread.RULES)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule; not an error means the run may go on, and its user is told."""

    problem: Problem
    is_error: bool


@dataclass(frozen=True, slots=True)
class Context:
    """Where each value came from, and what the run is for; without a purpose only rules that always hold are run.

    `place`: where to report what is wrong with values that nobody wrote, such as the configuration file.
    """

    origins: Mapping[str, Origin] = field(default_factory=dict)
    purpose: Purpose | None = None
    place: str | None = None


def findings(run: RunConfig, context: Context, *, skip: Collection[str] = ()) -> list[Finding]:
    """Every rule that the run breaks, in the order of RULES; rules that read a field of `skip` are left out."""
    given = frozenset(name for name, origin in context.origins.items() if origin.is_given)
    case = Case(run, given, context.purpose)
    found = []
    for rule in RULES:
        if (rule.purposes and context.purpose not in rule.purposes) or (rule.test is not unread.never_read and
                                                                       any(name in skip for name in rule.fields)):
            continue
        broken = rule.test(case)
        several = [Broken("", broken)] if isinstance(broken, str) else broken or []
        found += [Finding(_problem(rule, one, context), rule.is_error) for one in several]
    return found


def _problem(rule: Rule, broken: Broken, context: Context) -> Problem:
    """The report of a broken rule, at the field it names or the first that the user wrote."""
    origins = context.origins
    candidates = [broken.field] if broken.field else list(rule.fields)
    given = [name for name in candidates if name in origins and origins[name].is_given]
    name = given[0] if given else candidates[0]
    origin = origins.get(name, Origin("default"))
    where, key = (origin.where, origin.key or name) if origin.is_given else (context.place, name)
    return Problem(f"{key}: {broken.what}", where=where, mend=broken.mend or rule.mend, rule=rule.id)
