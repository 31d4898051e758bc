"""Stages by name."""

from __future__ import annotations

from typing import Final

from tunewright.registry import Entry, Registry
from tunewright.stages.stage import Stage

STAGES: Final = Registry("stage", (
    Entry("pt", "tunewright.stages.pretrain:PreTraining", "Pre-training on documents."),
    Entry("sft", "tunewright.stages.sft:SupervisedFineTuning", "Supervised fine-tuning on conversations."),
))


def load_stage(name: str, label_smoothing: float = 0.0) -> Stage:
    """The stage of that name. Raises InputError for an unknown one, with the nearest."""
    stage: Stage = STAGES.load(name)(label_smoothing=label_smoothing)
    return stage
