"""Every stage on two ranks: one step's loss and gradients are those of one rank with the same eight rows, float64 to 1e-10 relative.

Oracles: the plain restatements of `test_preferences` and `test_reward_model`, and of sft the formula of `tests.engine.test_equivalence`:
each row by itself through transformers' own forward pass. Both ranks run every case in one launch. ppo and grpo, whose answers are drawn,
are in `test_policy_stages` (a step to the last digit) and `test_policy_runs` (whole runs).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from tests.engine import test_equivalence as tokens
from tests.stages import test_preferences as preferences
from tests.stages import test_reward_model as rewards
from tunewright.engine.assemble import collation
from tunewright.engine.batches import Share
from tunewright.runtime import Ranks, end_process, launch_ranks, process_group
from tunewright.stages.pretrain import PreTraining
from tunewright.stages.sft import SupervisedFineTuning

GOLDEN = 1e-10
SPLITS: Final = {"4 x 1": (4, 1), "2 x 2": (2, 2), "3 x 2": (3, 2)}
"""Rows of a micro-batch, and micro-batches. 3 x 2 leaves the second rank without rows in the last micro-batch: it runs a stand-in."""
CASES: Final = (
    *(("sft", split) for split in SPLITS), ("pt", "3 x 2"), ("rm", "4 x 1"), ("rm", "3 x 2"),
    ("sigmoid", "3 x 2"), ("robust", "2 x 2"), ("hinge", "4 x 1"), ("ipo", "2 x 2"), ("kto_pair", "4 x 1"), ("kto_pair", "3 x 2"),
    ("orpo", "3 x 2"), ("simpo", "2 x 2"), ("kto", "2 x 2"), ("kto", "3 x 2"))
"""A stage, or a loss of stage dpo."""


def one_step(stage: str, split: str, ranks: Ranks) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """This rank's half of the first step: what it says (loss, and what the oracle has to know), and the gradients."""
    share = Share(*SPLITS[split], ranks.rank, ranks.world_size)
    if stage in ("sft", "pt"):
        trained = SupervisedFineTuning() if stage == "sft" else PreTraining()
        loss, gradients = tokens.one_step(share, collation(False, 0), "sdpa", ranks, trained)
        return {"loss": loss}, gradients
    if stage == "rm":
        loss, gradients, metrics = rewards.one_step(share, "shared" if split == "4 x 1" else "padded", ranks)
        return {"loss": loss, "won": metrics["rewards/accuracies"]}, gradients
    built, collators = preferences.stage_named(stage)
    loss, gradients, order, _ = preferences.one_step(built, share, collators["flat"], preferences.register(), ranks)
    return {"loss": loss, "order": order}, gradients


def main(folder: str) -> None:
    """What each of the two processes does: every case, one after the other."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    with process_group(ranks, timeout_s=120):
        for number, case in enumerate(CASES):
            said, gradients = one_step(*case, ranks)
            save_file(gradients, f"{folder}/{number}-{ranks.rank}.safetensors", {"said": json.dumps(said)})
    end_process(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both ranks wrote; they run once for all cases."""
    path = tmp_path_factory.mktemp("ranks")
    script = path / "rank.py"
    script.write_text(f"from tests.stages.test_two_ranks import main\nmain({str(path)!r})\n")
    root = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "src")]))
        assert launch_ranks([sys.executable, str(script)], 2) == 0
    return path


def expectation(stage: str, said: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of all eight rows."""
    if stage in ("sft", "pt"):
        return tokens.plain()
    if stage == "rm":
        scores = torch.stack(rewards.plain_rewards(rewards.model()))
        assert said["won"] == float((scores[0::2] > scores[1::2]).double().mean())
        return rewards.plain(rewards.model())
    return preferences.expectation(stage, said["order"])


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "split"), CASES)
def test_two_ranks_equal_one(stage: str, split: str, folder: Path) -> None:
    """Each rank has the loss and the gradients of the whole step."""
    from safetensors import safe_open

    for rank in (0, 1):
        with safe_open(folder / f"{CASES.index((stage, split))}-{rank}.safetensors", "pt") as file:
            said = json.loads(file.metadata()["said"])
            loss, expected = expectation(stage, said)
            assert said["loss"] == pytest.approx(loss, rel=GOLDEN)
            assert preferences.same({name: file.get_tensor(name) for name in file.keys()}, expected)  # noqa: SIM118 - not a mapping
