"""What a rule is: an identifier, the parameters it reads, a test, and what to do when it is broken. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tunewright.config.proportions import read_proportions
from tunewright.config.run import RunConfig

Purpose = Literal["train", "eval", "predict", "chat", "export", "preview"]
PURPOSES: Final[tuple[Purpose, ...]] = ("train", "eval", "predict", "chat", "export", "preview")


OF_ANSWERS: Final = ("rm", "dpo", "kto", "ppo", "grpo")
"""Stages whose rows are pairs of answers, answers with a mark, or prompts."""


ONLINE: Final = ("ppo", "grpo")
"""Stages that learn from answers of their own."""


@dataclass(frozen=True, slots=True)
class Case:
    """The run that is tested, which fields its user wrote, and what the run is for."""

    run: RunConfig
    given: frozenset[str]
    purpose: Purpose | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule broken by one field in particular: what is wrong, and a mend of its own."""

    field: str
    what: str
    mend: str | None = None


Test = Callable[[Case], str | list[Broken] | None]
"""What is wrong, as the rest of the sentence after the key; None or nothing if all is well."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `fields`: the parameters it reads; the report points at the first of them that the user wrote.

    `purposes`: when it holds; empty means always. `is_error`: otherwise the run goes on with a note.
    """

    id: str
    fields: tuple[str, ...]
    test: Test
    mend: str | None = None
    purposes: tuple[Purpose, ...] = ()
    is_error: bool = True


def has_eval_data(run: RunConfig) -> bool:
    """Whether there is something to evaluate on; what lies in `tokenized_path` is not known here."""
    return run.data.tokenized_path is not None or bool(run.data.eval_dataset) or run.data.val_size > 0 or splits_off_validation(run)


def splits_off_validation(run: RunConfig) -> bool:
    """Whether `split` leaves documents of Megatron's files for validation."""
    try:
        return run.data.data_manager_type == "mg" and read_proportions(run.data.split).validation > 0
    except ValueError:  # a rule of its own
        return False
