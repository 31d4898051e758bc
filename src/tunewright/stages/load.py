"""Stages by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tunewright.registry import Entry, Registry
from tunewright.stages.stage import Stage

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig

STAGES: Final = Registry("stage", (
    Entry("pt", "tunewright.stages.pretrain:PreTraining", "Pre-training on documents."),
    Entry("sft", "tunewright.stages.sft:SupervisedFineTuning", "Supervised fine-tuning on conversations."),
    Entry("dpo", "tunewright.stages.dpo:PreferenceOptimization", "Preferences between two answers: DPO and its relatives."),
    Entry("kto", "tunewright.stages.kto:FeedbackOptimization", "Answers marked desirable or undesirable: KTO."),
    Entry("ppo", "tunewright.stages.ppo:ProximalPolicyOptimization", "Rewards for answers of the policy: PPO, with a value head."),
    Entry("grpo", "tunewright.stages.grpo:GroupRelativePolicyOptimization", "Rewards for groups of answers of the policy: GRPO and its "
          "relatives."),
    Entry("rm", "tunewright.stages.reward_model:RewardModeling", "Reward modelling on pairs of answers."),
))


def load_stage(run: RunConfig) -> Stage:
    """The stage of the run, as it wants it. Raises InputError for one that is not built."""
    stage: Stage = STAGES.load(run.run.stage).of(run)
    return stage
